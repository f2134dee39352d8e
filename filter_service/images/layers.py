"""From a decoder's picture to what is seen of it: eight bits, sRGB, laid over a page."""

import numpy as np
import PIL.Image
from PIL.ExifTags import Base as Tag

from filter_service.images.colour import Conversion

BACKGROUND = (255, 255, 255)  # alpha is laid over white, as most pages show it
DARK = (18, 18, 18)  # and over #121212, as dark ones do


def layer(frame: PIL.Image.Image, conversion: Conversion) -> PIL.Image.Image:
    """A decoded frame in sRGB: RGB, or RGBA where anything can be transparent."""
    if frame.mode in ("I", "F"):
        raise ValueError("samples of 32 bits or with a sign have no stated white; use 8 or 16 bits")
    if frame.mode.startswith("I;16"):
        frame = _eight_bits(frame)
    if frame.has_transparency_data:
        return conversion(frame.convert("RGBA"))
    return conversion(frame if frame.mode == "CMYK" else frame.convert("RGB"))


def flat(layer: PIL.Image.Image, page: tuple[int, int, int]) -> PIL.Image.Image:
    """In RGB, laid over a page of this colour."""
    if layer.mode == "RGB":
        return layer
    under = PIL.Image.new("RGB", layer.size, page)
    under.paste(layer, mask=layer)
    return under


def _eight_bits(frame: PIL.Image.Image) -> PIL.Image.Image:
    """Grey of 12 or 16 bits scaled to 8; Pillow's own conversion clips at 255 instead."""
    tags = getattr(frame, "tag_v2", {})  # a TIFF names its bits and its white end
    top = 2 ** int(tags.get(Tag.BitsPerSample, (16,))[0]) - 1
    grey = np.linspace(0, 255, top + 1).round().astype(np.uint8)  # (top + 1,)
    if tags.get(Tag.PhotometricInterpretation) == 0:
        grey = grey[::-1]
    values = np.asarray(frame)  # (h, w) uint16
    scaled = PIL.Image.fromarray(grey[values])
    hidden = frame.info.get("transparency")  # PNG: this grey is transparent
    if hidden is not None:
        scaled.putalpha(PIL.Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return scaled
