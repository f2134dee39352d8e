"""Deletes stored bytes that no image refers to any more.

Whoever deletes them holds the turn of those bytes exclusively and looks whether somebody wants
them: an image whose bytes are here, or a submission on its way (`db/arrivals.py`), which takes the
same turn before it keeps them. If this is killed, the rows that ask for it are still there.
"""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from filter_service.db.arrivals import turn
from filter_service.db.session import Sessions
from filter_service.db.tables import Erasure, LooseBytes, StoredImage
from filter_service.errors import StorageUnavailable
from filter_service.storage import Storage

AT_ONCE = 200  # read in one go

logger = logging.getLogger(__name__)


def sweep(sessions: Sessions, storage: Storage, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete what is due, and end the erasures that waited for it; how many bytes of images."""
    after, swept = 0, 0
    while True:
        due = (
            select(LooseBytes.id, LooseBytes.digest)
            .where(LooseBytes.id > after, LooseBytes.due_at <= func.now())
            .order_by(LooseBytes.id)
            .limit(AT_ONCE)
        )
        with sessions.begin() as session:
            due_rows = session.execute(due).all()
        for digest in dict.fromkeys(digest for _, digest in due_rows):
            if stop():
                return swept
            try:
                swept += forget_bytes(sessions, storage, digest)
            except StorageUnavailable as error:  # the others may be elsewhere
                logger.warning("%s", error)
        if not due_rows:
            return swept
        after = due_rows[-1][0]


def forget_bytes(sessions: Sessions, storage: Storage, digest: str) -> bool:
    """Delete some bytes unless somebody wants them; whether they were deleted."""
    rows = LooseBytes.digest == digest
    with sessions.begin() as session:
        key = func.hashtext("filter_service bytes")
        session.execute(select(func.pg_advisory_xact_lock(key, turn(digest))))
        coming = select(LooseBytes.id).where(rows, LooseBytes.due_at > func.now())
        if session.scalar(coming.limit(1)) is not None:
            return False  # what is due is looked at again once these have come, or are late
        # First: who is just taking one of these back is waited for, and has an image afterwards.
        session.execute(delete(LooseBytes).where(rows, LooseBytes.due_at <= func.now()))
        image = select(StoredImage.id).where(
            StoredImage.digest == digest, StoredImage.bytes_gone_at.is_(None)
        )
        needed = session.scalar(image) is not None
        if not needed:
            storage.delete(digest)
        _end_erasures(session, digest, needed)
    return not needed


def _end_erasures(session: Session, digest: str, kept: bool) -> None:
    """The same file may be another client's, or have been submitted again since."""
    waiting = select(Erasure).where(Erasure.done_at.is_(None), Erasure.digest == digest)
    for erasure in session.scalars(waiting.with_for_update()):
        told = erasure.receipt or {}
        done = told | {"bytes": _fate(told, kept)}
        ended = update(Erasure).where(Erasure.id == erasure.id)
        session.execute(ended.values(digest=None, done_at=func.now(), receipt=done))


def _fate(told: dict[str, Any], kept: bool) -> str:
    if not kept:
        return "deleted"
    if told.get("shared"):
        return "kept for other clients' items"
    return "submitted again since, as another image"
