"""Reads stored vectors in bulk, newest first, and compares two policy versions over them.

One row of the answer holds some thousand vectors: sending each in a row of its own takes longer
than all the arithmetic. While one thread waits for the database, the other computes.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session
from threadpoolctl import threadpool_limits

from filter_service.db.embeddings import unit
from filter_service.db.session import Sessions
from filter_service.db.tables import Float32s
from filter_service.rollout.policy_comparison import Bools, Contrast, Ids, PolicyComparison
from filter_service.scoring import FloatArray, PolicyVectors

MOST = 1_000_000  # vectors that are looked at unless told otherwise
PIECE = 8_192  # vectors at once: 8 MB of 512 dimensions, and as much again twice in float32
STRETCHES = 32  # of one piece
THREADS = 2

# In stretches of ids that make some hundred vectors each: both ends keep such in their caches.
_PIECE = """
    SELECT start, stretch.*
    FROM generate_series(%(last)s ::bigint, %(first)s, %(step)s) AS start, LATERAL (
        SELECT string_agg(int8send(image_id), '') AS images, string_agg({vector}, '')
        FROM (
            SELECT image_id, vector FROM embeddings
            WHERE encoder_id = {encoder}
              AND image_id BETWEEN start AND least(start + %(step)s - 1, %(first)s)
            ORDER BY image_id, frame, view
        ) ordered
    ) stretch
    WHERE images IS NOT NULL
"""
_EXACT = """
    SELECT vector_send(exact_vector) FROM embeddings
    WHERE encoder_id = {encoder} AND image_id = ANY (%s) ORDER BY image_id, frame, view
"""
_OF_IMAGES = """
    SELECT image_id, halfvec_send(vector) FROM embeddings
    WHERE encoder_id = {encoder} AND image_id = ANY (%s) ORDER BY image_id, frame, view
"""
_FIRST = "SELECT max(image_id) FROM embeddings WHERE encoder_id = {encoder}"
_LAST = """
    SELECT image_id FROM embeddings WHERE encoder_id = {encoder} AND image_id <= :first
    ORDER BY image_id DESC OFFSET :rows LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class _Form:
    """How vectors leave the database: 4 bytes of header, then each number in 2."""

    vector: str  # in SQL
    halves: str  # their type in numpy


_RAW = _Form("vector::bytea", "<i2")  # the bytes as they lie there, without a look at each number
_SENT = _Form("halfvec_send(vector)", ">i2")  # for whom the owner of a server allows no such cast
_ONE = b"\1\0\0\0\0\x3c"  # a vector of 1.0 as `_RAW` expects it


@dataclass(frozen=True, slots=True)
class ComparisonScope:
    """Two versions, and over how much they are compared."""

    encoder_id: int
    old: PolicyVectors
    new: PolicyVectors
    most: int = MOST  # vectors, the newest images first
    hidden: frozenset[str] = frozenset()  # classes of which no picture may be an example


@dataclass(frozen=True, slots=True)
class _Piece:
    """Images whose ids are within these bounds."""

    last: int
    first: int


class _Pieces:
    """What is still to be read, for any number of threads."""

    def __init__(self, sessions: Sessions, encoder_id: int, most: int) -> None:
        self._sessions = sessions
        self._encoder = encoder_id
        self._left = most
        self._turn = threading.Lock()
        with sessions.begin() as session:
            self._first: int | None = session.scalar(text(_FIRST.format(encoder=encoder_id)))

    def __iter__(self) -> Iterator[_Piece]:
        while (piece := self._next()) is not None:
            yield piece

    def _next(self) -> _Piece | None:
        """All frames of an image are in one piece, which may so be a little larger."""
        with self._turn:
            if self._first is None or self._left <= 0:
                return None
            first, rows = self._first, min(PIECE, self._left)
            query = text(_LAST.format(encoder=self._encoder))
            with self._sessions.begin() as session:
                last = session.scalar(query, {"first": first, "rows": rows - 1})
            self._left -= rows
            self._first = None if last is None else last - 1
            return _Piece(0 if last is None else last, first)


def compare(sessions: Sessions, asked: ComparisonScope) -> PolicyComparison:
    """What both versions answer for the newest stored images; a million take some seconds."""
    contrast = Contrast(asked.old, asked.new, asked.hidden)
    pieces = _Pieces(sessions, asked.encoder_id, asked.most)
    work = partial(_worked, sessions, asked.encoder_id, _quickest(sessions), contrast, pieces)
    # A matrix product that takes all cores would wait for the other thread's at every piece.
    alone = threadpool_limits(1, "blas")
    with alone, ThreadPoolExecutor(THREADS, thread_name_prefix="compare") as threads:
        parts = [threads.submit(work) for _ in range(THREADS)]
        return sum((part.result() for part in parts), PolicyComparison())


def newest_vectors(sessions: Sessions, encoder_id: int, most: int) -> tuple[Ids, FloatArray]:
    """The newest vectors that an encoder left, in half precision: images (n,), (n, d)."""
    form = _quickest(sessions)
    found = []
    for piece in _Pieces(sessions, encoder_id, most):
        with sessions.begin() as session:
            found.append(_read(session, encoder_id, form, piece))
    return _together([rows for rows in found if len(rows[0])])


def vectors_of(session: Session, encoder_id: int, images: Sequence[int]) -> tuple[Ids, FloatArray]:
    """The vectors that an encoder left of these images, likewise."""
    rows = _in_binary(session, _OF_IMAGES.format(encoder=encoder_id), [list(images)])
    if not rows:
        return _together([])
    vectors = [np.frombuffer(data, ">f2", offset=4).astype(np.float32) for _, data in rows]
    return _together(
        [(np.array([image]), v[None]) for (image, _), v in zip(rows, vectors, strict=True)]
    )


def _together(parts: Sequence[tuple[Ids, FloatArray]]) -> tuple[Ids, FloatArray]:
    if not parts:
        return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    images, vectors = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(vectors)


def _quickest(sessions: Sessions) -> _Form:
    """The vectors' own bytes, where this server casts to them and they lie as expected."""
    try:
        with sessions.begin() as session:
            one = session.scalar(text("SELECT '[1]'::halfvec::bytea"))
    except ProgrammingError:
        return _SENT
    return _RAW if one == _ONE else _SENT


def _worked(
    sessions: Sessions, encoder_id: int, form: _Form, contrast: Contrast, pieces: _Pieces
) -> PolicyComparison:
    comparison = PolicyComparison()
    for piece in pieces:
        with sessions.begin() as session:
            images, vectors = _read(session, encoder_id, form, piece)
            exactly = partial(_exactly, session, encoder_id, images, vectors)
            if len(images):  # or they were deleted meanwhile
                comparison += contrast.compare(images, vectors, exactly)
    return comparison


def _read(session: Session, encoder_id: int, form: _Form, piece: _Piece) -> tuple[Ids, FloatArray]:
    """Ids (n,) and vectors (n, d), as they are rounded."""
    bounds = {
        "last": piece.last,
        "first": piece.first,
        "step": (piece.first - piece.last) // STRETCHES + 1,
    }
    query = _PIECE.format(encoder=encoder_id, vector=form.vector)
    # The server would sort megabytes on disk.
    pieces = sorted(_in_binary(session, query, bounds))
    images = np.frombuffer(b"".join(ids for _, ids, _ in pieces), ">i8").astype(np.int64)
    if not len(images):
        return images, np.zeros((0, 0), np.float32)
    # Bytes, of which 4 are a header.
    width = sum(len(data) for *_, data in pieces) // len(images)
    vectors = np.empty((len(images), width // 2 - 2), np.int32)
    start = 0
    for *_, data in pieces:
        rows = np.frombuffer(data, np.uint8).reshape(-1, width)[:, 4:]
        _widen(rows.view(form.halves), vectors[start : start + len(rows)])
        start += len(rows)
    return images, vectors.view(np.float32)


def _in_binary(session: Session, query: str, values: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """Rows as the server has them: as text, each byte of a vector would be two letters."""
    driver = session.connection().connection.driver_connection
    assert driver is not None
    with driver.cursor(binary=True) as cursor:
        return list(cursor.execute(query, values))


def _widen(
    halves: np.ndarray[Any, np.dtype[np.int16]], into: np.ndarray[Any, np.dtype[np.int32]]
) -> None:
    """Float16 as the wire has it to float32, in a third of the time that numpy's own way takes.

    Sign, exponent and digits move to their places in 32 bits; the exponent is then too small by
    the difference of the two biases, 127 - 15. Exact, but for infinities, which no vector holds.
    """
    into[...] = halves
    into <<= 13
    into &= np.int32(-0x70002000)  # 0x8fffe000: the sign, five bits of exponent, ten digits
    wide = into.view(np.float32)
    wide *= np.float32(2.0**112)


def _exactly(
    session: Session, encoder_id: int, images: Ids, vectors: FloatArray, rows: Ids
) -> tuple[FloatArray, Bools]:
    """The vectors that the judge would take for these rows, and whether each is float32."""
    wanted = np.isin(images, images[rows])  # with all frames of their images
    query = _EXACT.format(encoder=encoder_id)
    stored = _in_binary(session, query, [np.unique(images[rows]).tolist()])
    place = np.cumsum(wanted)[rows] - 1  # of each row among what was found
    exact_vectors = [None if len(stored) != wanted.sum() else stored[p][0] for p in place]
    exact = [
        unit(vectors[row]) if data is None else Float32s.parse(data)
        for row, data in zip(rows, exact_vectors, strict=True)
    ]
    return np.stack(exact), np.array([data is not None for data in exact_vectors])
