"""Bytes to upright frames in sRGB: limits before decoding, every frame decoded."""

from collections.abc import Iterator
from dataclasses import dataclass

import PIL.Image
from PIL.ImageFile import ImageFile

from filter_service.errors import ImageTooLarge
from filter_service.images.colour import Conversion, conversion
from filter_service.images.files import digest
from filter_service.images.foreign import hush, translated
from filter_service.images.layers import BACKGROUND, flat, layer
from filter_service.images.limits import (
    MOST_FRAMES,
    STANDARD,
    WALK,
    Limits,
    check_bytes,
    check_pixels,
)
from filter_service.images.opening import opened
from filter_service.images.stated import statements
from filter_service.images.turning import LYING, orientation, upright


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture that a viewer shows of a file."""

    picture: PIL.Image.Image  # RGB in sRGB, upright, alpha laid over BACKGROUND
    number: int  # in the file, from 0
    reading: str = ""  # how it was read, where viewers disagree; empty where they agree


@dataclass(frozen=True, slots=True)
class Image:
    """One decoded file. All its frames were decoded without an error, also those not kept."""

    digest: str  # SHA-256 of the bytes, hex
    frames: tuple[Frame, ...]
    format: str
    width: int  # of the file, upright
    height: int
    drafted: bool  # decoded at reduced size: exact decoding may differ slightly
    notes: tuple[str, ...] = ()  # sentences: what of the file could not be obeyed

    def frame(self, number: int, reading: str = "") -> Frame:
        """One of the frames that were kept; raises KeyError for another."""
        for frame in self.frames:
            if (frame.number, frame.reading) == (number, reading):
                return frame
        raise KeyError((number, reading))


def check(data: bytes, limits: Limits = STANDARD) -> None:
    """Refuse what its size or its header gives away, as `decode` would; nothing is decoded."""
    check_bytes(len(data), limits)
    hush()
    with translated("The image cannot be decoded"), opened(data) as picture:
        check_pixels(picture.width * picture.height, limits.max_pixels)


def decode(
    data: bytes,
    limits: Limits = STANDARD,
    at_least: int | None = None,
    only: int | None = None,
    reduction: int = 8,
) -> Image:
    """Decode a still image or an animation; raises UnreadableImage or ImageTooLarge, nothing else.

    Of more than `limits.max_frames` frames, that many are kept, evenly spread, the first and the
    last among them. One frame that cannot be decoded makes the whole image unreadable, whether it
    would have been kept or not. Auxiliary pictures of a JPEG (previews, gain maps, a second eye),
    which viewers do not show, are left out.

    Colours are converted to sRGB as browsers do it, by whatever the file says of them.

    `at_least` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as long as
    both sides stay at least twice that many pixels; never at less than 1/`reduction`. `only` gives
    the frame of this number alone, for those who draw it: none behind it is looked at.
    """
    check_bytes(len(data), limits)
    hush()
    with translated("The image cannot be decoded"), opened(data) as picture:
        width, height = picture.size
        check_pixels(width * height, limits.max_pixels)
        to_srgb, notes = conversion(statements(picture, data), picture.mode)
        count = _count(picture)
        numbers = _spread(count, limits.max_frames)
        if only is not None:
            count = min(count, only + 1)
            numbers = (count - 1,)
        if at_least is not None and not to_srgb.bends:
            _reduce(picture, at_least, reduction)
        drafted = picture.size != (width, height)
        frames = tuple(_frames(picture, count, numbers, limits, to_srgb))
        if orientation(picture) in LYING:
            width, height = height, width
        form = picture.format or ""
    return Image(digest(data), frames, form, width, height, drafted, notes)


def _reduce(picture: ImageFile, at_least: int, most: int) -> None:
    """Have a large JPEG decoded at 1/2, 1/4 or 1/8 of its size; other formats stay as they are."""
    width, height = picture.size
    picture.draft(None, (max(2 * at_least, width // most), max(2 * at_least, height // most)))


def _count(picture: ImageFile) -> int:
    """Frames in the file, at most MOST_FRAMES; raises ImageTooLarge."""
    if picture.format == "MPO":
        return 1
    count = _count_pages(picture) if picture.format == "TIFF" else getattr(picture, "n_frames", 1)
    if count > MOST_FRAMES:
        raise ImageTooLarge(
            f"The image has more than {MOST_FRAMES:,} frames; submit it in several files."
        )
    return int(count)


def _count_pages(picture: ImageFile) -> int:
    for number in range(MOST_FRAMES + 1):
        try:
            picture.seek(number)
        except EOFError:
            return number
    return MOST_FRAMES + 1


def _spread(count: int, most: int) -> tuple[int, ...]:
    """At most `most` frame numbers, evenly spread from the first to the last."""
    if count <= most:
        return tuple(range(count))
    return tuple(round(i * (count - 1) / max(1, most - 1)) for i in range(most))


def _frames(
    picture: ImageFile,
    count: int,
    numbers: tuple[int, ...],
    limits: Limits,
    to_srgb: Conversion,
) -> Iterator[Frame]:
    """Decode every frame in turn and give those asked for."""
    kept = walked = 0
    for number in range(count):
        what = f"Frame {number} of 0 to {count - 1}" if count > 1 else "The image"
        with translated(f"{what} cannot be decoded"):
            picture.seek(number)
            pixels = picture.width * picture.height  # frames of one file may differ in size
            walked += pixels
            ahead = 0 if picture.format == "TIFF" else pixels * (count - number - 1)
            check_pixels(walked + ahead, WALK * limits.max_pixels, f" in {count:,} frames")
            if number in numbers:
                kept += pixels
                check_pixels(kept, limits.max_pixels, " in the frames to be judged")
            picture.load()
            if number in numbers:
                shown = flat(layer(picture, to_srgb), BACKGROUND)
                yield Frame(upright(shown, orientation(picture)), number)
