"""Precision, recall and prevalence of a class, estimated from reviews, with intervals.

A review that came about with a chance of 1 in 50 stands for fifty items (Horvitz and Thompson). A
sum of such weights gets Wilson's score interval for rare events, at the scale of the weights; sums
and shares of two get theirs from both (Zou and Donner's recovery of variances). All holds for a
stream like the one that was looked at, not only for the very items in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.verdicts import Z_90

LEAST_POSITIVES = 20  # below that nothing is claimed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its interval, or a sentence that says why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    seen: int = 0  # labels that it rests on
    why_none: str = ""


@dataclass(frozen=True, slots=True)
class ClassEstimates:
    """How right a class's threshold is."""

    precision: Estimate  # of what is flagged, the share that shows the class
    recall: Estimate  # of what shows the class, the share that is flagged
    prevalence: Estimate  # of all, the share that shows the class


@dataclass(frozen=True, slots=True)
class WeightedCount:
    """How many there are, estimated from those that were drawn."""

    value: float
    low: float
    high: float


def class_estimates(
    margins: Floats,  # (n,) logits
    truths: npt.NDArray[np.bool_],  # (n,)
    chances: Floats,  # (n,) with which each label came to be known; NaN: unknown, left out
    threshold: float,  # logits: from there on it is flagged
    z: float = Z_90,
) -> ClassEstimates:
    """All three, from labels whose chance is known."""
    known = np.isfinite(chances)
    flagged, weights = margins[known] >= threshold, 1 / chances[known]  # (k,), (k,)
    truths = truths[known]
    positives = int(truths.sum())
    if positives < LEAST_POSITIVES:
        none = _none(
            f"{positives} drawn or flagged images show it, and {LEAST_POSITIVES} are the least "
            "for an estimate: review more.",
            len(truths),
        )
        return ClassEstimates(none, none, none)
    right = sum_of(weights[flagged], truths[flagged], z)
    wrong = sum_of(weights[flagged], ~truths[flagged], z)
    precision = _share(right, wrong, int(flagged.sum()), "flag")
    if flagged.all():
        none = _none(
            "Only flags were reviewed, which say nothing about what was missed: a rule that draws "
            "clear items for review makes an estimate possible.",
            len(truths),
        )
        return ClassEstimates(precision, none, none)
    missed = sum_of(weights[~flagged], truths[~flagged], z)
    clear = sum_of(weights[~flagged], ~truths[~flagged], z)
    return ClassEstimates(
        precision,
        _share(right, missed, positives, "present image"),
        _share(total(right, missed), total(wrong, clear), len(truths), "item"),
    )


def sum_of(weights: Floats, hits: npt.NDArray[np.bool_], z: float = Z_90) -> WeightedCount:
    """How many hits the weighted reviews (n,) stand for.

    Weights that are alike form a stratum, and one without a hit still says how few there can be.
    """
    found = WeightedCount(0.0, 0.0, 0.0)
    strata = np.floor(np.log2(weights))  # (n,)
    for stratum in np.unique(strata):
        alike = strata == stratum
        heaviest = float(weights[alike].max())
        found = total(found, weighted_count(weights[alike & hits], heaviest, z))
    return found


def weighted_count(weights: Floats, scale: float, z: float = Z_90) -> WeightedCount:
    """The sum of weights (n,) with the score interval of a rare count, such as Wilson's.

    Weights that differ count as fewer of one weight. `scale`: what one stands for if there is none.
    """
    if not len(weights):
        return WeightedCount(0.0, 0.0, scale * z * z)
    value, squares = float(weights.sum()), float((weights**2).sum())
    scale = squares / value
    seen = value / scale
    middle, half = seen + z * z / 2, z * math.sqrt(seen + z * z / 4)
    return WeightedCount(value, scale * (middle - half), scale * (middle + half))


def total(a: WeightedCount, b: WeightedCount) -> WeightedCount:
    """The sum of two counts that were estimated apart."""
    value = a.value + b.value
    below = math.hypot(a.value - a.low, b.value - b.low)
    above = math.hypot(a.high - a.value, b.high - b.value)
    return WeightedCount(value, max(0.0, value - below), value + above)


def share(of: WeightedCount, rest: WeightedCount) -> tuple[float, float, float]:
    """The share of one count in both, which were estimated apart; -> value, low, high."""
    whole = of.value + rest.value
    most, least = _odds(of, rest)
    high = 1.0 if math.isinf(most) else most / (1 + most)
    return of.value / whole, least / (1 + least), high


def stratified_share(
    weights: Sequence[float], rates: Sequence[float], seen: Sequence[int]
) -> tuple[float, float]:
    """The share in all strata together, and its standard error; weights add up to 1.

    Without a correction for finite strata: what was seen stands for a stream.
    """
    w, p, n = (np.asarray(each, np.float64) for each in (weights, rates, seen))  # (strata,)
    return float(w @ p), math.sqrt(float((w**2 * p * (1 - p) / n).sum()))


def _odds(a: WeightedCount, b: WeightedCount) -> tuple[float, float]:
    """The largest and the smallest ratio of two counts that both intervals allow."""
    both = a.value * b.value
    top, bottom = a.high * (2 * a.value - a.high), a.low * (2 * a.value - a.low)
    over, under = b.low * (2 * b.value - b.low), b.high * (2 * b.value - b.high)
    most = math.inf
    if over > 0:
        most = (both + math.sqrt(max(0.0, both**2 - top * over))) / over
    least = 0.0
    if a.low > 0:
        root = math.sqrt(max(0.0, both**2 - bottom * under))
        least = (both - root) / under if under else bottom / (2 * both)
    return most, least


def _share(of: WeightedCount, rest: WeightedCount, seen: int, what: str) -> Estimate:
    if not of.value + rest.value:
        return _none(f"No {what} was reviewed.", 0)
    value, low, high = share(of, rest)
    return Estimate(value, low, high, seen)


def _none(why: str, seen: int) -> Estimate:
    return Estimate(None, seen=seen, why_none=why)
