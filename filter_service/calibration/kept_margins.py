"""Reads what is kept of one class: margins of the newest images, and images that are labelled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from sqlalchemy import text
from sqlalchemy.orm import Session

from filter_service.calibration.labelled_margins import LabelledMargins
from filter_service.policy.learnt_head import LearntHead


@dataclass(frozen=True, slots=True)
class ClassLabels:
    """Labels of one class with the margins of one encoder, newest first."""

    images: npt.NDArray[np.int64]  # (n,)
    items: tuple[int | None, ...]  # that were decided; None: uploaded
    labelled: LabelledMargins
    newest: datetime | None  # None: there is no label

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """The truth about one image, without any margin."""

    image_id: int
    truth: bool
    chance: float | None


def of_scores(
    session: Session,
    class_name: str,
    classes: Sequence[int],
    encoder_id: int,
    head: LearntHead | None,
    limit: int,
) -> ClassLabels:
    """The newest labels of a class, with the margins that are kept for any of these class ids."""
    rows = session.execute(
        _LABELLED,
        {
            "name": class_name,
            "encoder": encoder_id,
            "classes": list(classes),
            "limit": limit,
            "fit": bytes.fromhex(head.digest) if head else None,
        },
    ).all()
    images, items, margins, truths, chances, times = zip(*rows, strict=True) if rows else ((),) * 6
    labelled = LabelledMargins.of(margins, truths, [math.nan if c is None else c for c in chances])
    return ClassLabels(np.array(images, np.int64), items, labelled, max(times, default=None))


def truths_of(
    session: Session, class_name: str, head: LearntHead | None, limit: int
) -> list[LabelledImage]:
    """The newest labels of a class, whatever its words, but for those that its head learnt from.

    Nothing of what is locked away.
    """
    fit = None if head is None else bytes.fromhex(head.digest)
    rows = session.execute(_TRUTHS, {"name": class_name, "fit": fit, "limit": limit})
    return [LabelledImage(*row) for row in rows]


def stream_of(
    session: Session, classes: Sequence[int], encoder_id: int, limit: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The newest images with a margin for any of these class ids, and it: (n,), (n,) logits."""
    asked = {"classes": list(classes), "encoder": encoder_id, "limit": limit}
    rows = session.execute(_IMAGES, asked).all()
    images, margins = zip(*rows, strict=True) if rows else ((), ())
    return np.array(images, np.int64), np.array(margins, np.float64)


def locked_among(session: Session, images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of these images that are locked away, of which nothing is to be told: (k,)."""
    return np.array(session.scalars(_LOCKED, {"images": images.tolist()}).all(), np.int64)


def encoder_that_judged_last(session: Session) -> int | None:
    """The encoder of the newest item that has one."""
    found: int | None = session.scalar(_JUDGED_LAST)
    return found


# The newest labels first, and then their margins by the key: Postgres would else rather join a
# million scores, or look through all of a class's once for each label while it knows nothing of a
# new table. The same words give the same margin in every version.
_LABELLED = text("""
    WITH newest AS MATERIALIZED (
        SELECT image_id FROM labels l WHERE class_name = :name
          AND NOT EXISTS (
            SELECT FROM training_labels t WHERE t.fit = :fit AND t.image_id = l.image_id
          )
        ORDER BY at DESC, image_id DESC LIMIT :limit
    ), scored AS MATERIALIZED (
        SELECT DISTINCT ON (image_id) image_id, margin FROM scores
        WHERE encoder_id = :encoder AND class_id = ANY(:classes)
          AND image_id = ANY(ARRAY(SELECT image_id FROM newest))
        ORDER BY image_id
    )
    SELECT l.image_id, l.item_id, s.margin, l.truth, l.chance, l.at
    FROM scored s JOIN labels l ON l.image_id = s.image_id AND l.class_name = :name
    WHERE NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = l.image_id)
    ORDER BY l.at DESC, l.image_id DESC
""")
_TRUTHS = text("""
    SELECT image_id, truth, chance FROM labels l WHERE class_name = :name
      AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = l.image_id)
      AND NOT EXISTS (SELECT FROM training_labels t WHERE t.fit = :fit AND t.image_id = l.image_id)
    ORDER BY at DESC, image_id DESC LIMIT :limit
""")
# The same words give an image the same margin in every version, so that one is as good as another.
_IMAGES = text("""
    SELECT DISTINCT ON (s.image_id) s.image_id, s.margin
    FROM unnest(CAST(:classes AS integer[])) AS c (id) CROSS JOIN LATERAL (
        SELECT image_id, margin FROM scores WHERE encoder_id = :encoder AND class_id = c.id
        ORDER BY image_id DESC LIMIT :limit
    ) s
    WHERE NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = s.image_id)
    ORDER BY s.image_id DESC LIMIT :limit
""")
_LOCKED = text("SELECT DISTINCT image_id FROM sealed_items WHERE image_id = ANY(:images)")
_JUDGED_LAST = text("""
    SELECT encoder_id FROM items WHERE encoder_id IS NOT NULL ORDER BY id DESC LIMIT 1
""")
