"""Converts pictures from their file's colour space to sRGB, as browsers do."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import PIL.Image
from PIL import ImageCms
from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform, Intent

from filter_service.images.colour_statements import ColourStatement
from filter_service.images.decoder_errors import FOREIGN, error_sentence
from filter_service.images.profile_construction import srgb

REMEMBERED = 16  # conversions; each holds its profile
NOTHING = 2  # levels of 255: a conversion that changes less is none
BENDS = 12  # likewise, of a grey
GREY, RGB, INK = "GRAY", "RGB ", "CMYK"  # as ICC profiles name them


@dataclass(frozen=True, slots=True)
class Conversion:
    """From a file's colours to sRGB; of every mode of a picture, the transform."""

    space: str
    transforms: tuple[tuple[str, ImageCmsTransform], ...] = ()
    bends: bool = False  # not light alone: the mean of two colours is another one afterwards

    def __call__(self, layer: PIL.Image.Image) -> PIL.Image.Image:
        """RGB, RGBA or CMYK to RGB or RGBA."""
        if not self.transforms or (layer.mode == "CMYK") != (self.space == INK):
            return layer.convert("RGB") if layer.mode == "CMYK" else layer
        if self.space != GREY:
            return _applied(dict(self.transforms)[layer.mode], layer)
        lit = _applied(self.transforms[0][1], layer.getchannel(0))
        if layer.mode == "RGBA":
            lit.putalpha(layer.getchannel("A"))
        return lit


NONE = Conversion(RGB)


def conversion(
    said_of_it: Iterable[ColourStatement], mode: str
) -> tuple[Conversion, tuple[str, ...]]:
    """By the first statement that can be used; and a sentence for each before it that cannot."""
    notes: list[str] = []
    for statement in said_of_it:
        try:
            if statement.profile is not None:
                return _conversion(statement.profile, mode), tuple(notes)
            why = statement.why
        except FOREIGN as error:
            why = error_sentence(error)
        if why:
            notes.append(
                f"The colours are shown as if there were no {statement.where}: {why.rstrip('.')}."
            )
    return NONE, tuple(notes)


@lru_cache(REMEMBERED)
def _conversion(data: bytes, mode: str) -> Conversion:
    """Raises one of FOREIGN for a profile that is broken, or is for other colours than these."""
    profile = ImageCmsProfile(io.BytesIO(data))
    space = profile.profile.xcolor_space
    if space not in _spaces(mode):
        raise ValueError(f"it is for {space.strip()!r} and the picture is {mode}")
    modes = {GREY: ("L",), RGB: ("RGB", "RGBA"), INK: ("CMYK",)}[space]
    made = tuple((m, _transform(profile, m)) for m in modes)
    return Conversion(space, made if _changes(made[0]) else (), _bends(made[0]))


def _spaces(mode: str) -> tuple[str, ...]:
    """Whose profiles fit the pictures of this mode."""
    if mode == "CMYK":
        return (INK,)
    return (GREY, RGB) if mode in ("1", "L", "LA", "La") or mode.startswith("I;16") else (RGB,)


def _transform(profile: ImageCmsProfile, mode: str) -> ImageCmsTransform:
    # Perceptual: the table that browsers take, too, where a profile has several.
    shown = "RGBA" if mode == "RGBA" else "RGB"
    return ImageCms.buildTransform(profile, _srgb(), mode, shown, Intent.PERCEPTUAL)


@cache
def _srgb() -> ImageCmsProfile:
    return ImageCmsProfile(io.BytesIO(srgb()))


def _applied(transform: ImageCmsTransform, picture: PIL.Image.Image) -> PIL.Image.Image:
    found = ImageCms.applyTransform(picture, transform)
    assert found is not None
    return found


def _changes(made: tuple[str, ImageCmsTransform]) -> bool:
    mode, transform = made
    if mode == "CMYK":
        return True
    steps = np.arange(0, 256, 17, dtype=np.uint8)  # (16,)
    if mode == "L":
        probe = steps[None]
    else:
        probe = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    before = PIL.Image.fromarray(probe)
    return _apart(before.convert("RGB"), _applied(transform, before)) > NOTHING


def _bends(made: tuple[str, ImageCmsTransform]) -> bool:
    mode, transform = made
    if mode == "CMYK":
        return True
    greys = PIL.Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)
    return _apart(greys.convert("RGB"), _applied(transform, greys)) > BENDS


def _apart(one: PIL.Image.Image, other: PIL.Image.Image) -> int:
    """The largest difference, in levels."""
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())
