"""Confidence intervals of shares: Wilson's, and those of stratified samples; 95 % unless told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959963984540054  # of the normal distribution: 95 % lie between -Z and Z


@dataclass(frozen=True, slots=True)
class Interval:
    """A share, and between what it lies with the confidence that was asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Stratum:
    """Cases of which the same share was drawn, and what was found in those looked at."""

    cases: int
    seen: int
    hits: int


def wilson(hits: float, seen: float, z: float = Z) -> Interval | None:
    """Wilson's score interval, which is sound near 0 and 1, too; None if nothing was seen."""
    if seen <= 0:
        return None
    p, square = hits / seen, z * z / seen
    middle = (p + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(p * (1 - p) / seen + square / (4 * seen))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(p, low if hits else 0.0, high if hits < seen else 1.0)


def stratified(strata: Sequence[Stratum]) -> Interval | None:
    """The share of hits among all cases of strata that were looked into.

    Every case that was seen stands for as many as its stratum has for each seen one (Horvitz and
    Thompson's estimator, with the shares that were reached). The interval is Wilson's for the
    effective number seen: the smaller one of what the unequal weights leave (Kish) and what the
    strata's own variances do. Strata without a seen case say nothing and are left out.
    """
    known = [s for s in strata if s.seen]
    cases = sum(s.cases for s in known)
    if not cases:
        return None
    p = sum(s.cases * s.hits / s.seen for s in known) / cases
    effective = cases**2 / sum(s.cases**2 / s.seen for s in known)
    shares = [(s.cases / cases, s.hits / s.seen, s.seen) for s in known]
    variance = sum(w**2 * q * (1 - q) / n for w, q, n in shares)
    if variance:
        effective = min(effective, p * (1 - p) / variance)
    return wilson(p * effective, effective)
