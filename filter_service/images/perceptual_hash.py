"""PDQ perceptual hashes of pictures, and in how many bits they differ.

256 bits of the 16 lowest frequencies each way. Copies that were scaled or compressed again differ
in some ten of them, unrelated pictures in about 128.
"""

import numpy as np
import numpy.typing as npt
import PIL.Image

from filter_service.images.pdq import compute

BITS = 256
NEAR = 31  # bits; what the hash's authors take for the same picture
PLAIN = 50  # of its quality, 0 to 100; below, its authors trust no match: the picture is too plain

# It works on 64 x 64 luminance. Reduced to twice that first it takes milliseconds instead of up to
# a second. The filter is as wide as the hash's own blur would be, and Pillow's quick reduction
# before it stays four times finer: with a box, and half that, scaled copies of print come out some
# 36 bits apart, 80 at worst, instead of some 6, and 16.
SIDE = 128
_FILTER = PIL.Image.Resampling.BILINEAR
_GAP = 4.0

Bits = npt.NDArray[np.uint64]  # (..., 4), the hash in four words


def pdq(frame: PIL.Image.Image) -> str | None:
    """The hash of an RGB picture, as 256 digits 0 and 1; None if it is too plain to mean anything.

    Plain pictures all have nearly the same hash, and would match each other.
    """
    small = frame.resize((SIDE, SIDE), _FILTER, reducing_gap=_GAP)
    bits, quality = compute(np.asarray(small))
    return "".join(map(str, bits)) if quality >= PLAIN else None


def packed(hashes: list[str]) -> Bits:
    """Hashes as numbers, so that many are compared at once: n -> (n, 4)."""
    digits = np.frombuffer("".join(hashes).encode(), np.uint8) - ord("0")
    return np.packbits(digits.reshape(-1, BITS), axis=1).view(np.uint64)


def differing(a: Bits, b: Bits) -> npt.NDArray[np.int16]:
    """In how many bits hashes differ, (..., 4) and (..., 4) broadcast -> (...)."""
    counts = np.bitwise_count(a ^ b).astype(np.int16)  # (..., 4)
    # Added by hand: over so short an axis, sum() takes ten times as long.
    return np.asarray(counts[..., 0] + counts[..., 1] + counts[..., 2] + counts[..., 3])
