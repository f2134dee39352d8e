"""Reads what a head learns from: labels of a class with kept vectors, and the stream around them.

Of an image with several views that counts which shows the class most strongly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import text
from sqlalchemy.orm import Session

from filter_service.calibration.labelled_margins import Bools
from filter_service.db.embeddings import unit
from filter_service.db.tables import Float16s, Float32s
from filter_service.images.views import View
from filter_service.scoring import FloatArray

MOST = 2_000  # labels that a head learns from, the newest
STREAM = 3_000  # images of the stream, the newest
ALIKE = 1e-5  # cosines from one on that two vectors may lie apart that show the same picture


@dataclass(frozen=True, slots=True)
class VectorLabels:
    """Images whose truth is known, with the vector of the view that counts; newest first."""

    images: npt.NDArray[np.int64]  # (n,)
    items: tuple[int | None, ...]  # that were decided; None: uploaded
    views: tuple[View, ...]
    vectors: FloatArray  # (n, d) unit
    truths: Bools  # (n,)
    newest: datetime | None

    def __len__(self) -> int:
        return len(self.images)

    def among(self, rows: Bools) -> "VectorLabels":
        kept = np.flatnonzero(rows).tolist()
        return VectorLabels(
            self.images[rows],
            tuple(self.items[i] for i in kept),
            tuple(self.views[i] for i in kept),
            self.vectors[rows],
            self.truths[rows],
            self.newest,
        )

    def contradicted(self) -> Bools:
        """Those beside which the same picture, to the model, has the other answer: (n,)."""
        same = self.vectors @ self.vectors.T > 1 - ALIKE  # (n, n)
        return np.asarray((same & (self.truths[:, None] != self.truths)).any(axis=1))


def vector_labels(
    session: Session, class_name: str, classes: Sequence[int], encoder_id: int, limit: int = MOST
) -> VectorLabels:
    """The newest labels of a class, asked for in these class ids, that one encoder has seen.

    Those of appeals are left out: who complains chose them, by what they show.
    """
    asked = {"name": class_name, "classes": list(classes), "encoder": encoder_id, "limit": limit}
    rows = session.execute(_LABELLED, asked).all()
    return VectorLabels(
        images=np.array([r.image_id for r in rows], np.int64),
        items=tuple(r.item_id for r in rows),
        views=tuple(View.parse(r.frame, r.view) for r in rows),
        vectors=_vectors(rows),
        truths=np.array([r.truth for r in rows], np.bool_),
        newest=max((r.at for r in rows), default=None),
    )


def usable(session: Session, class_name: str, limit: int = MOST) -> int:
    """How many of the newest labels of a class a head might learn from, seen or not."""
    asked = {"name": class_name, "limit": limit}
    return int(session.scalar(text(f"SELECT count(*) FROM ({_NEWEST}) n"), asked) or 0)


def stream_vectors(
    session: Session, classes: Sequence[int], encoder_id: int, limit: int = STREAM
) -> FloatArray:
    """Of the newest images as they come, the view that counts: (n, d) unit."""
    asked = {"classes": list(classes), "encoder": encoder_id, "limit": limit}
    return _vectors(session.execute(_STREAM, asked).all())


def _vectors(rows: Sequence[Any]) -> FloatArray:
    """(n, d); of none, (0, 0)."""
    if not rows:
        return np.zeros((0, 0), np.float32)
    return np.stack(
        [unit(Float16s.parse(r.half)) if r.exact is None else Float32s.parse(r.exact) for r in rows]
    )


# Labels first and then, one by one from the index, the view that a score of the same words names.
_VECTOR = """
    CROSS JOIN LATERAL (
        SELECT halfvec_send(vector) AS half, vector_send(exact_vector) AS exact FROM embeddings e
        WHERE e.encoder_id = :encoder AND e.image_id = n.image_id AND e.frame = s.frame
          AND e.view = s.view
    ) v
"""
_NEWEST = """
    SELECT image_id, item_id, truth, at FROM labels l
    WHERE class_name = :name AND (chance IS NOT NULL OR source = 'upload')
      AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = l.image_id)
    ORDER BY at DESC, image_id DESC LIMIT :limit
"""
_LABELLED = text(f"""
    WITH newest AS MATERIALIZED ({_NEWEST})
    SELECT n.*, s.frame, s.view, v.half, v.exact
    FROM newest n CROSS JOIN LATERAL (
        SELECT frame, view FROM scores
        WHERE encoder_id = :encoder AND class_id = ANY(:classes) AND image_id = n.image_id
        ORDER BY class_id DESC LIMIT 1
    ) s {_VECTOR}
    ORDER BY n.at DESC, n.image_id DESC
""")
_STREAM = text(f"""
    WITH newest AS MATERIALIZED (
        SELECT image_id, frame, view FROM scores s
        WHERE encoder_id = :encoder AND class_id = ANY(:classes)
          AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = s.image_id)
        ORDER BY image_id DESC LIMIT :limit
    )
    SELECT v.half, v.exact FROM newest n CROSS JOIN LATERAL (SELECT n.frame, n.view) s {_VECTOR}
    ORDER BY n.image_id DESC
""")
