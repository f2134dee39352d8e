"""Decodes all frames of an image file to upright sRGB, within limits."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import PIL.Image
from PIL.ImageFile import ImageFile

from filter_service.errors import ImageTooLarge, UnreadableImage
from filter_service.images.animation import chosen, glance, seen_time
from filter_service.images.colour import Conversion, conversion
from filter_service.images.colour_statements import statements
from filter_service.images.decoder_errors import hush, translated
from filter_service.images.fax import check_fax
from filter_service.images.files import digest
from filter_service.images.flattening import layers, over_pages
from filter_service.images.headers import opened
from filter_service.images.limits import (
    MOST_FRAMES,
    STANDARD,
    WALK,
    Limits,
    check_bytes,
    check_pixels,
)
from filter_service.images.orientation import LYING, orientation, ways

# Blocks that glibc always maps afresh and gives back when they are freed. Pillow's own, of 16 MiB,
# stay with each thread that ever decoded a large image: over a gigabyte for 100 megapixels.
PIL.Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]

DECODER = 2  # of what a file's pixels are: a model sees other pictures by another one


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture that a viewer shows of a file."""

    picture: PIL.Image.Image  # RGB in sRGB, upright, alpha laid over a page
    number: int  # in the file, from 0
    reading: str = ""  # how it was read, where viewers disagree; empty: as most of them do


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
    seen_time: float = 1.0  # share of the time on the screen that the frames kept stand for

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


def pixels_in(data: bytes, limits: Limits = STANDARD) -> int:
    """At most so many pixels are held when a file is decoded, by its header; raises ImageError."""
    hush()
    with translated("The image cannot be decoded"), opened(data) as picture:
        frames = limits.max_frames if getattr(picture, "is_animated", False) else 1
        return min(picture.width * picture.height * frames, limits.max_pixels)


def decode(
    data: bytes,
    limits: Limits = STANDARD,
    at_least: int | None = None,
    only: int | None = None,
    reading: str | None = None,
) -> Image:
    """Decode a still image or an animation; raises UnreadableImage or ImageTooLarge, nothing else.

    Of more than `limits.max_frames` frames, that many are kept, chosen by their time on the screen
    and by what changes, the first among them. One frame that cannot be decoded makes the whole
    image unreadable, whether it would have been kept or not. Auxiliary pictures of a JPEG
    (previews, gain maps, a second eye), which viewers do not show, are left out.

    Colours are converted to sRGB as browsers do it, by whatever the file says of them. Where
    viewers show a frame in several ways, there is a Frame for each.

    `at_least` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as long as
    both sides stay at least twice that many pixels: to be drawn, not to be judged, since fine print
    turns into other patterns. `only` gives the frame of this number alone, in this `reading` where
    one is named, for those who draw it: none behind it is looked at.
    """
    check_bytes(len(data), limits)
    hush()
    with translated("The image cannot be decoded"), opened(data) as picture:
        width, height = picture.size
        check_pixels(width * height, limits.max_pixels)
        reader = _Reader(picture, data, limits)
        if at_least is not None and not reader.to_srgb.bends:
            picture.draft(None, (2 * at_least, 2 * at_least))  # does nothing to other formats
        drafted = picture.size != (width, height)
        frames = reader.all() if only is None else reader.one(only, reading)
        if orientation(picture) in LYING:
            width, height = height, width
    return Image(
        digest=digest(data),
        frames=frames,
        format=picture.format or "",
        width=width,
        height=height,
        drafted=drafted,
        notes=tuple(reader.notes),
        seen_time=reader.seen_time,
    )


class _Reader:
    """An opened file, frame by frame."""

    def __init__(self, picture: ImageFile, data: bytes, limits: Limits) -> None:
        self._picture = picture
        self._data = data
        self._limits = limits
        self.notes: dict[str, None] = {}  # in order
        self.to_srgb = self._conversion()
        self._count = _count(picture)
        self.seen_time = 1.0

    def all(self) -> tuple[Frame, ...]:
        """Every frame that is judged; all of them were decoded."""
        most = self._limits.max_frames
        if self._count <= most:
            return self._kept(range(self._count), self._count)
        glances = [glance(self._picture) for _ in self._walk(self._count)]
        numbers = chosen(glances, most)
        self.seen_time = seen_time(glances, numbers)
        return self._kept(numbers, numbers[-1] + 1)

    def one(self, number: int, reading: str | None) -> tuple[Frame, ...]:
        """One frame, the last if there is none of this number, in one reading or in all."""
        number = min(number, self._count - 1)
        frames = self._kept((number,), number + 1)
        chosen = tuple(f for f in frames if reading in (None, f.reading))
        if not chosen:
            known = ", ".join(repr(f.reading) for f in frames)
            raise UnreadableImage(
                f"Frame {number} of the image has no reading {reading!r}; ask for one of {known}."
            )
        return chosen

    def _kept(self, numbers: Collection[int], end: int) -> tuple[Frame, ...]:
        frames: list[Frame] = []
        for number in self._walk(end, numbers):
            if number in numbers:
                frames += self._shown(number)
        return tuple(frames)

    def _walk(self, end: int, keep: Collection[int] = ()) -> Iterator[int]:
        """Load every frame in turn up to this one."""
        picture, walked, kept = self._picture, 0, 0
        for number in range(end):
            what = f"Frame {number} of 0 to {self._count - 1}" if self._count > 1 else "The image"
            with translated(f"{what} cannot be decoded"):
                picture.seek(number)
                pixels = picture.width * picture.height  # frames of one file may differ in size
                walked += pixels
                self._check(walked, pixels * (end - number - 1))
                if number in keep:
                    kept += pixels
                    check_pixels(kept, self._limits.max_pixels, " in the frames to be judged")
                picture.load()
                if picture.format == "TIFF":
                    check_fax(picture, self._data)
                yield number

    def _check(self, walked: int, ahead: int) -> None:
        if self._picture.format == "TIFF":  # its pages are not painted over each other
            ahead = 0
        where = f" in {self._count:,} frames"
        check_pixels(walked + ahead, WALK * self._limits.max_pixels, where)

    def _shown(self, number: int) -> Iterator[Frame]:
        """The loaded frame as viewers show it."""
        picture = self._picture
        if picture.format == "TIFF" and number > 0:  # each page speaks for itself
            self.to_srgb = self._conversion()
        for how, layer in layers(picture, self.to_srgb):
            for over, flat in over_pages(layer):
                for way, turned in ways(flat, orientation(picture), picture.format):
                    yield Frame(turned, number, ", ".join(filter(None, (how, over, way))))

    def _conversion(self) -> Conversion:
        stated = statements(self._picture, self._data)
        to_srgb, notes = conversion(stated, self._picture.mode)
        self.notes |= dict.fromkeys(notes)
        return to_srgb


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
