"""Thresholds by what people want: how much may be missed, how pure a queue is, what it costs.

Every function gives a margin, in logits: a policy's threshold is the probability there.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binom

from filter_service.calibration.calibrators import CONFIDENCE, Calibrator
from filter_service.calibration.labelled_margins import Bools, Floats, LabelledMargins
from filter_service.errors import InvalidRequest

STAKES = np.linspace(0.02, 1.0, 50)  # as shares of the largest stake that cannot ruin
TINY = 1e-12
NOTHING_JUDGED = "no image has been judged for this class yet: judge some first."
POINTS = 5_000  # of a stream, between which a threshold is chosen
DRAWS = 200  # lines that the labels allow as well
PARTS = (1.0, 0.75, 0.5, 0.25)  # of the labels above a line's promise, that are looked at in turn


@dataclass(frozen=True, slots=True)
class MissRateThreshold:
    """A margin below which at most so much of what is forbidden lies, with this confidence."""

    margin: float  # logits
    most_missed: float  # share of the forbidden
    confidence: float
    positives: int  # labels that it rests on
    missed: int  # of these, below the margin


@dataclass(frozen=True, slots=True)
class CertainThreshold:
    """A margin from which on flags act by themselves, and what people saw from there on."""

    margin: float  # logits
    reviewed: int
    right: int  # of these
    low: float  # what share is right at least, with 90 % confidence


def fewest_positives(most_missed: float, confidence: float = CONFIDENCE) -> int:
    """How many uniformly drawn positives a promise needs if none of them is missed."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-most_missed))


def for_miss_rate(
    labels: LabelledMargins,
    most_missed: float,
    *,
    reviewed_from: float,
    confidence: float = CONFIDENCE,
) -> MissRateThreshold:
    """The highest margin that misses at most this share, with this confidence.

    `reviewed_from` is the margin from which on every image is reviewed: labels from there alone
    say nothing of what lies below, and are refused with a sentence (InvalidRequest), as are too
    few positives. Where all were drawn with one chance the bound is the exact one of a binomial
    (Clopper and Pearson): 22 positives are the least for a tenth, 45 for a twentieth. Where an
    audit looked more closely in places, a label counts by the inverse of its chance, and the bound
    is a bet that no true miss rate above `most_missed` can lose on average (Waudby-Smith and Ramdas
    2024). It falls as the margin grows, so that the highest margin may be taken.
    """
    if not 0 < most_missed < 1:
        raise InvalidRequest(f"{most_missed} is no share of misses: give one between 0 and 1.")
    drawn = labels.drawn()
    if not (drawn.margins < reviewed_from).any():
        raise InvalidRequest(
            "Flagged images alone cannot tell what was missed: draw clear images for review at "
            "random, and ask again when those are decided."
        )
    positives = drawn.among(drawn.truths)
    positives = positives.among(np.argsort(positives.margins, kind="stable"))
    rarest = drawn.chances.min()  # of all that were drawn: a positive of that kind may be lacking
    weights = rarest / positives.chances  # (n,), at most 1
    uniform = bool(np.ptp(drawn.chances) == 0)
    keeps = _exact_bound if uniform else _betting_bound
    held = keeps(weights, most_missed, confidence)  # (n,)
    missed = int(np.flatnonzero(held).max(initial=-1))
    if missed < 0:
        raise InvalidRequest(_too_few(len(positives), uniform, most_missed, confidence))
    margin = float(positives.margins[missed])
    return MissRateThreshold(margin, most_missed, confidence, len(positives), missed)


def for_precision(
    calibrator: Calibrator, stream: Floats, precision: float, confidence: float = CONFIDENCE
) -> float:
    """The lowest margin over which at least this share is right, with this confidence.

    `stream` (n,) are margins of images as they come. Lines that the labels allow as well stand for
    what is not known; one in ten of them may promise less.
    """
    if not len(stream):
        raise InvalidRequest(NOTHING_JUDGED)
    ordered, sure = _sure(calibrator, stream, confidence)
    enough = np.flatnonzero(sure >= precision)
    if not len(enough):
        raise InvalidRequest(
            f"No threshold promises a precision of {precision:g} from {calibrator.labels} labels: "
            "ask for less, or review more."
        )
    return float(ordered[enough[-1]])


def for_certain(
    labels: LabelledMargins, calibrator: Calibrator, stream: Floats, precision: float
) -> CertainThreshold:
    """The margin from which on flags may act by themselves, with 90 % confidence.

    The line says where, as for any precision; far above most labels it is no more than a guess, so
    that what people saw from there on has to promise as much by itself, or else of the upper three
    quarters, half or quarter of it. Raises InvalidRequest with a sentence where nothing does.
    """
    lowest = for_precision(calibrator, stream, precision)
    drawn = labels.drawn().margins
    above = drawn[drawn >= lowest]
    looks = [seen_from(labels, float(np.quantile(above, 1 - s))) for s in PARTS if len(above)]
    for look in looks:
        if look.low >= precision:
            return look
    best = max(looks, key=lambda look: look.low, default=seen_from(labels, lowest))
    raise InvalidRequest(
        f"{best.right} of {best.reviewed} reviewed images from {best.margin:.2f} logits on were "
        f"right, which promises {best.low:.3f} and not {precision:g}: ask for less, or review more."
    )


def seen_from(labels: LabelledMargins, margin: float) -> CertainThreshold:
    """What people decided from a margin on; its lower end is sure for as many looks as PARTS."""
    above = labels.drawn()
    above = above.among(above.margins >= margin)
    n, right = len(above), above.positives
    low = float(beta.ppf((1 - CONFIDENCE) / len(PARTS), right, n - right + 1)) if right else 0.0
    return CertainThreshold(margin, n, right, low)


def _sure(calibrator: Calibrator, stream: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Margins downwards, and what share from each on is right at least: (n,), (n,)."""
    ordered = np.sort(stream)[::-1]  # (n,)
    if len(ordered) > POINTS:  # as many that stand for all
        ordered = ordered[np.linspace(0, len(ordered) - 1, POINTS).astype(np.intp)]
    lines = calibrator.draws(DRAWS)  # (draws, 2)
    logits = lines[:, :1] * ordered + lines[:, 1:]  # (draws, n)
    counts = np.arange(1, len(ordered) + 1)
    means = np.cumsum(1 / (1 + np.exp(-logits)), axis=1) / counts  # (draws, n)
    return ordered, np.quantile(means, 1 - confidence, axis=0)


def for_cost(calibrator: Calibrator, miss: float, review: float) -> float:
    """The margin from which on a review costs less than what it prevents; costs in any one unit."""
    if not 0 < review < miss:
        raise InvalidRequest(
            f"A miss costs {miss:g} and a review {review:g}: a miss has to cost more than a "
            "review, and both more than nothing, or no review is worth it."
        )
    return calibrator.margin_at(review / miss)


def for_budget(stream: Floats, images_a_day: float, reviews_a_day: float) -> float:
    """The margin over which so many images a day lie, of a stream (n,) of margins."""
    if not len(stream):
        raise InvalidRequest(NOTHING_JUDGED)
    share = reviews_a_day / images_a_day
    if share >= 1:
        return -math.inf
    ordered = np.sort(stream)[::-1]  # (n,)
    return float(ordered[max(0, math.floor(share * len(ordered)) - 1)])


def _exact_bound(weights: Floats, most_missed: float, confidence: float) -> Bools:
    """Whether the promise holds with the k lowest of n positives missed: (n,), for each k."""
    n = len(weights)
    return np.asarray(binom.cdf(np.arange(n), n, most_missed) <= 1 - confidence)


def _betting_bound(weights: Floats, most_missed: float, confidence: float) -> Bools:
    """The same for positives (n,) in the order of their margins, weighted by at most 1.

    Each bet stakes a share of what is left against the positive being missed: whoever plays many
    stakes at once wins ten times the start with a chance of one in ten at most, unless fewer are
    missed.
    """
    stakes = STAKES / (1 - most_missed)  # (s,): a miss of weight 1 loses all at the largest
    kept = np.log1p(np.outer(stakes, weights * most_missed))  # (s, n)
    lost = np.log1p(np.maximum(-np.outer(stakes, weights * (1 - most_missed)), TINY - 1))  # (s, n)
    below = np.cumsum(lost, axis=1) - lost  # (s, n): of the k lowest
    above = np.cumsum(kept[:, ::-1], axis=1)[:, ::-1]  # (s, n): of the others
    wealth = np.exp(below + above).mean(axis=0)  # (n,)
    return np.asarray(wealth >= 1 / (1 - confidence))


def _too_few(positives: int, uniform: bool, most_missed: float, confidence: float) -> str:
    least = fewest_positives(most_missed, confidence)
    more = "" if uniform else ", drawn by chance alone: images near the threshold count for less"
    return (
        f"{positives} positives are too few to promise that at most {most_missed:.0%} is missed "
        f"with {confidence:.0%} confidence: {least} are the least{more}; review more clear "
        "images, or allow more misses."
    )
