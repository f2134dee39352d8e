"""Makes the pictures that browsers get: blurred ones, re-encoded originals, layers.

The bytes that somebody submitted never reach a browser: whatever is sent was decoded and encoded
here, without the original's metadata. A blurred picture is made from a handful of grey points,
which are all that is kept of the image, so that no way of sharpening it brings anything back.
"""

import io
import textwrap
import time
from dataclasses import dataclass
from functools import lru_cache

import PIL.Image
from PIL import ImageDraw, ImageFont
from PIL.Image import Resampling

from filter_service.images import Limits, decode, reserved
from filter_service.rendering.overlay import EMPTY, PALE
from filter_service.storage import Storage

POINTS = 16  # on the longer side of a blurred picture: all that is known of the image
SHOWN = 480  # pixels on the longer side, as on a page
THUMBNAIL = 112  # likewise, in a list
LARGEST = 1600  # likewise, of a revealed picture
REMEMBERED = 20_000  # images whose points are kept in memory, about a kilobyte each
FORGOTTEN_AFTER = 3600  # seconds; they are computed again

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Points:
    """As much of one frame as anybody may see: its shape and some grey points."""

    size: Size  # of the frame, upright
    grey: PIL.Image.Image


_known: list[object] = [None]


def forget_erased(newest: object) -> None:
    """Drop all points that are remembered if an image was erased since this was last called.

    And each hour: among them may be those of an image that expired or was locked away, which nobody
    gets but memory holds, and of one that was still being read when it was erased.
    """
    now = newest, time.monotonic() // FORGOTTEN_AFTER
    if _known[0] != now:
        points.cache_clear()
        _known[0] = now


@lru_cache(REMEMBERED)
def points(storage: Storage, digest: str, number: int, limits: Limits, reading: str = "") -> Points:
    """The points of a stored image, of one frame in one reading.

    Raises ImageError or StorageUnavailable.
    """
    data = storage.get(digest)
    with reserved(data, limits):
        image = decode(data, limits, at_least=POINTS, only=number, reading=reading)
        (frame,) = image.frames
        picture = frame.picture
        size = (image.width, image.height) if image.drafted else picture.size
        grey = picture.convert("L").resize(fitted(size, POINTS), Resampling.BOX)
    return Points(size, grey)


def blurred(known: Points, longest: int = SHOWN) -> bytes:
    """A blurred, grey picture: JPEG."""
    return _jpeg(known.grey.resize(fitted(known.size, longest), Resampling.BICUBIC), 72)


def original(
    storage: Storage, digest: str, number: int, limits: Limits, reading: str = ""
) -> bytes:
    """The picture itself, large enough to be judged: JPEG. Raises as `points` does."""
    data = storage.get(digest)
    with reserved(data, limits):
        image = decode(data, limits, at_least=LARGEST // 2, only=number, reading=reading)
        (frame,) = image.frames
        picture = frame.picture
        if max(picture.size) > LARGEST:
            picture = picture.resize(
                fitted(picture.size, LARGEST), Resampling.LANCZOS, reducing_gap=2.0
            )
        return _jpeg(picture, 86)


def sentence(text: str, longest: int = SHOWN) -> bytes:
    """A plain picture that says why there is no other: JPEG."""
    plain = PIL.Image.new("RGB", (longest, longest * 3 // 4), EMPTY)
    if longest >= SHOWN:
        lines = "\n".join(textwrap.wrap(text, 40))
        middle, font = (plain.width / 2, plain.height / 2), ImageFont.load_default(18)
        ImageDraw.Draw(plain).multiline_text(middle, lines, _dark(PALE), font, "mm", 8, "center")
    return _jpeg(plain, 72)


def layer(drawn: PIL.Image.Image) -> bytes:
    """A transparent layer: WebP."""
    file = io.BytesIO()
    drawn.save(file, "WEBP", quality=80, alpha_quality=80, method=2)
    return file.getvalue()


def fitted(size: Size, longest: int) -> Size:
    """The same shape with a longer side of so many pixels."""
    scale = longest / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _jpeg(picture: PIL.Image.Image, quality: int) -> bytes:
    """Of the pixels alone: what else the picture knows about itself is left out."""
    bare = PIL.Image.new(picture.mode, picture.size)
    bare.paste(picture)
    file = io.BytesIO()
    bare.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _dark(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    r, g, b = (c * 3 // 4 for c in colour)
    return r, g, b
