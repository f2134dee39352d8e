"""Evaluates a policy on labelled pictures: how often it is right, each figure with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from filter_service.calibration.calibrators import Calibrator, common_line, fit_calibrator
from filter_service.calibration.intervals import wilson
from filter_service.calibration.labelled_margins import Bools, Floats, LabelledMargins
from filter_service.calibration.reliability import (
    MeasuredValue,
    ProbabilityAgreement,
    average_precision_interval,
    paired_gain,
    probability_agreement,
)
from filter_service.calibration.threshold_choice import for_miss_rate, for_precision
from filter_service.errors import InvalidRequest
from filter_service.policy import Policy
from filter_service.verdicts import Z_90, calibration_line, threshold_margin

CONFIDENCE = 0.9  # of every interval here
MISSES = 0.1  # share of misses, and
PRECISION = 0.9  # precision for which a threshold is suggested


@dataclass(frozen=True, slots=True)
class CountedShare:
    """A share as two counts, with Wilson's interval."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Between what it lies; all there is where nothing was counted."""
        found = wilson(self.hits, self.of, Z_90)
        return (0.0, 1.0) if found is None else (found.low, found.high)


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a threshold makes of the pictures."""

    flagged_rightly: int
    flagged_wrongly: int
    missed: int
    cleared_rightly: int

    @property
    def precision(self) -> CountedShare:
        return CountedShare(self.flagged_rightly, self.flagged_rightly + self.flagged_wrongly)

    @property
    def recall(self) -> CountedShare:
        return CountedShare(self.flagged_rightly, self.flagged_rightly + self.missed)

    @property
    def false_flags(self) -> CountedShare:
        return CountedShare(self.flagged_wrongly, self.flagged_wrongly + self.cleared_rightly)

    def precision_at(self, present: float) -> float:
        """Of a stream of which this share shows the class; NaN where nothing is flagged."""
        right = self.recall.value * present
        flagged = right + self.false_flags.value * (1 - present)
        return right / flagged if flagged else math.nan


@dataclass(frozen=True, slots=True)
class SuggestedThreshold:
    """A threshold for an aim, or the sentence that says why there is none."""

    aim: str
    threshold: float | None  # probability, as a policy states it
    confusion: Confusion | None  # what it makes of these pictures
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class ClassEvaluation:
    """One class of a policy on labelled pictures."""

    name: str
    threshold: float  # probability
    threshold_margin: float  # the same, logits
    margins: Floats  # (n,), logits
    truths: Bools  # (n,)
    average_precision: MeasuredValue | None  # None: no picture shows the class, or all do
    confusion: Confusion
    agreement: ProbabilityAgreement  # of the probabilities that the policy states now
    calibrator: Calibrator | None
    uncalibrated: str | None  # why there is no calibrator, a sentence
    suggestions: tuple[SuggestedThreshold, ...]

    def curve(self) -> tuple[Floats, Floats]:
        """Recall and precision at every threshold, the highest first: (m,), (m,)."""
        order = np.argsort(-self.margins, kind="stable")
        hits = np.cumsum(self.truths[order])
        return hits / max(1, hits[-1]), hits / np.arange(1, len(order) + 1)

    def nearest(self, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Pictures nearest to the boundary over and under it, the nearest first."""
        over = np.flatnonzero(self.margins >= self.threshold_margin)
        under = np.flatnonzero(self.margins < self.threshold_margin)
        return (
            over[np.argsort(self.margins[over], kind="stable")][:count],
            under[np.argsort(-self.margins[under], kind="stable")][:count],
        )


@dataclass(frozen=True, slots=True)
class ClassComparison:
    """One class under two policies, or two encoders, on the same pictures."""

    name: str
    gain: MeasuredValue | None  # of average precision, paired; None: nothing to rank
    before: Confusion
    after: Confusion
    newly_flagged: int
    no_longer_flagged: int

    @property
    def proven(self) -> bool:
        return self.gain is not None and not self.gain.low <= 0 <= self.gain.high


def evaluate(policy: Policy, margins: Floats, truths: Bools) -> list[ClassEvaluation]:
    """Every class of a policy: margins (n, classes) in logits, truths (n, classes)."""
    known = {
        c.name: LabelledMargins.of(margins[:, i], truths[:, i])
        for i, c in enumerate(policy.classes)
    }
    line = common_line(known)
    return [_evaluated(policy, name, labels, line) for name, labels in known.items()]


def compare(
    first: Sequence[ClassEvaluation], second: Sequence[ClassEvaluation]
) -> list[ClassComparison]:
    """The classes that both have, paired picture by picture."""
    others = {e.name: e for e in second}
    return [_compared(e, others[e.name]) for e in first if e.name in others]


def confusion(margins: Floats, truths: Bools, threshold_margin: float) -> Confusion:
    flagged = margins >= threshold_margin
    return Confusion(
        int((flagged & truths).sum()),
        int((flagged & ~truths).sum()),
        int((~flagged & truths).sum()),
        int((~flagged & ~truths).sum()),
    )


def _evaluated(policy: Policy, name: str, labels: LabelledMargins, line: Floats) -> ClassEvaluation:
    forbidden = policy.forbidden(name)
    a, b = calibration_line(forbidden)
    at = threshold_margin(forbidden)
    m, truths = labels.margins, labels.truths
    ranked = truths.any() and not truths.all()
    calibrator, why = _calibrator(labels, line, name)
    return ClassEvaluation(
        name=name,
        threshold=forbidden.threshold,
        threshold_margin=at,
        margins=m,
        truths=truths,
        average_precision=average_precision_interval(m, truths) if ranked else None,
        confusion=confusion(m, truths, at),
        agreement=probability_agreement(expit(a * m + b), truths, m >= at),
        calibrator=calibrator,
        uncalibrated=why,
        suggestions=(
            _for_misses(labels, a, b),
            _for_precision(labels, calibrator, why, a, b),
        ),
    )


def _calibrator(
    labels: LabelledMargins, line: Floats, name: str
) -> tuple[Calibrator | None, str | None]:
    try:
        return fit_calibrator(labels, line, name), None
    except InvalidRequest as refusal:
        return None, str(refusal)


def _for_misses(labels: LabelledMargins, a: float, b: float) -> SuggestedThreshold:
    aim = f"at most {MISSES:.0%} missed, with {CONFIDENCE:.0%} confidence"
    try:
        margin = for_miss_rate(labels, MISSES, reviewed_from=math.inf).margin
    except InvalidRequest as refusal:
        return SuggestedThreshold(aim, None, None, str(refusal))
    return _suggested(aim, labels, margin, a, b)


def _for_precision(
    labels: LabelledMargins, calibrator: Calibrator | None, why: str | None, a: float, b: float
) -> SuggestedThreshold:
    aim = f"{PRECISION:.0%} of the flags right, with {CONFIDENCE:.0%} confidence"
    if calibrator is None:
        return SuggestedThreshold(aim, None, None, why)
    try:
        margin = for_precision(calibrator, labels.margins, PRECISION, CONFIDENCE)
    except InvalidRequest as refusal:
        return SuggestedThreshold(aim, None, None, str(refusal))
    return _suggested(aim, labels, margin, a, b)


def _suggested(
    aim: str, labels: LabelledMargins, margin: float, a: float, b: float
) -> SuggestedThreshold:
    found = confusion(labels.margins, labels.truths, margin)
    return SuggestedThreshold(aim, float(expit(a * margin + b)), found)


def _compared(first: ClassEvaluation, second: ClassEvaluation) -> ClassComparison:
    before = first.margins >= first.threshold_margin
    after = second.margins >= second.threshold_margin
    ranked = first.average_precision is not None
    return ClassComparison(
        first.name,
        paired_gain(first.margins, second.margins, first.truths) if ranked else None,
        first.confusion,
        second.confusion,
        int((after & ~before).sum()),
        int((before & ~after).sum()),
    )
