"""Matches judged images with the hash lists, in memory: by digest, PDQ or embedding."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from filter_service.db.tables import ListEntry
from filter_service.images.perceptual_hash import Bits, differing, packed
from filter_service.scoring import FloatArray

ROUNDING = 1e-6  # of a product of unit vectors: an image lies within 0 degrees of itself


class ListKind(StrEnum):
    """What an entry does with what it matches."""

    ALLOW = "allow"  # a flag for its class is overturned
    BLOCK = "block"  # flagged for its class, whatever the model says


class Match(StrEnum):
    """How an entry knows its images."""

    DIGEST = "digest"  # the same bytes
    PDQ = "pdq"  # a perceptual hash within some bits
    RADIUS = "radius"  # an embedding within some degrees


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """An image's digest, perceptual hash and vectors, by which entries match it."""

    digest: str
    pdq: str | None = None  # None: too plain, or not known
    vectors: FloatArray | None = None  # (frames, d) unit, in the encoder that is asked about


@dataclass(frozen=True, slots=True)
class HashMatch:
    """An entry that matches an image."""

    entry_id: int
    kind: ListKind
    class_name: str
    match: Match


@dataclass(frozen=True)
class Lists:
    """All active entries, as arrays; the surest matches come first: bytes, hash, embedding."""

    digests: dict[str, list[HashMatch]]
    hashed: list[HashMatch]
    hashes: Bits  # (n, 4)
    bits: npt.NDArray[np.int64]  # (n,) each matches up to so many
    placed: list[HashMatch]
    centres: FloatArray  # (m, d) unit
    cosines: FloatArray  # (m,) each matches from so near

    def hits(self, seen: ImageHashes) -> list[HashMatch]:
        """Every entry that matches an image."""
        entries = list(self.digests.get(seen.digest, ()))
        if seen.pdq is not None and self.hashed:
            close = differing(self.hashes, packed([seen.pdq])) <= self.bits  # (n,)
            entries += [self.hashed[i] for i in np.flatnonzero(close)]
        if seen.vectors is not None and self.placed:
            nearest = (self.centres @ seen.vectors.T).max(axis=1)  # (m,) of any frame
            entries += [self.placed[i] for i in np.flatnonzero(nearest >= self.cosines)]
        return entries


@dataclass
class Matcher:
    """The lists as one worker's process knows them, read again when they have changed."""

    encoder_id: int
    _known: tuple[tuple[int | None, datetime | None], Lists] | None = None

    def lists(self, session: Session) -> Lists:
        """What is listed now. Asking whether it changed reads the ends of two indexes."""
        # Whoever changes a list waits for those before (`lists.py`): ids and times only grow.
        newest = select(func.max(ListEntry.id), func.max(ListEntry.removed_at))
        last, removed_at = session.execute(newest).one()
        state = last, removed_at
        if self._known is None or self._known[0] != state:
            self._known = state, arranged(_active(session, self.encoder_id))
        return self._known[1]


def arranged(entries: Sequence[ListEntry]) -> Lists:
    """Entries as arrays; those by radius are of one encoder."""
    digests: dict[str, list[HashMatch]] = defaultdict(list)
    hashed: list[tuple[HashMatch, str, int]] = []
    placed: list[tuple[HashMatch, FloatArray, float]] = []
    for e in entries:
        hit = HashMatch(e.id, ListKind(e.kind), e.class_name, Match(e.match))
        if e.pdq is not None:
            hashed.append((hit, e.pdq, int(e.within or 0)))
        elif e.vector is not None:
            placed.append((hit, e.vector, math.cos(math.radians(e.within or 0.0))))
        elif e.image_digest is not None:
            digests[e.image_digest].append(hit)
    return Lists(
        digests=dict(digests),
        hashed=[hit for hit, _, _ in hashed],
        hashes=packed([pdq for _, pdq, _ in hashed]),
        bits=np.array([within for _, _, within in hashed], dtype=np.int64),
        placed=[hit for hit, _, _ in placed],
        centres=np.array([vector for _, vector, _ in placed], dtype=np.float32),
        cosines=np.array([cosine - ROUNDING for _, _, cosine in placed], dtype=np.float32),
    )


def _active(session: Session, encoder_id: int) -> list[ListEntry]:
    mine = or_(ListEntry.match != Match.RADIUS, ListEntry.encoder_id == encoder_id)
    query = select(ListEntry).where(ListEntry.removed_at.is_(None), mine).order_by(ListEntry.id)
    return list(session.scalars(query))
