"""Shares of slices with intervals, corrected for how many slices are looked at.

Whoever looks at twenty slices finds one that differs by chance: so every interval is as wide as
makes all of them hold together with 95 % confidence (Bonferroni). A slice differs for sure where
the interval of the difference to all others together does not hold 0 (Newcombe's, from Wilson's).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from filter_service.calibration.intervals import Interval, wilson

CONFIDENCE = 0.95  # that all intervals hold, together


@dataclass(frozen=True, slots=True)
class SliceCount:
    """What was counted of one slice."""

    value: str
    judged: int
    flagged: int
    decided: int  # flags that waited for people, and that they decided
    overturned: int  # of these


@dataclass(frozen=True, slots=True)
class SliceShare:
    """A share of one slice, and how far it is from that of all other slices together."""

    hits: int
    of: int
    interval: Interval | None  # None: there is nothing to count
    apart: Interval | None  # the difference; None: one of the two has nothing to count

    @property
    def differs(self) -> bool:
        """More than chance explains, with as many looks as were taken."""
        return self.apart is not None and (self.apart.low > 0 or self.apart.high < 0)


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One slice."""

    value: str
    flagged: SliceShare  # of what was judged
    overturned: SliceShare  # of what people decided


def slice_rows(counts: Sequence[SliceCount]) -> tuple[SliceRow, ...]:
    """Both shares of every slice; twice as many looks as there are slices."""
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (4 * max(1, len(counts))))
    judged, flagged = sum(c.judged for c in counts), sum(c.flagged for c in counts)
    decided, overturned = sum(c.decided for c in counts), sum(c.overturned for c in counts)
    return tuple(
        SliceRow(
            c.value,
            _share(c.flagged, c.judged, flagged - c.flagged, judged - c.judged, z),
            _share(c.overturned, c.decided, overturned - c.overturned, decided - c.decided, z),
        )
        for c in counts
    )


def _share(hits: int, of: int, other_hits: int, other_of: int, z: float) -> SliceShare:
    own, others = wilson(hits, of, z), wilson(other_hits, other_of, z)
    apart = None if own is None or others is None else _difference(own, others)
    return SliceShare(hits, of, own, apart)


def _difference(a: Interval, b: Interval) -> Interval:
    """Newcombe's interval of a difference of two shares."""
    value = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, value - below, value + above)
