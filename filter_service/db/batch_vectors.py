"""Reads the kept vectors of a batch's images."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from filter_service.db.embeddings import known_vectors
from filter_service.db.tables import Batch, Item
from filter_service.errors import UnknownBatch
from filter_service.scoring import FloatArray

CHUNK = 500  # images of one query


@dataclass(frozen=True, slots=True)
class BatchVectors:
    """The different images of a batch, and an encoder's vectors of those that it has seen."""

    images: int
    asked: int  # of these: all, or as many as were wanted, drawn at random
    vectors: list[FloatArray]  # (views, d) each; fewer than asked where some are not kept


def batch_vectors(session: Session, encoder_id: int, batch: uuid.UUID, most: int) -> BatchVectors:
    """Of at most so many images; which these are is the same each time. Raises UnknownBatch."""
    if session.get(Batch, batch) is None:
        raise UnknownBatch(f"There is no batch {batch}; `filter-service submit` printed its id.")
    query = select(Item.image_id).where(Item.batch_id == batch, Item.image_id.is_not(None))
    ids = sorted(i for i in session.scalars(query.distinct()) if i is not None)
    drawn = np.random.default_rng(0).permutation(len(ids))[:most]
    asked = [ids[i] for i in np.sort(drawn)]
    return BatchVectors(len(ids), len(asked), list(_vectors(session, encoder_id, asked)))


def _vectors(session: Session, encoder_id: int, ids: list[int]) -> Iterator[FloatArray]:
    for first in range(0, len(ids), CHUNK):
        for known in known_vectors(session, encoder_id, ids[first : first + CHUNK]).values():
            yield known.vectors
