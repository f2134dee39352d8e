"""Leases on queued items: claiming, extending, releasing and postponing them."""

import logging
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, exists, func, select, update
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, QueueEntry, StoredImage
from filter_service.errors import DatabaseUnavailable
from filter_service.moderation.results import FailedItem, fail

SUSPECT = 3  # claims that came to nothing; from then on an item is claimed alone
HOPELESS = 6  # claims that came to nothing; then it is undetermined
PATIENCE = timedelta(seconds=5)  # before the second try of what was put off; doubles every time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimedItem:
    """An item that this worker may judge."""

    item_id: int
    batch_id: uuid.UUID
    image_id: int
    digest: str
    policy_id: int


def has_work(session: Session) -> bool:
    """Whether any item waits that nobody holds."""
    return bool(session.scalar(select(exists().where(_free()))))


class Leases:
    """What one worker holds. A lease that is not extended in time lapses, and others may claim."""

    def __init__(self, sessions: Sessions, seconds: float) -> None:
        self.worker = uuid.uuid4()
        self._sessions = sessions
        self._length = timedelta(seconds=seconds)
        self._held: set[int] = set()

    @property
    def actor(self) -> str:
        """How the ledger calls this worker."""
        return f"worker {self.worker}"

    def claim(self, limit: int) -> list[ClaimedItem]:
        """Take the most urgent items that nobody holds; empty when there are none.

        An item on which several claims came to nothing may be what kills workers. It is claimed
        alone, so that it takes no others with it, and at last it becomes undetermined.
        """
        while True:
            with self._sessions.begin() as session:
                free = _lock_free(session, limit)
                hopeless = [c for c in free if c.attempts >= HOPELESS]
                fail(session, [_given_up(c) for c in hopeless], self.actor)
                chosen = _together([c for c in free if c.attempts < HOPELESS])
                if chosen:
                    return self._take(session, chosen)
                if not hopeless:
                    return []

    def extend(self) -> None:
        """Say that this worker still lives."""
        with self._sessions.begin() as session:
            # A row that is locked is just being recorded or cancelled.
            mine = self._mine(self._held).with_for_update(skip_locked=True)
            session.execute(
                update(QueueEntry)
                .where(QueueEntry.item_id.in_(mine))
                .values(leased_until=func.now() + self._length)
            )

    def release(self, counted: bool) -> None:
        """Give back whatever is held; a claim that was not begun need not count as an attempt."""
        with self._sessions.begin() as session:
            session.execute(
                update(QueueEntry)
                .where(QueueEntry.item_id.in_(self._mine(self._held).with_for_update()))
                .values(
                    worker=None,
                    leased_until=func.now(),
                    attempts=QueueEntry.attempts - (0 if counted else 1),
                )
            )
        self._held.clear()

    def postpone(self, items: Iterable[ClaimedItem], problem: str) -> None:
        """Give back items that cannot be judged just now, to be tried again a little later."""
        ids = {c.item_id for c in items}
        with self._sessions.begin() as session:
            session.execute(
                update(QueueEntry)
                .where(QueueEntry.item_id.in_(self._mine(ids).with_for_update()))
                .values(
                    worker=None,
                    leased_until=func.now() + PATIENCE * func.power(2, QueueEntry.attempts),
                    problem=problem,
                )
            )
        self._held -= ids

    def forget(self, items: Iterable[ClaimedItem]) -> None:
        """These were recorded."""
        self._held -= {c.item_id for c in items}

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Extend the leases from another thread while a model computes in this one."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=[over], name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(self._length.total_seconds() / 3):
            try:
                self.extend()
            except DatabaseUnavailable as error:
                logger.warning("The leases could not be extended. %s", error)

    def _take(self, session: Session, chosen: Sequence["_Free"]) -> list[ClaimedItem]:
        ids = [c.item_id for c in chosen]
        session.execute(
            update(QueueEntry)
            .where(QueueEntry.item_id.in_(ids))
            .values(
                worker=self.worker,
                leased_until=func.now() + self._length,
                attempts=QueueEntry.attempts + 1,
                problem=None,
            )
        )
        rows = session.execute(
            select(Item.id, Item.batch_id, StoredImage.id, StoredImage.digest, Batch.policy_id)
            .join(StoredImage)
            .join(Batch)
            .where(Item.id.in_(ids))
            .order_by(Item.id)
        )
        self._held.update(ids)
        return [
            ClaimedItem(item, batch, image, digest, policy)
            for item, batch, image, digest, policy in rows
            if digest is not None  # erasing an image takes its items off the queue
        ]

    def _mine(self, items: Iterable[int]) -> Select[int]:
        """Rows are always locked in the order of their items, so that nobody waits in a circle."""
        return (
            select(QueueEntry.item_id)
            .where(QueueEntry.item_id.in_(list(items)), QueueEntry.worker == self.worker)
            .order_by(QueueEntry.item_id)
        )


@dataclass(frozen=True, slots=True)
class _Free:
    item_id: int
    attempts: int
    problem: str | None


def _free() -> ColumnElement[bool]:
    return QueueEntry.leased_until <= func.now()


def _lock_free(session: Session, limit: int) -> list[_Free]:
    rows = session.execute(
        select(QueueEntry.item_id, QueueEntry.attempts, QueueEntry.problem)
        .where(_free())
        .order_by(QueueEntry.priority.desc(), QueueEntry.item_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_Free(*row) for row in rows]


def _together(free: list[_Free]) -> list[_Free]:
    """Those that may be claimed in one go; the most urgent decides."""
    if free and free[0].attempts >= SUSPECT:
        return free[:1]
    return [c for c in free if c.attempts < SUSPECT]


def _given_up(hopeless: _Free) -> FailedItem:
    reason = f"the worker died {hopeless.attempts} times while judging this image"
    if hopeless.problem:
        reason = f"given up after {hopeless.attempts} attempts: {hopeless.problem}"
    return FailedItem(hopeless.item_id, reason)
