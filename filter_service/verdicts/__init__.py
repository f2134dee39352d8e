"""Turns margins into a verdict, and defines verdicts, scores and outcomes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from filter_service.images.views import Extent, ShareSeen, View
from filter_service.policy import ForbiddenClass, Policy

if TYPE_CHECKING:
    from filter_service.verdicts.explanation import Explanation

FloatArray = npt.NDArray[np.float32]

Z_90 = 1.6448536269514722  # of the normal distribution: 90 % lie between -Z and Z


class Verdict(StrEnum):
    """The answer for one item; there is no silent clear."""

    CLEAR = "clear"
    FLAGGED = "flagged"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class Score:
    """The evidence for one class in one image, of the view that shows it most strongly."""

    class_name: str
    margin: float  # logits
    probability: float
    threshold: float  # probability
    view: View
    exact: bool  # computed in float32; False only far from every threshold
    certain: float | None = None  # probability; None: a flag never acts by itself

    @property
    def flagged(self) -> bool:
        return self.probability >= self.threshold

    @property
    def acts(self) -> bool:
        """The flag acts by itself, before any person has looked at it."""
        return self.certain is not None and self.probability >= self.certain

    @property
    def urgency(self) -> tuple[bool, float]:
        """By what scores are ordered: one that acts by itself, then what is furthest over."""
        return self.acts, self.probability - self.threshold

    @property
    def frame(self) -> int:
        """Number of the frame in the file, 0 for a still image."""
        return self.view.frame


@dataclass(frozen=True, slots=True)
class KnownVectors:
    """What an encoder has computed of one image before: it need not do so again."""

    vectors: FloatArray  # (views, d) unit
    views: tuple[View, ...]
    exact: tuple[bool, ...]  # whether each vector is float32
    extent: Extent | None = None  # None: not known, or frames of several sizes

    def of(self, views: Sequence[View]) -> "KnownVectors | None":
        """The vectors of exactly these views; None where one is not known."""
        places = {view: i for i, view in enumerate(self.views)}
        if not all(view in places for view in views):
            return None
        rows = [places[view] for view in views]
        exact = tuple(self.exact[i] for i in rows)
        return KnownVectors(self.vectors[rows], tuple(views), exact, self.extent)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `moderate` answers for one image: a verdict with all that was measured for it."""

    digest: str
    verdict: Verdict
    scores: tuple[Score, ...] = ()
    reason: str | None = None  # why undetermined, a sentence
    vectors: FloatArray | None = None  # (views, d) unit embeddings, None when known already
    views: tuple[View, ...] = ()  # of each vector
    exact: tuple[bool, ...] = ()  # whether each vector is float32
    explanations: tuple["Explanation", ...] = field(default=())
    pdq: str | None = None  # perceptual hash of the first frame; None: too plain, or known already
    notes: tuple[str, ...] = ()  # sentences: what of the file could not be obeyed
    seen: ShareSeen | None = None  # how much of it the views show; None: nothing was looked at
    extent: Extent | None = None  # None: not known, or frames of several sizes

    @property
    def worst(self) -> Score | None:
        """The score that acts by itself, or else is nearest to, or furthest over, its threshold."""
        return max(self.scores, key=lambda s: s.urgency, default=None)


def probability(margin: float, forbidden: ForbiddenClass) -> float:
    """Calibrated probability of a margin: sigmoid(a * margin + b), a = 1 and b = 0 until fitted."""
    a, b = calibration_line(forbidden)
    return _sigmoid(a * margin + b)


def probability_interval(margin: float, forbidden: ForbiddenClass) -> tuple[float, float] | None:
    """Between what a probability lies with 90 % confidence, by what it was calibrated on alone.

    None: nothing is known of where the calibration came from.
    """
    calibration = forbidden.calibration
    if calibration is None or calibration.origin is None:
        return None
    aa, ab, bb = calibration.origin.covariance
    half = Z_90 * math.sqrt(max(0.0, aa * margin**2 + 2 * ab * margin + bb))  # logits
    middle = calibration.a * margin + calibration.b
    return _sigmoid(middle - half), _sigmoid(middle + half)


def threshold_margin(forbidden: ForbiddenClass) -> float:
    """The margin, in logits, at which the class's probability equals its threshold."""
    return _margin_at(forbidden.threshold, forbidden)


def certain_margin(forbidden: ForbiddenClass) -> float:
    """The margin, in logits, from which on a flag acts by itself; infinite where none does."""
    return math.inf if forbidden.certain is None else _margin_at(forbidden.certain, forbidden)


def score(
    margins: npt.NDArray[np.floating],  # (views, classes), logits
    views: Sequence[View],
    exact: Sequence[bool],
    policy: Policy,
) -> tuple[Score, ...]:
    """One score per class: the worst view counts and is named."""
    worst = margins.argmax(axis=0)  # (classes,)
    return tuple(
        Score(
            class_name=forbidden.name,
            margin=float(margins[v, c]),
            probability=probability(float(margins[v, c]), forbidden),
            threshold=forbidden.threshold,
            view=views[v],
            exact=exact[v],
            certain=forbidden.certain,
        )
        for c, (forbidden, v) in enumerate(zip(policy.classes, worst, strict=True))
    )


def judge(scores: Sequence[Score]) -> Verdict:
    """Flagged when any class reaches its threshold, else clear."""
    return Verdict.FLAGGED if any(s.flagged for s in scores) else Verdict.CLEAR


def judge_seen(
    scores: Sequence[Score], seen: ShareSeen | None, takes_partial: bool
) -> tuple[Verdict, str | None]:
    """`judge`, and what a clear verdict is worth of an image that was not seen whole; why."""
    verdict = judge(scores)
    partial = verdict is Verdict.CLEAR and seen is not None and seen.partial
    if not partial or takes_partial:
        return verdict, None
    reason = (
        f"only {seen} was looked at, and nothing forbidden was seen there; submit it in smaller "
        "parts, look at it, or set the policy's partial to clear"
    )
    return Verdict.UNDETERMINED, reason


def is_sealed(scores: Sequence[Score], policy: Policy) -> bool:
    """Flagged for a class whose images nobody may see."""
    sealed = {c.name for c in policy.classes if c.sealed is not None}
    return any(s.flagged and s.class_name in sealed for s in scores)


def calibration_line(forbidden: ForbiddenClass) -> tuple[float, float]:
    """Slope and offset from margin to logit; 1 and 0 until somebody calibrated it."""
    c = forbidden.calibration
    return (c.a, c.b) if c else (1.0, 0.0)


def _margin_at(probability: float, forbidden: ForbiddenClass) -> float:
    a, b = calibration_line(forbidden)
    return (math.log(probability / (1 - probability)) - b) / a


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
