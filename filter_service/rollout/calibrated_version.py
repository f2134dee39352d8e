"""Builds the version of a policy whose probabilities are calibrated on what people decided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import expit
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.calibrators import Calibrator, common_line, fit_calibrator
from filter_service.calibration.kept_margins import ClassLabels
from filter_service.calibration.labelled_margins import Floats
from filter_service.calibration.threshold_choice import (
    CertainThreshold,
    for_budget,
    for_certain,
    for_cost,
    for_miss_rate,
    for_precision,
    seen_from,
)
from filter_service.calibration.training_labels import TrainingRow, keep_training
from filter_service.errors import InvalidRequest
from filter_service.policy import Calibration, CalibrationOrigin, ForbiddenClass, Policy
from filter_service.verdicts import certain_margin, threshold_margin

LEAST, MOST = 1e-6, 1 - 1e-6  # probabilities between which a threshold lies


@dataclass(frozen=True, slots=True)
class ThresholdAims:
    """What thresholds are chosen for; nothing: what is flagged now stays flagged."""

    most_missed: float | None = None  # share of the forbidden, with 90 % confidence
    precision: float | None = None  # of the flags, with 90 % confidence
    reviews_a_miss: float | None = None  # what a miss costs, in reviews
    share: float | None = None  # of the stream, that is to be flagged
    certain: float | None = None  # share of the flags that act by themselves, with 90 % confidence

    def __post_init__(self) -> None:
        of_threshold = (f.name for f in fields(self) if f.name != "certain")
        if sum(getattr(self, name) is not None for name in of_threshold) > 1:
            raise InvalidRequest(
                "A threshold keeps one promise: ask for few misses, for precision, for the least "
                "cost or for so many a day, for one of them."
            )
        if self.reviews_a_miss is not None and not 1 < self.reviews_a_miss < math.inf:
            raise InvalidRequest(
                f"A miss costs {self.reviews_a_miss:g} reviews: give more than 1, or no review is "
                "worth it."
            )


KEPT = ThresholdAims()


@dataclass(frozen=True, slots=True)
class CalibratedClass:
    """What labels make of one class."""

    before: ForbiddenClass
    after: ForbiddenClass
    calibrator: Calibrator | None  # None: it stays as it is
    refusals: tuple[str, ...] = ()  # sentences: why there is none, or a threshold stays
    certain: CertainThreshold | None = None  # what people saw of flags that would act
    training: tuple[TrainingRow, ...] = ()  # the labels that its line was fitted on


def calibrate(
    session: Session,
    policy: Policy,
    policy_id: int,
    encoder: tuple[int, str],
    aims: ThresholdAims = KEPT,
) -> list[CalibratedClass]:
    """Fit every class's line on its labels, for this encoder: (id, fingerprint).

    Thresholds become the calibrated probability at the margin where they were, so that the same
    images are flagged and the same flags act by themselves, unless an aim says otherwise. After a
    change of the encoder it is the probability that stays.
    Restricted classes stay as they are: nobody's labels may tell of them.
    """
    open_classes = [c for c in policy.classes if c.sealed is None]
    known = {c.name: labels.of_class(session, policy_id, c.name, encoder[0]) for c in open_classes}
    line = common_line({name: found.labelled for name, found in known.items()})
    made = []
    for c in policy.classes:
        if c.sealed is not None:
            refusal = f"{c.name} is restricted: it stays as it is."
            made.append(CalibratedClass(c, c, None, (refusal,)))
            continue
        head = c.head.digest if c.head else None
        origin = _Origin(policy.wording(c), encoder[1], head, (float(line[0]), float(line[1])))
        stream = labels.margins_of(session, policy_id, c.name, encoder[0])
        made.append(_calibrated(c, known[c.name], line, origin, stream, aims))
    return made


def calibrated_policy(policy: Policy, classes: list[CalibratedClass]) -> Policy:
    """The version to be proposed; InvalidRequest where it would be the same."""
    made = policy.model_copy(update={"classes": tuple(c.after for c in classes)})
    if made.digest == policy.digest:
        said = " ".join(sentence for c in classes for sentence in c.refusals)
        raise InvalidRequest(f"Nothing can be calibrated yet. {said}")
    return Policy.model_validate(made.model_dump(mode="json"))


def keep_fits(session: Session, classes: Sequence[CalibratedClass]) -> None:
    """Remember which labels each new calibration was fitted on."""
    for c in classes:
        if c.training and c.after.calibration is not None:
            keep_training(session, c.after.calibration.digest, c.training)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a calibration is bound to."""

    wording: str
    encoder: str
    head: str | None
    common: tuple[float, float]


def _calibrated(
    forbidden: ForbiddenClass,
    found: ClassLabels,
    line: Floats,
    origin: _Origin,
    stream: Floats,
    aims: ThresholdAims,
) -> CalibratedClass:
    try:
        fitted = fit_calibrator(found.labelled, line, forbidden.name)
    except InvalidRequest as refusal:
        return CalibratedClass(forbidden, forbidden, None, (str(refusal),))
    at, certain_at = _margins_now(forbidden, fitted, origin)
    refusals = tuple[str, ...]()
    try:
        at = _chosen(found, fitted, stream, at, aims)
    except InvalidRequest as refusal:
        refusals = (f"{forbidden.name} keeps its threshold: {refusal}",)
    try:
        if aims.certain is not None:
            certain_at = for_certain(found.labelled, fitted, stream, aims.certain).margin
    except InvalidRequest as refusal:
        refusals += (f"{forbidden.name} keeps what acts by itself. {refusal}",)
    certain_at = max(at, certain_at)
    acts = math.isfinite(certain_at)
    update = {
        "calibration": _stored(fitted, found, origin),
        "threshold": _probability(fitted, at),
        "certain": _probability(fitted, certain_at) if acts else None,
    }
    seen = seen_from(found.labelled, certain_at) if acts else None
    after = forbidden.model_copy(update=update)
    return CalibratedClass(forbidden, after, fitted, refusals, seen, _training(found))


def _margins_now(
    forbidden: ForbiddenClass, fitted: Calibrator, origin: _Origin
) -> tuple[float, float]:
    """Where flags begin, and where they act by themselves, in this encoder's logits.

    A margin of another encoder says nothing here, but the probability that it stood for does.
    """
    known = forbidden.calibration.origin if forbidden.calibration else None
    if known is None or known.encoder == origin.encoder:
        return threshold_margin(forbidden), certain_margin(forbidden)
    certain = math.inf if forbidden.certain is None else fitted.margin_at(forbidden.certain)
    return fitted.margin_at(forbidden.threshold), certain


def _probability(fitted: Calibrator, margin: float) -> float:
    return float(np.clip(expit(fitted.a * margin + fitted.b), LEAST, MOST))


def _chosen(
    found: ClassLabels, fitted: Calibrator, stream: Floats, at: float, aims: ThresholdAims
) -> float:
    """The margin that the aim asks for, logits."""
    if aims.most_missed is not None:
        return for_miss_rate(found.labelled, aims.most_missed, reviewed_from=at).margin
    if aims.precision is not None:
        return for_precision(fitted, stream, aims.precision)
    if aims.reviews_a_miss is not None:
        return for_cost(fitted, aims.reviews_a_miss, review=1)
    if aims.share is not None:
        return for_budget(stream, images_a_day=1, reviews_a_day=aims.share)
    return at


def _training(found: ClassLabels) -> tuple[TrainingRow, ...]:
    known = found.labelled
    rows = zip(
        found.images.tolist(),
        found.items,
        known.truths.tolist(),
        known.margins.tolist(),
        np.isfinite(known.chances),
        strict=True,
    )
    return tuple(TrainingRow(i, item, t, m) for i, item, t, m, drawn in rows if drawn)


def _stored(fitted: Calibrator, found: ClassLabels, origin: _Origin) -> Calibration:
    assert found.newest is not None, "it was fitted on labels"
    (aa, ab), (_, bb) = fitted.covariance.tolist()
    return Calibration(
        a=fitted.a,
        b=fitted.b,
        origin=CalibrationOrigin(
            encoder=origin.encoder,
            wording=origin.wording,
            head=origin.head,
            common=origin.common,
            reviews=fitted.labels,
            until=found.newest.date(),
            covariance=(aa, ab, bb),
        ),
    )
