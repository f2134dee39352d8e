"""Chooses thresholds without any label: each where a stated share of one's own stream lies above.

Such a threshold says how long a queue is, and nothing of how much of it is right.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from filter_service.errors import InvalidRequest

FEWEST = 200  # pictures: of fewer, one in a hundred is a guess
SMALLEST_SHARE, LARGEST_SHARE = 1e-6, 0.5
CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class StartingThreshold:
    """A margin, and what share of further pictures of the same stream lies above it."""

    margin: float  # logits
    share: float  # expected
    low: float  # of the interval that holds the share with `CONFIDENCE`
    high: float


def fewest_pictures(share: float) -> int:
    """How many pictures it takes until one of them is expected above; InvalidRequest for none."""
    if not SMALLEST_SHARE <= share <= LARGEST_SHARE:
        raise InvalidRequest(
            f"A share of {share:g} of the stream is no queue: give {SMALLEST_SHARE:.4%} at least "
            f"and {LARGEST_SHARE:.0%} at most, such as 1%."
        )
    return max(FEWEST, math.ceil(1 / share - 1e-9) - 1)


def require_enough(pictures: int, share: float) -> None:
    """Raises InvalidRequest where so few pictures say nothing about such a share."""
    if pictures < (needed := fewest_pictures(share)):
        raise InvalidRequest(
            f"{pictures} different pictures are too few to say above what {100 * share:.3g} % of "
            f"the stream lies: give {needed} or more"
            + (", or a larger share." if needed > FEWEST else ".")
        )


def starting_threshold(margins: npt.NDArray[np.float64], share: float) -> StartingThreshold:
    """The margin above which a share of the stream lies, from margins (n,) of its pictures.

    The share above the k-th largest of n exchangeable margins is distributed as Beta(k, n + 1 - k),
    whatever their distribution: its mean is k / (n + 1). Between two of them the margin is
    interpolated, and so is k. Raises InvalidRequest for too few pictures, and for equal margins.
    """
    n = len(margins)
    require_enough(n, share)
    if not np.ptp(margins) > 0:
        raise InvalidRequest(
            f"All {n} pictures have the same margin, so that none lies above the others: give "
            "pictures that differ."
        )
    above = share * (n + 1)
    low, high = betaincinv(above, n + 1 - above, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    margin = np.quantile(margins, 1 - share, method="weibull")
    return StartingThreshold(float(margin), share, float(low), float(high))
