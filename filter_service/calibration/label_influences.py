"""How much each label moved one image's probability, through its class's calibration and head.

Closed form, equal to fitting again without the label (`calibrators.label_influence`,
`heads.label_influence`). Labels that were erased since are gone from the fit that is asked.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from filter_service.calibration import calibrators, heads
from filter_service.calibration.heads import LabelledVectors
from filter_service.calibration.labelled_margins import LabelledMargins
from filter_service.calibration.training_labels import TrainingRow
from filter_service.errors import InvalidRequest
from filter_service.policy import ForbiddenClass
from filter_service.scoring import FloatArray
from filter_service.verdicts import probability


@dataclass(frozen=True, slots=True)
class LabelInfluence:
    """One label, and by how much the probability is higher than it would be without it."""

    row: TrainingRow
    change: float  # of the probability


def label_influences(
    forbidden: ForbiddenClass,
    margin: float,  # logits, as it was judged
    z: FloatArray,  # (d,): the vector that was judged
    calibration: Sequence[TrainingRow],  # what the class's calibration was fitted on
    head: Mapping[TrainingRow, FloatArray],  # what its head learnt from, (d,) each
) -> list[LabelInfluence]:
    """Every label of both, the one that raises the probability most first."""
    changes: dict[int, float] = defaultdict(float)
    rows = {row.image_id: row for row in (*calibration, *head)}
    for row, change in zip(calibration, _calibrated(forbidden, margin, calibration), strict=True):
        changes[row.image_id] += change
    for row, change in zip(head, _taught(forbidden, margin, z, head), strict=True):
        changes[row.image_id] += change
    found = [LabelInfluence(rows[image], change) for image, change in changes.items()]
    return sorted(found, key=lambda label: (-label.change, label.row.image_id))


def _calibrated(
    forbidden: ForbiddenClass, margin: float, rows: Sequence[TrainingRow]
) -> list[float]:
    origin = forbidden.calibration.origin if forbidden.calibration else None
    if origin is None or origin.common is None or not rows:
        return [0.0] * len(rows)
    known = LabelledMargins.of([row.margin for row in rows], [row.truth for row in rows])
    try:
        told = calibrators.label_influence(known, np.array(origin.common), forbidden.name, margin)
    except InvalidRequest:  # so many were erased that nothing can be fitted any more
        return [0.0] * len(rows)
    return list(told.tolist())


def _taught(
    forbidden: ForbiddenClass, margin: float, z: FloatArray, rows: Mapping[TrainingRow, FloatArray]
) -> list[float]:
    if forbidden.head is None or not rows:
        return [0.0] * len(rows)
    known = LabelledVectors(
        np.stack(list(rows.values())).astype(np.float64),
        np.array([row.margin for row in rows]),
        np.array([row.truth for row in rows]),
    )
    head = forbidden.head
    direction = head.weights.astype(np.float64)
    logits = heads.label_influence(known, head.strength, z.astype(np.float64), direction)  # (n,)
    served = probability(margin, forbidden)
    return [served - probability(margin - float(moved), forbidden) for moved in logits]
