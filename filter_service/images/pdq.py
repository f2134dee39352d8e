"""Computes PDQ hashes as its authors do: from the lowest frequencies of the luminance.

To the bit what their program computes: single-precision sums are made in the same order there and
here, since a frequency near the median would fall on its other side for a rounding.
"""

import numpy as np
import numpy.typing as npt

GRID = 64  # the luminance that is transformed, each way
FREQUENCIES = 16  # kept, each way; the constant one is not among them
_LEAST = 5  # pixels a side; smaller pictures have no hash
_PASSES = 2  # of the box filter, which together make a tent as wide as a cell of the grid

Floats = npt.NDArray[np.float32]

_orders = np.arange(1, FREQUENCIES + 1)[:, None]  # (16, 1)
_places = 2 * np.arange(GRID)[None] + 1  # (1, 64)
_COSINES = (
    float(np.float32(np.sqrt(2 / GRID))) * np.cos(np.pi / 2 / GRID * _orders * _places)
).astype(np.float32)  # (16, 64)


def compute(picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int]:
    """The 256 bits of an RGB picture (h, w, 3), highest frequency first, and its quality.

    Quality goes from 0 to 100 and counts the picture's edges; it is 0 for less than 5 pixels.
    """
    if min(picture.shape[:2]) < _LEAST:
        return np.zeros(FREQUENCIES**2, np.uint8), 0
    grid = _reduced(_luminance(picture))
    waves = _transformed(grid)
    median = np.partition(waves.ravel(), waves.size // 2 - 1)[waves.size // 2 - 1]
    return (waves > median).astype(np.uint8).ravel()[::-1], _quality(grid)


def _luminance(picture: npt.NDArray[np.uint8]) -> Floats:
    """(h, w, 3) -> (h, w)."""
    r, g, b = np.moveaxis(picture, 2, 0)
    return np.asarray(r * 0.299 + g * 0.587 + b * 0.114, np.float32)


def _reduced(luminance: Floats) -> Floats:
    """(h, w) -> (64, 64): each pixel in the middle of a cell, of the blurred picture."""
    height, width = luminance.shape
    if (height, width) == (GRID, GRID):
        return luminance
    for _ in range(_PASSES):
        luminance = _boxed(_boxed(luminance, _window(width)).T, _window(height)).T
    return luminance[np.ix_(_middles(height), _middles(width))]


def _window(length: int) -> int:
    """Half a cell of the grid, rounded up, in pixels."""
    return -(-length // (2 * GRID))


def _middles(length: int) -> npt.NDArray[np.intp]:
    return ((np.arange(GRID) + 0.5) * length / GRID).astype(np.intp)


def _boxed(values: Floats, window: int) -> Floats:
    """Means of a window that runs along the rows, (m, n) -> (m, n); shorter at the ends."""
    n, ahead = values.shape[1], window // 2
    last = np.arange(ahead, n + ahead)  # (n,), where the window of each mean ends
    steps = np.zeros((len(values), n + ahead, 2), np.float32)
    steps[:, :n, 0] = values  # enter the window
    steps[:, window:, 1] = -values[:, : n + ahead - window]  # leave it
    # One sum runs on through all steps: a window is never summed anew.
    sums = np.cumsum(steps.reshape(len(values), -1), axis=1)[:, 2 * ahead + 1 :: 2]  # (m, n)
    counts = np.minimum(np.minimum(last + 1, window), n + window - last - 1)  # (n,)
    return np.asarray(sums / counts.astype(np.float32))


def _quality(grid: Floats) -> int:
    """How many steps of a hundredth lie between neighbours, scaled as the authors do."""
    steps = [np.trunc(np.diff(grid, axis=axis) * 100 / 255) for axis in (0, 1)]
    return min(100, int(sum(np.abs(s).sum() for s in steps)) // 90)


def _transformed(grid: Floats) -> Floats:
    """The discrete cosine transform at the lowest frequencies, (64, 64) -> (16, 16)."""
    return _product(_product(_COSINES, grid), _COSINES.T)


def _product(a: Floats, b: Floats) -> Floats:
    """A matrix product whose sums are made term after term, (n, k) and (k, m) -> (n, m)."""
    terms = np.multiply(a.T[:, :, None], b[:, None], order="C")  # (k, n, m)
    return np.asarray(np.add.reduce(terms, axis=0))
