"""Calibrators: what turns a class's margin into a probability, fitted on reviewed images.

Platt's line in the logit (Platt 1999). On photographs the offset is wrong by far, the slope
hardly: so the slope is pulled to one, and a class with few labels leans on the line that all
classes share. Isotonic regression needs ten times the labels, temperature alone cannot move an
offset; `benchmarks/calibration.py` has the figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from filter_service.calibration import logistic
from filter_service.calibration.labelled_margins import (
    Floats,
    LabelledMargins,
    require_enough,
)
from filter_service.calibration.logistic import Prior
from filter_service.errors import InvalidRequest
from filter_service.policy import Calibration

CONFIDENCE = 0.9  # of every interval, where nobody says another
LOOSE = Prior(np.array([1.0, -4.0]), np.array([1 / 0.5**2, 1 / 3.0**2]))  # of the common line
OWN = np.array([1 / 0.3**2, 1.0])  # precision of a class's slope and offset around the common one


@dataclass(frozen=True, slots=True)
class Calibrator:
    """P(the class is shown | margin) = sigmoid(a * margin + b), with what it is known by."""

    a: float
    b: float  # logits
    covariance: Floats  # (2, 2), of a and b
    labels: int  # that it was fitted on
    positives: int  # of these

    def probability(self, margins: Floats) -> Floats:
        """(n,) logits -> (n,)"""
        return np.asarray(expit(self.a * margins + self.b))

    def interval(self, margins: Floats, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
        """Between what each probability lies, for the line's own uncertainty: (n,), (n,)."""
        x = np.stack([margins, np.ones_like(margins)], axis=1)  # (n, 2)
        spread = np.sqrt(((x @ self.covariance) * x).sum(axis=1))  # (n,), logits
        half = float(norm.ppf((1 + confidence) / 2)) * spread
        logits = self.a * margins + self.b
        return np.asarray(expit(logits - half)), np.asarray(expit(logits + half))

    def margin_at(self, probability: float) -> float:
        """The margin at which this is the probability, logits."""
        return float((logit(probability) - self.b) / self.a)

    def draws(self, count: int, seed: int = 0) -> Floats:
        """Lines that the labels allow as well: (count, 2), slope above 0."""
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_normal([self.a, self.b], self.covariance, count)
        drawn[:, 0] = np.maximum(drawn[:, 0], 0.05)  # a margin never counts against its class
        return np.asarray(drawn)

    @property
    def for_policy(self) -> Calibration:
        """As a policy keeps it."""
        return Calibration(a=self.a, b=self.b)


def common_line(classes: Mapping[str, LabelledMargins]) -> Floats:
    """Slope and offset of all classes' labels together: (2,); without any, what photos have."""
    drawn = [labels.drawn() for labels in classes.values()]
    margins = np.concatenate([d.margins for d in drawn]) if drawn else np.zeros(0)
    truths = np.concatenate([d.truths for d in drawn]) if drawn else np.zeros(0, np.bool_)
    return logistic.fit(_design(margins), truths, LOOSE).weights


def fit_calibrator(labels: LabelledMargins, common: Floats, class_name: str) -> Calibrator:
    """One class's line, near the common one (2,) until its own labels say otherwise.

    Raises InvalidRequest below 50 labels, or below 5 of either answer. Labels that did not come by
    the margin are left out.
    """
    drawn = labels.drawn()
    require_enough(drawn, class_name)
    fitted = logistic.fit(_design(drawn.margins), drawn.truths, own_prior(common))
    a, b = fitted.weights.tolist()
    if a <= 0:
        raise _backwards(class_name)
    return Calibrator(a, b, fitted.covariance, len(drawn), drawn.positives)


def own_prior(common: Floats) -> Prior:
    """What is known of a class's line before its own labels."""
    return Prior(common, OWN)


def label_influence(
    labels: LabelledMargins, common: Floats, class_name: str, margin: float
) -> Floats:
    """How much each label moves the probability of one margin: (n,), with it less without it."""
    drawn = labels.drawn()
    fitted = fit_calibrator(labels, common, class_name)
    x = _design(drawn.margins)  # (n, 2)
    whole = logistic.LogisticFit(np.array([fitted.a, fitted.b]), fitted.covariance)
    at = np.array([margin, 1.0])
    lines = logistic.without_each(whole, x, drawn.truths, own_prior(common), at)  # (n, 2)
    return np.asarray(expit(whole.weights @ at) - expit(lines @ at))


def _design(margins: Floats) -> Floats:
    return np.stack([margins, np.ones_like(margins)], axis=1)  # (n,) -> (n, 2)


def _backwards(class_name: str) -> InvalidRequest:
    return InvalidRequest(
        f"{class_name} stays uncalibrated: the higher its margin, the more rarely people saw it; "
        "check its prompts, and whether labels stand the wrong way round."
    )
