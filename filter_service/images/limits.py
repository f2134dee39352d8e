"""Limits on the bytes, pixels and frames of one image."""

from dataclasses import dataclass
from typing import Self

from filter_service.errors import ImageTooLarge, UnreadableImage
from filter_service.settings import Settings

# A frame is painted over the ones before it, so those that are not judged are decoded too. This is
# how many times `max_pixels` the decoder may walk through; a small file can ask for days.
WALK = 10
MOST_FRAMES = 5_000  # a TIFF's pages are counted in quadratic time, a GIF's cost 50 µs each


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost; more is ImageTooLarge, except that frames are sampled."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 100_000_000  # of all the frames judged, together
    max_frames: int = 32  # judged, evenly spread over the file

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.max_bytes, settings.max_pixels, settings.max_frames)


STANDARD = Limits()


def check_bytes(size: int, limits: Limits) -> None:
    """Refuse a file by its size; raises UnreadableImage or ImageTooLarge."""
    if size == 0:
        raise UnreadableImage("The file is empty (0 bytes); submit a whole, readable image.")
    if size > limits.max_bytes:
        raise ImageTooLarge(
            f"The file has {size:,} bytes, the limit is {limits.max_bytes:,}; "
            "submit a smaller one or raise FILTER_SERVICE_MAX_BYTES."
        )


def check_pixels(pixels: int, limit: int, where: str = "") -> None:
    """Refuse an image by its pixels; raises ImageTooLarge."""
    if pixels > limit:
        raise ImageTooLarge(
            f"The image has {pixels:,} pixels{where}, the limit is {limit:,}; "
            "submit a smaller one or raise FILTER_SERVICE_MAX_PIXELS."
        )
