"""Flattens decoded frames to 8-bit sRGB, over a light and a dark background."""

from collections.abc import Iterator

import numpy as np
import PIL.Image
from PIL import ImageChops
from PIL.ExifTags import Base as Tag
from PIL.Image import Resampling
from PIL.ImageFile import ImageFile

from filter_service.images.colour import Conversion

BACKGROUND = (255, 255, 255)  # alpha is laid over white, as most pages show it
DARK = (18, 18, 18)  # and over #121212, as dark ones do
PARTS = 32  # each way: if no part of a picture lets this much of the page through, none is seen
SHINES_THROUGH = 16  # levels of 255

OVER_DARK, NO_ALPHA, INVERTED = "over dark", "without alpha", "inks inverted"


def layers(frame: ImageFile, conversion: Conversion) -> Iterator[tuple[str, PIL.Image.Image]]:
    """A decoded frame in sRGB, RGB or RGBA, by name: first as most viewers take it, without one."""
    shown = _layer(frame, conversion)
    if frame.format == "BMP" and shown.mode == "RGBA":
        yield from _of_bmp(shown)
        return
    yield "", shown
    if frame.mode == "CMYK" and frame.format == "JPEG" and "adobe" not in frame.info:
        yield INVERTED, _layer(ImageChops.invert(frame), conversion)


def over_pages(layer: PIL.Image.Image) -> Iterator[tuple[str, PIL.Image.Image]]:
    """In RGB over a light page, and over a dark one where that can be told apart."""
    yield "", _flat(layer, BACKGROUND)
    if layer.mode == "RGBA" and _shines_through(layer):
        yield OVER_DARK, _flat(layer, DARK)


def _of_bmp(layer: PIL.Image.Image) -> Iterator[tuple[str, PIL.Image.Image]]:
    """Where all of it would be transparent nobody believes it; else not everybody does."""
    opaque = layer.convert("RGB")
    if layer.getchannel("A").getextrema() == (0, 0):
        yield "", opaque
        return
    yield "", layer
    if _shines_through(layer):
        yield NO_ALPHA, opaque


def _layer(frame: PIL.Image.Image, conversion: Conversion) -> PIL.Image.Image:
    """RGB, or RGBA where anything can be transparent."""
    if frame.mode in ("I", "F"):
        raise ValueError("samples of 32 bits or with a sign have no stated white; use 8 or 16 bits")
    if frame.mode.startswith("I;16"):
        frame = _eight_bits(frame)
    if frame.has_transparency_data:
        return conversion(frame.convert("RGBA"))
    return conversion(frame if frame.mode == "CMYK" else frame.convert("RGB"))


def _flat(layer: PIL.Image.Image, page: tuple[int, int, int]) -> PIL.Image.Image:
    """In RGB, laid over a page of this colour."""
    if layer.mode == "RGB":
        return layer
    under = PIL.Image.new("RGB", layer.size, page)
    under.paste(layer, mask=layer)
    return under


def _shines_through(layer: PIL.Image.Image) -> bool:
    """Whether the page can be seen in any part."""
    alpha = layer.getchannel("A")
    parts = (min(PARTS, alpha.width), min(PARTS, alpha.height))
    least, _ = alpha.resize(parts, Resampling.BOX).getextrema()
    return int(least) < 255 - SHINES_THROUGH  # type: ignore[arg-type]


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
