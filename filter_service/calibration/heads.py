"""Heads: class directions that learn from reviewed images, starting from the prompts.

A head adds a linear part to the prompts' margin, m(z) + w . (z - centre). Without labels w is
zero, so that the head is the prompts. The gradient of its margin is the prompts' plus w, so that
relevance maps, counterfactuals and the faithfulness test hold for it as they are.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from filter_service.calibration import logistic
from filter_service.calibration.labelled_margins import Bools, Floats
from filter_service.calibration.logistic import LogisticFit, Prior
from filter_service.calibration.reliability import (
    MeasuredValue,
    average_precision,
    paired_gain,
)
from filter_service.errors import InvalidRequest
from filter_service.scoring import LearntDirection

# Standard deviations of the learnt part's weights, logits; the field's scale of 100 times a unit
# vector is the upper end, the lowest one leaves the prompts as they are.
STRENGTHS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 5
MINIMUM_LABELS, MINIMUM_EACH = 50, 10


@dataclass(frozen=True)
class LabelledVectors:
    """Reviewed images of one class: vectors, the prompts' margins, and what people found."""

    vectors: Floats  # (n, d) unit
    margins: Floats  # (n,), logits, of the prompts alone
    truths: Bools  # (n,)

    @cached_property
    def centre(self) -> Floats:
        return np.asarray(self.vectors.mean(axis=0))  # (d,)

    @cached_property
    def basis(self) -> Floats:
        """Directions that hold the vectors about their centre: (r, d) orthonormal, r <= n, d."""
        n, d = self.vectors.shape
        if n > d:
            return np.eye(d)
        return np.asarray(np.linalg.qr((self.vectors - self.centre).T)[0].T)

    @property
    def differ(self) -> bool:
        """Something tells the images apart."""
        return len(self.vectors) > 0 and float(np.ptp(self.vectors, axis=0).max()) > 1e-9

    @cached_property
    def design(self) -> Floats:
        """Coordinates in the basis, with a one for the offset: (n, r + 1)."""
        at = (self.vectors - self.centre) @ self.basis.T  # (n, r)
        return np.concatenate([at, np.ones((len(at), 1))], axis=1)

    def among(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "LabelledVectors":
        return LabelledVectors(self.vectors[rows], self.margins[rows], self.truths[rows])


@dataclass(frozen=True, slots=True)
class HeadProposal:
    """A head, and what it gains over what stands on images that it was not fitted on."""

    direction: LearntDirection
    strength: float
    before: float  # average precision of what stands
    gain: MeasuredValue  # of the average precision, paired
    labels: int
    positives: int  # of these

    @property
    def proven(self) -> bool:
        """The gain is above zero with the stated confidence: worth a person's decision."""
        return self.gain.low > 0


def fit_head(labels: LabelledVectors, strength: float) -> LearntDirection:
    """The learnt part for one strength of the pull to the prompts; 0: the prompts alone.

    Its offset is such that it adds nothing to the labelled images' mean.
    """
    weights = np.zeros(labels.vectors.shape[1])  # (d,)
    if strength and labels.differ:
        weights = labels.basis.T @ _fitted(labels, strength).weights[:-1]
    return LearntDirection(weights.astype(np.float32), -float(weights @ labels.centre))


def propose_head(
    labels: LabelledVectors, class_name: str, seed: int = 0, standing: Floats | None = None
) -> HeadProposal:
    """Fit a head and measure its gain out of fold; the strength is chosen inside each fold.

    The gain is over `standing`, margins (n,) of what is served now; None: of the prompts alone.
    Raises InvalidRequest below 50 labels or 10 of either answer, and for images that are all alike.
    """
    require_enough(labels.truths, class_name)
    _require_differences(labels, class_name)
    held_out = np.empty(len(labels.truths))  # (n,): margins by heads that did not see the image
    for train, test in _folds(labels.truths, seed):
        part = labels.among(train)
        head = fit_head(part, choose_strength(part, seed))
        held_out[test] = labels.margins[test] + head.added(labels.vectors[test])
    strength = choose_strength(labels, seed)
    before = labels.margins if standing is None else standing
    return HeadProposal(
        fit_head(labels, strength),
        strength,
        average_precision(before, labels.truths),
        paired_gain(before, held_out, labels.truths, seed=seed),
        len(labels.truths),
        int(labels.truths.sum()),
    )


def choose_strength(labels: LabelledVectors, seed: int = 0) -> float:
    """The strength whose heads surprise least on folds that they did not see."""
    losses = np.zeros(len(STRENGTHS))
    for train, test in _folds(labels.truths, seed):
        part = labels.among(train)
        design = _design_of(part, labels.vectors[test])  # (m, r + 1)
        for i, strength in enumerate(STRENGTHS):
            fitted = _fitted(part, strength)
            logits = labels.margins[test] + design @ fitted.weights  # (m,)
            losses[i] += np.logaddexp(0, np.where(labels.truths[test], -logits, logits)).sum()
    return STRENGTHS[int(losses.argmin())]


def label_influence(
    labels: LabelledVectors, strength: float, z: Floats, known: Floats | None = None
) -> Floats:
    """How much each label moves what the head adds to one image vector (d,): (n,) logits.

    With it, less without it; the strength stays as it was chosen. A label moves the centre, too.
    `known` (d,): the head's direction, as it was fitted, which saves most of fitting it again.
    """
    if not strength or not labels.differ:
        return np.zeros(len(labels.truths))
    start = None if known is None else _nearly(labels, known)
    fitted, prior = _fitted(labels, strength, start), _prior(labels, strength)
    at = np.append((z - labels.centre) @ labels.basis.T, 0.0)  # (r + 1,)
    without = logistic.without_each(
        fitted, labels.design, labels.truths, prior, at, labels.margins
    )[:, :-1]  # (n, r)
    moved = (without * labels.design[:, :-1]).sum(axis=1) / (len(labels.truths) - 1)  # (n,)
    return np.asarray((fitted.weights[:-1] - without) @ at[:-1] - moved)


def _fitted(labels: LabelledVectors, strength: float, start: Floats | None = None) -> LogisticFit:
    """Weights in the basis of the labelled vectors, and the offset: (r + 1,)."""
    prior = _prior(labels, strength)
    return logistic.fit(labels.design, labels.truths, prior, labels.margins, start)


def _nearly(labels: LabelledVectors, known: Floats) -> Floats:
    """Weights of a direction (d,), and the offset that goes with it: (r + 1,)."""
    at = labels.basis @ known  # (r,)
    ones, nothing = labels.design[:, -1:], Prior(np.zeros(1), np.zeros(1))
    fixed = labels.margins + labels.design[:, :-1] @ at  # (n,)
    return np.append(at, logistic.fit(ones, labels.truths, nothing, fixed).weights)


def _prior(labels: LabelledVectors, strength: float) -> Prior:
    width = labels.design.shape[1]
    precision = np.full(width, 1 / max(strength, 1e-6) ** 2)
    precision[-1] = 0.0  # the offset is free, so that weights do not depend on the centre
    return Prior(np.zeros(width), precision)


def _design_of(labels: LabelledVectors, z: Floats) -> Floats:
    at = (z - labels.centre) @ labels.basis.T  # (m, r)
    return np.concatenate([at, np.ones((len(at), 1))], axis=1)  # (m, r + 1)


def _folds(truths: Bools, seed: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    from sklearn.model_selection import StratifiedKFold  # pages tell influences without it

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return list(folds.split(np.zeros(len(truths)), truths))


def require_enough(truths: Bools, class_name: str) -> None:
    """InvalidRequest with a sentence where the labels of a class say too little to learn from."""
    n, shown = len(truths), int(truths.sum())
    if n < MINIMUM_LABELS or min(shown, n - shown) < MINIMUM_EACH:
        raise InvalidRequest(
            f"{class_name} learns nothing from {n} labels, of which {shown} show it: review until "
            f"there are {MINIMUM_LABELS}, with {MINIMUM_EACH} or more of each answer."
        )


def _require_differences(labels: LabelledVectors, class_name: str) -> None:
    if not labels.differ:
        raise InvalidRequest(
            f"{class_name} learns nothing from {len(labels.truths)} labels: the images are all the "
            "same to the model, so that nothing tells them apart."
        )
