"""Decodes image files as viewers show them: upright sRGB frames, or a sentence on why not."""

from filter_service.images.decoding import DECODER as DECODER
from filter_service.images.decoding import Frame as Frame
from filter_service.images.decoding import Image as Image
from filter_service.images.decoding import check as check
from filter_service.images.decoding import decode as decode
from filter_service.images.files import digest as digest
from filter_service.images.files import read as read
from filter_service.images.flattening import BACKGROUND as BACKGROUND
from filter_service.images.headers import FORMATS as FORMATS
from filter_service.images.limits import Limits as Limits
from filter_service.images.limits import check_bytes as check_bytes
from filter_service.images.pixel_budget import reserved as reserved
