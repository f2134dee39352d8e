"""Bytes to upright RGB frames: limits before decoding, and one door for the decoders' errors."""

import hashlib
import io
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import PIL.Image
from PIL.ExifTags import Base as Tag
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile

from filter_service.errors import ImageTooLarge, UnreadableImage
from filter_service.settings import Settings

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
BACKGROUND = (255, 255, 255)  # alpha is laid over white, as most pages show it

# A frame is painted over the ones before it, so those that are not judged are decoded too. This is
# how many times `max_pixels` the decoder may walk through; a small file can ask for days.
WALK = 10
MOST_FRAMES = 5_000  # a TIFF's pages are counted in quadratic time, a GIF's cost 50 µs each

# What decoders raise on broken files. Not `Exception`: a time limit raised in here must pass.
_FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    Warning,  # where a caller has made Pillow's warnings into errors
    struct.error,
    zlib.error,
)
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

_UPRIGHT = {  # EXIF orientation -> how to undo it
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # orientations that swap width and height

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost; more is ImageTooLarge, except that frames are sampled."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 100_000_000  # of all the frames judged, together
    max_frames: int = 32  # judged, evenly spread over the file

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.max_bytes, settings.max_pixels, settings.max_frames)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture that a viewer shows of a file."""

    picture: PIL.Image.Image  # RGB, upright, alpha laid over BACKGROUND
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

    def frame(self, number: int, reading: str = "") -> Frame:
        """One of the frames that were kept; raises KeyError for another."""
        for frame in self.frames:
            if (frame.number, frame.reading) == (number, reading):
                return frame
        raise KeyError((number, reading))


def digest(data: bytes) -> str:
    """The name of an image: SHA-256 of its bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path, limits: Limits = Limits()) -> bytes:
    """The bytes of a regular file, its size checked first; raises UnreadableImage, ImageTooLarge.

    A named pipe would block for ever and a device has no end, so neither is opened.
    """
    name = repr(str(path))  # repr: a name need not be valid text
    with _translated(f"The file {name} cannot be read"):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
            raise UnreadableImage(f"{name} is {kind}; submit regular files only.")
        check_bytes(status.st_size, limits)
        with path.open("rb") as file:
            return file.read(status.st_size)


def check(data: bytes, limits: Limits = Limits()) -> None:
    """Refuse what its size or its header gives away, as `decode` would; nothing is decoded."""
    check_bytes(len(data), limits)
    _hush()
    with _translated("The image cannot be decoded"), _open(data) as picture:
        _check_pixels(picture.width * picture.height, limits.max_pixels, "")


def decode(
    data: bytes,
    limits: Limits = Limits(),
    at_least: int | None = None,
    only: int | None = None,
) -> Image:
    """Decode a still image or an animation; raises UnreadableImage or ImageTooLarge, nothing else.

    Of more than `limits.max_frames` frames, that many are kept, evenly spread, the first and the
    last among them. One frame that cannot be decoded makes the whole image unreadable, whether it
    would have been kept or not. Auxiliary pictures of a JPEG (previews, gain maps, a second eye),
    which viewers do not show, are left out.

    `at_least` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as long as
    both sides stay at least twice that many pixels. `only` gives the frame of this number alone,
    for those who draw it: none behind it is looked at.
    """
    check_bytes(len(data), limits)
    _hush()
    with _translated("The image cannot be decoded"), _open(data) as picture:
        width, height = picture.size
        _check_pixels(width * height, limits.max_pixels, "")
        count = _count(picture)
        numbers = _spread(count, limits.max_frames)
        if only is not None:
            count = min(count, only + 1)
            numbers = (count - 1,)
        if at_least is not None:
            picture.draft(None, (2 * at_least, 2 * at_least))  # does nothing to other formats
        drafted = picture.size != (width, height)
        frames = tuple(_frames(picture, count, numbers, limits))
        if _orientation(picture) in _LYING:
            width, height = height, width
        form = picture.format or ""
    return Image(digest(data), frames, form, width, height, drafted)


@contextmanager
def _translated(problem: str) -> Iterator[None]:
    """The one door through which foreign errors come; each leaves as a sentence."""
    try:
        yield
    except (PIL.Image.DecompressionBombError, MemoryError) as error:
        raise ImageTooLarge(
            f"{problem}: it would take too much memory ({_said(error)}); submit a smaller image."
        ) from error
    except _FOREIGN as error:
        raise UnreadableImage(
            f"{problem} ({_said(error)}); submit a whole, readable image."
        ) from error


def _said(error: BaseException) -> str:
    """Type and message of a foreign error, short and safe to store: no control characters."""
    text = f"{type(error).__name__}: {error}"
    return "".join(c if c.isprintable() else "?" for c in text)[:200].rstrip(".: ")


def _hush() -> None:
    """Silence Pillow's warnings: limits and errors here say what they would.

    `warnings.catch_warnings` is not safe in threads, so the filter is put first and stays.
    """
    if list(warnings.filters[:1]) != [_QUIET]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def check_bytes(size: int, limits: Limits) -> None:
    """Refuse a file by its size; raises UnreadableImage or ImageTooLarge."""
    if size == 0:
        raise UnreadableImage("The file is empty (0 bytes); submit a whole, readable image.")
    if size > limits.max_bytes:
        raise ImageTooLarge(
            f"The file has {size:,} bytes, the limit is {limits.max_bytes:,}; "
            "submit a smaller one or raise FILTER_SERVICE_MAX_BYTES."
        )


def _check_pixels(pixels: int, limit: int, where: str) -> None:
    if pixels > limit:
        raise ImageTooLarge(
            f"The image has {pixels:,} pixels{where}, the limit is {limit:,}; "
            "submit a smaller one or raise FILTER_SERVICE_MAX_PIXELS."
        )


def _open(data: bytes) -> ImageFile:
    """Read the header only."""
    try:
        return PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImage(
            f"The file begins with {data[:8]!r}, which is no readable header of any of "
            f"{', '.join(FORMATS)}; submit an image in one of these formats."
        ) from error


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
    picture: ImageFile, count: int, numbers: tuple[int, ...], limits: Limits
) -> Iterator[Frame]:
    """Decode every frame in turn and give those asked for."""
    kept = walked = 0
    for number in range(count):
        what = f"Frame {number} of 0 to {count - 1}" if count > 1 else "The image"
        with _translated(f"{what} cannot be decoded"):
            picture.seek(number)
            pixels = picture.width * picture.height  # frames of one file may differ in size
            walked += pixels
            ahead = 0 if picture.format == "TIFF" else pixels * (count - number - 1)
            _check_pixels(walked + ahead, WALK * limits.max_pixels, f" in {count:,} frames")
            if number in numbers:
                kept += pixels
                _check_pixels(kept, limits.max_pixels, " in the frames to be judged")
            picture.load()
            if number in numbers:
                yield Frame(_upright(_flat(picture), _orientation(picture)), number)


def _orientation(picture: ImageFile) -> int:
    """EXIF orientation of a loaded frame; 1, upright, if the EXIF is broken, as viewers take it."""
    try:
        return int(picture.getexif().get(Tag.Orientation, 1))
    except _FOREIGN:
        return 1


def _upright(frame: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    undo = _UPRIGHT.get(orientation)
    return frame if undo is None else frame.transpose(undo)


def _flat(frame: PIL.Image.Image) -> PIL.Image.Image:
    """A copy in RGB, alpha laid over BACKGROUND."""
    if frame.mode in ("I", "F"):
        raise ValueError("samples of 32 bits or with a sign have no stated white; use 8 or 16 bits")
    if frame.mode.startswith("I;16"):
        frame = _eight_bits(frame)
    if not frame.has_transparency_data:
        return frame.convert("RGB")
    layer = frame.convert("RGBA")
    flat = PIL.Image.new("RGB", frame.size, BACKGROUND)
    flat.paste(layer, mask=layer)
    return flat


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
