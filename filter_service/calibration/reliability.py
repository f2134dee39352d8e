"""How well probabilities agree with what people found: each figure with its interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from filter_service.calibration.labelled_margins import Bools, Floats

BINS = 10  # of equal counts
DRAWS = 500  # of the bootstrap
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class BootstrapInterval:
    """A measured value, and between what it lies with the stated confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Images whose probabilities are alike: what was promised, and what was found."""

    promised: float  # mean probability
    found: float  # share that shows the class
    count: int


def reliability(probabilities: Floats, truths: Bools, bins: int = BINS) -> list[ReliabilityBin]:
    """The reliability diagram: bins of equal counts, the lowest probabilities first."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [
        ReliabilityBin(float(probabilities[p].mean()), float(truths[p].mean()), len(p))
        for p in parts
        if len(p)
    ]


def calibration_error(probabilities: Floats, truths: Bools, bins: int = BINS) -> float:
    """Expected calibration error: the mean gap of the bins, each by its count."""
    found = reliability(probabilities, truths, bins)
    total = sum(b.count for b in found)
    return sum(b.count * abs(b.promised - b.found) for b in found) / total if total else 0.0


def brier(probabilities: Floats, truths: Bools) -> float:
    """Mean squared distance of probability and truth (Brier 1950)."""
    return float(((probabilities - truths) ** 2).mean())


def log_loss(probabilities: Floats, truths: Bools) -> float:
    """Mean surprise, in nats."""
    p = np.clip(probabilities, TINY, 1 - TINY)
    return float(-np.where(truths, np.log(p), np.log1p(-p)).mean())


def with_interval(
    measure: Callable[[Floats, Bools], float],
    values: Floats,
    truths: Bools,
    *,
    confidence: float = 0.9,
    seed: int = 0,
    draws: int = DRAWS,
) -> BootstrapInterval:
    """A measure of (n,) values and truths with its percentile bootstrap interval."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(values), (draws, len(values)))  # (draws, n)
    found = np.array([measure(values[r], truths[r]) for r in rows])
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return BootstrapInterval(measure(values, truths), float(low), float(high))


def average_precision(margins: Floats, truths: Bools) -> float:
    """Mean precision over all positives, from the highest margin down; NaN without a positive.

    Equal margins stand together, as a threshold cannot part them.
    """
    if not truths.any():
        return float("nan")
    order = np.argsort(-margins, kind="stable")
    sorted_margins, hits = margins[order], np.cumsum(truths[order])  # (n,)
    last = np.append(sorted_margins[1:] != sorted_margins[:-1], True)  # of each run of equals
    at, count = hits[last], np.flatnonzero(last) + 1
    return float((np.diff(at, prepend=0) * at / count).sum() / hits[-1])
