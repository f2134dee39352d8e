"""PDQ, bit by bit: what its authors' own program computes is what is computed here."""

import numpy as np
import numpy.typing as npt
import pytest

from filter_service.images.pdq import compute

Picture = npt.NDArray[np.uint8]

# What pdqhash 0.2.8, the authors' program, says of drawn(height, width), made by
#   bits, quality = pdqhash.compute(drawn(height, width)); np.packbits(bits).tobytes().hex()
KNOWN = {
    (64, 64): ("a28b8a5a55a5db36a2acd45596b392d21695b4d4a4b6cdd534b56db40ba6656c", 100),
    (128, 128): ("eaf28692c575c61dc4f8ce7accb0ce2b8eaa8c549c789c789c78387871f837c0", 100),
    (5, 5): ("61d861d89e2796279627d635d63529ca69d869d861d861d89e2796279627d635", 0),
    (4, 90): ("00" * 32, 0),
    (101, 8): ("a46d89b7f3180ad7b31912db4ce682df04ef025f6c64a875dad202df5a528877", 8),
    (300, 200): ("cbb28ff70b913ff98af29ff407de0ff00fe00ff80fe03fc07fc0ff80f0000000", 100),
    (129, 517): ("ebe9c7e1bffffc7cfc7f3f47a3f0f0e1c3e1f07c7c24ebd17818440040000000", 100),
    (64, 700): ("fd27952bb527a5bbfd3395a3898f8526fd4b3d60f807f7007d81fc031fe00000", 100),
    (1, 1): ("00" * 32, 0),
}


def drawn(height: int, width: int) -> Picture:
    """A picture of bent stripes, the same wherever it is drawn."""
    y, x = np.mgrid[:height, :width]
    colours = [(x * x * k + 7 * y * k + x * y) // (9 * k) % 256 for k in (1, 2, 3)]
    return np.stack(colours, axis=2).astype(np.uint8)  # (h, w, 3)


@pytest.mark.parametrize(("size", "known"), KNOWN.items())
def test_the_hash_is_that_of_its_authors_program(
    size: tuple[int, int], known: tuple[str, int]
) -> None:
    bits, quality = compute(drawn(*size))
    assert (np.packbits(bits).tobytes().hex(), quality) == known


def test_no_bit_differs_where_the_authors_program_is_installed() -> None:
    pdqhash = pytest.importorskip("pdqhash", reason="built from source, so it is not required")
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 300, (60, 2)):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for picture in (noise, drawn(height, width)):
            theirs, their_quality = pdqhash.compute(picture)
            ours, quality = compute(picture)
            assert (ours.tolist(), quality) == (theirs.tolist(), their_quality), picture.shape
