"""Stores and reads encoders, image vectors and the phrase bank, and builds search indexes."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from pgvector import HalfVector, Vector
from sqlalchemy import Integer, bindparam, exists, func, select, text
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from filter_service.db.arrays import columns, one_of
from filter_service.db.tables import Digest, Embedding, StoredEncoder, StoredImage, StoredPhrase
from filter_service.images.views import Extent, View
from filter_service.scoring import FloatArray
from filter_service.verdicts import KnownVectors

TOGETHER = 1_000  # images of one query
_VECTORS = text("""
    INSERT INTO embeddings (encoder_id, image_id, frame, view, vector, exact_vector)
    SELECT :encoder, new.* FROM unnest(
        :images ::bigint[], :frames ::int[], :views ::varchar[],
        :vectors ::halfvec[], :exacts ::vector[]
    ) AS new
    ON CONFLICT (encoder_id, image_id, frame, view) DO UPDATE SET
        vector = excluded.vector, exact_vector = excluded.exact_vector
    WHERE embeddings.exact_vector IS NULL AND excluded.exact_vector IS NOT NULL
""")

INDEXED_FROM = 20_000  # vectors; fewer are read one by one, which takes a few milliseconds


def register_encoder(
    session: Session, fingerprint: str, name: str, dim: int, details: Mapping[str, Any]
) -> int:
    """The id of an encoder, whose partitions are made when it is new here."""
    encoder_id = session.scalar(
        select(StoredEncoder.id).where(StoredEncoder.fingerprint == fingerprint)
    )
    if encoder_id is not None:
        return encoder_id
    register = func.register_encoder(
        bindparam("fingerprint", fingerprint, Digest),
        name,
        dim,
        bindparam("details", dict(details), JSONB),
        type_=Integer,
    )
    return session.execute(select(register)).scalar_one()


def index_grown(session: Session, at_least: int = INDEXED_FROM) -> int:
    """Build the search index of every encoder that has come to need one; how many were built."""
    encoders = session.scalars(select(StoredEncoder.id)).all()
    return sum(
        bool(session.scalar(select(func.index_embeddings(encoder, at_least))))
        for encoder in encoders
    )


def known_vectors(
    session: Session, encoder_id: int, image_ids: Iterable[int]
) -> dict[str, KnownVectors]:
    """What an encoder has computed of these images, by digest."""
    place = (StoredImage.digest, Embedding.frame, Embedding.view)
    extent = (StoredImage.width, StoredImage.height, StoredImage.shown_time)
    rows = session.execute(
        select(*place, Embedding.vector, Embedding.exact_vector, *extent)
        .join(StoredImage)
        .where(Embedding.encoder_id == encoder_id, one_of(Embedding.image_id, image_ids))
        .order_by(*place)
    )
    return {digest: _known(list(views)) for digest, views in groupby(rows, key=lambda row: row[0])}


def known_of_digests(
    session: Session, encoder_id: int, digests: Sequence[str]
) -> tuple[dict[str, int], dict[str, KnownVectors]]:
    """Images that are stored, and what an encoder has computed of them: ids, vectors by digest."""
    ids: dict[str, int] = {}
    known: dict[str, KnownVectors] = {}
    for first in range(0, len(digests), TOGETHER):
        wanted = digests[first : first + TOGETHER]
        rows = session.execute(
            select(StoredImage.digest, StoredImage.id).where(StoredImage.digest.in_(wanted))
        ).all()
        ids |= {digest: image for digest, image in rows if digest is not None}
        known |= known_vectors(session, encoder_id, [image for _, image in rows])
    return ids, known


def _known(rows: Sequence[Any]) -> KnownVectors:
    """Of one image, as `known_vectors` selects them."""
    width, height, time = rows[0].width, rows[0].height, rows[0].shown_time
    return KnownVectors(
        vectors=np.stack(  # (views, d)
            [unit(r.vector) if r.exact_vector is None else r.exact_vector for r in rows]
        ),
        views=tuple(View.parse(r.frame, r.view) for r in rows),
        exact=tuple(r.exact_vector is not None for r in rows),
        extent=None if width is None else Extent(width, height, time),
    )


def unit(vector: FloatArray) -> FloatArray:
    """Rounding to float16 moved its length too: (d,) -> (d,)."""
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def keep_vectors(session: Session, encoder_id: int, vectors: Mapping[int, KnownVectors]) -> None:
    """Keep vectors by image id; one in float32 replaces one from less, never the other way."""
    rows = [
        (image_id, view.frame, view.name, HalfVector(z), Vector(z) if exact else None)
        for image_id, known in sorted(vectors.items())  # two workers lock in the same order
        for z, view, exact in zip(known.vectors, known.views, known.exact, strict=True)
    ]
    if rows:
        given = columns("images frames views vectors exacts", rows)
        session.execute(_VECTORS, {"encoder": encoder_id, **given})


def has_phrases(session: Session, encoder_id: int) -> bool:
    """Whether an encoder's phrase bank has been filled."""
    found = exists().where(StoredPhrase.encoder_id == encoder_id)
    return bool(session.scalar(select(found)))


def phrases_of(session: Session, encoder_id: int, limit: int) -> tuple[list[str], FloatArray]:
    """The phrase bank of an encoder: texts, and unit vectors (n, d)."""
    query = select(StoredPhrase.text, StoredPhrase.vector).where(
        StoredPhrase.encoder_id == encoder_id
    )
    rows = session.execute(query.order_by(StoredPhrase.text).limit(limit)).all()
    vectors = [vector for _, vector in rows]
    return [text for text, _ in rows], np.stack(vectors) if rows else np.zeros((0, 0), np.float32)


def keep_phrases(session: Session, encoder_id: int, phrases: Mapping[str, FloatArray]) -> None:
    """Fill the phrase bank of an encoder: text to unit vector (d,); known texts stay."""
    rows = [
        {"encoder_id": encoder_id, "text": text, "vector": vector}
        for text, vector in phrases.items()
    ]
    if rows:
        session.execute(insert(StoredPhrase).on_conflict_do_nothing(), rows)
