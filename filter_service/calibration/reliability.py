"""How well probabilities agree with what people found: each figure with its interval."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from filter_service.calibration.labelled_margins import Bools, Floats

BINS = 10  # of equal counts
DRAWS = 500  # of the bootstrap
TOGETHER = 2_000_000  # weights of the bootstrap in memory at once
PAIRED_DRAWS = 1_000  # of two models on the same images
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class MeasuredValue:
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


@dataclass(frozen=True, slots=True)
class ProbabilityAgreement:
    """How well probabilities agree with the truth."""

    flagged_error: MeasuredValue | None  # expected calibration error among flags
    brier: MeasuredValue
    log_loss: MeasuredValue  # nats
    bins: tuple[ReliabilityBin, ...]


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


def brier(probabilities: Floats, truths: Bools, confidence: float = 0.9) -> MeasuredValue:
    """Mean squared distance of probability and truth (Brier 1950)."""
    return _mean((probabilities - truths) ** 2, confidence)


def log_loss(probabilities: Floats, truths: Bools, confidence: float = 0.9) -> MeasuredValue:
    """Mean surprise, in nats."""
    p = np.clip(probabilities, TINY, 1 - TINY)
    return _mean(-np.where(truths, np.log(p), np.log1p(-p)), confidence)


def calibration_error_interval(
    probabilities: Floats, truths: Bools, confidence: float = 0.9, seed: int = 0
) -> MeasuredValue:
    """`calibration_error` of (n,) with its percentile bootstrap interval."""
    order = np.argsort(probabilities, kind="stable")
    p, t = probabilities[order], truths[order].astype(np.float64)
    n = len(p)
    starts = np.unique(np.linspace(0, n, min(BINS, n), endpoint=False).astype(np.intp))
    rng, found = np.random.default_rng(seed), []
    for count in _chunks(DRAWS, n):
        rows = np.sort(rng.integers(0, n, (count, n)), axis=1)  # (k, n): each draw in order
        gaps = np.add.reduceat(p[rows] - t[rows], starts, axis=1)  # (k, bins)
        found.append(np.abs(gaps).sum(axis=1) / n)
    return _percentiles(calibration_error(probabilities, truths), found, confidence)


def probability_agreement(
    probabilities: Floats, truths: Bools, flagged: Bools
) -> ProbabilityAgreement:
    """All figures of (n,) images at once; the calibration error is that of the flagged ones."""
    return ProbabilityAgreement(
        calibration_error_interval(probabilities[flagged], truths[flagged])
        if flagged.any()
        else None,
        brier(probabilities, truths),
        log_loss(probabilities, truths),
        tuple(reliability(probabilities, truths)),
    )


def average_precision(margins: Floats, truths: Bools) -> float:
    """Mean precision over all positives, from the highest margin down; NaN without a positive.

    Equal margins stand together, as a threshold cannot part them.
    """
    present, absent = _steps(margins, truths)  # (steps,)
    return float(_precisions(present[None], absent[None])[0])


def average_precision_interval(
    margins: Floats, truths: Bools, confidence: float = 0.9, seed: int = 0
) -> MeasuredValue:
    """`average_precision` of (n,) with its percentile bootstrap interval.

    Each image counts a Poisson number of times; so do all of a step together, with their number
    for its mean, which saves drawing them one by one.
    """
    present, absent = _steps(margins, truths)
    rng, size = np.random.default_rng(seed), (DRAWS, len(present))
    found = _precisions(rng.poisson(present, size), rng.poisson(absent, size))
    return _percentiles(average_precision(margins, truths), [found], confidence)


def _steps(margins: Floats, truths: Bools) -> tuple[Floats, Floats]:
    """Down the ranking: positives of one margin, and negatives since the ones before: (steps,)."""
    ranking = _Ranking(margins, truths)
    hits = np.cumsum(ranking.truths)[ranking.last]
    count = ranking.last + 1
    steps = np.flatnonzero(np.diff(hits, prepend=0))
    present = np.diff(hits[steps], prepend=0).astype(np.float64)
    return present, np.diff(count[steps], prepend=0) - present


def _precisions(present: npt.NDArray[np.number], absent: npt.NDArray[np.number]) -> Floats:
    """Average precision of some draws: (k, steps) each -> (k,)."""
    hits = np.cumsum(present, axis=1).astype(np.float64)
    count = np.maximum(np.cumsum(present + absent, axis=1), 1)
    with np.errstate(invalid="ignore"):  # no positive was drawn
        total = hits[:, -1] if hits.shape[1] else np.zeros(len(hits))
        return np.asarray((present * hits / count).sum(axis=1) / total)


def paired_gain(
    before: Floats, after: Floats, truths: Bools, confidence: float = 0.95, seed: int = 0
) -> MeasuredValue:
    """What average precision gains on the same images, (n,) margins each; bootstrap interval."""
    first, second = _Ranking(before, truths), _Ranking(after, truths)
    rng, found = np.random.default_rng(seed), []
    for count in _chunks(PAIRED_DRAWS, len(truths)):
        weights = rng.poisson(1, (count, len(truths)))  # (k, n), the same for both
        found.append(second.precisions(weights) - first.precisions(weights))
    value = average_precision(after, truths) - average_precision(before, truths)
    return _percentiles(value, found, confidence)


class _Ranking:
    """Images in the order of their margins, the highest first, sorted once for many draws."""

    def __init__(self, margins: Floats, truths: Bools) -> None:
        self.order = np.argsort(-margins, kind="stable")
        ranked = margins[self.order]
        self.truths = truths[self.order]
        self.last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run

    def precisions(self, weights: npt.NDArray[np.number]) -> Floats:
        """Average precision, each image counting so often: (k, n) -> (k,)."""
        ordered = weights[:, self.order].astype(np.float64)  # (k, n)
        hits = np.cumsum(ordered * self.truths, axis=1)[:, self.last]  # (k, runs)
        count = np.cumsum(ordered, axis=1)[:, self.last]
        gained = np.diff(hits, axis=1, prepend=0)
        with np.errstate(invalid="ignore"):  # no positive was drawn
            found = (gained * hits / np.maximum(count, 1)).sum(axis=1) / hits[:, -1]
        return np.asarray(found)


def _mean(values: Floats, confidence: float) -> MeasuredValue:
    """A mean with the interval of its standard error."""
    value = float(values.mean())
    half = float(norm.ppf((1 + confidence) / 2) * values.std() / np.sqrt(len(values)))
    return MeasuredValue(value, max(0.0, value - half), value + half)


def _percentiles(value: float, found: list[Floats], confidence: float) -> MeasuredValue:
    known = np.concatenate(found)
    low, high = np.nanquantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return MeasuredValue(value, float(low), float(high))


def _chunks(draws: int, images: int) -> list[int]:
    """Draws in parts that fit into memory."""
    most = max(1, TOGETHER // max(1, images))
    return [min(most, draws - start) for start in range(0, draws, most)]
