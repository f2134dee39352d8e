"""Leases on queued items: claiming, extending, releasing and postponing them."""

import uuid
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from filter_service.db.arrays import one_of
from filter_service.db.lease_queue import ITEMS, heartbeat
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, QueueEntry, StoredImage
from filter_service.moderation.queue_place import FreeItem, QueuePlace
from filter_service.moderation.results import FailedItem, fail

SUSPECT = 3  # claims that came to nothing; from then on an item is claimed alone
HOPELESS = 6  # claims that came to nothing; then it is undetermined
PATIENCE = timedelta(seconds=5)  # before the second try of what was put off; doubles every time


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
    return bool(session.scalar(select(exists().where(ITEMS.free))))


class Leases:
    """What one worker holds. A lease that is not extended in time lapses, and others may claim."""

    def __init__(self, sessions: Sessions, seconds: float, place: QueuePlace | None = None) -> None:
        self.worker = uuid.uuid4()
        self._place = place or QueuePlace()
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
                free = self._place.most_urgent(session, limit)
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
            session.execute(ITEMS.hold(self._length, QueueEntry.item_id.in_(mine)))

    def release(self, counted: bool) -> None:
        """Give back whatever is held; a claim that was not begun need not count as an attempt."""
        attempts = QueueEntry.attempts - (0 if counted else 1)
        with self._sessions.begin() as session:
            mine = QueueEntry.item_id.in_(self._mine(self._held).with_for_update())
            session.execute(ITEMS.give_back(mine).values(worker=None, attempts=attempts))
        self._held.clear()

    def postpone(self, items: Iterable[ClaimedItem], problem: str) -> None:
        """Give back items that cannot be judged just now, to be tried again a little later."""
        ids = {c.item_id for c in items}
        pause = PATIENCE * func.power(2, QueueEntry.attempts)
        with self._sessions.begin() as session:
            mine = QueueEntry.item_id.in_(self._mine(ids).with_for_update())
            session.execute(ITEMS.hold(pause, mine).values(worker=None, problem=problem))
        self._held -= ids

    def forget(self, items: Iterable[ClaimedItem]) -> None:
        """These were recorded."""
        self._held -= {c.item_id for c in items}

    def beating(self) -> AbstractContextManager[None]:
        """Extend the leases from another thread while a model computes in this one."""
        return heartbeat(self.extend, self._length)

    def _take(self, session: Session, chosen: Sequence[FreeItem]) -> list[ClaimedItem]:
        self._place.passed(chosen)
        ids = [c.item_id for c in chosen]
        claim = ITEMS.claim(self._length, one_of(QueueEntry.item_id, ids))
        session.execute(claim.values(worker=self.worker, problem=None))
        rows = session.execute(
            select(Item.id, Item.batch_id, StoredImage.id, StoredImage.digest, Batch.policy_id)
            .join(StoredImage)
            .join(Batch)
            .where(one_of(Item.id, ids))
            .order_by(Item.id)
        )
        self._held.update(ids)
        return [
            ClaimedItem(item, batch, image, digest, policy)
            for item, batch, image, digest, policy in rows.all()
            if digest is not None  # erasing an image takes its items off the queue
        ]

    def _mine(self, items: Iterable[int]) -> Select[int]:
        """Rows are always locked in the order of their items, so that nobody waits in a circle."""
        return (
            select(QueueEntry.item_id)
            .where(one_of(QueueEntry.item_id, items), QueueEntry.worker == self.worker)
            .order_by(QueueEntry.item_id)
        )


def _together(free: list[FreeItem]) -> list[FreeItem]:
    """Those that may be claimed in one go; the most urgent decides."""
    if free and free[0].attempts >= SUSPECT:
        return free[:1]
    return [c for c in free if c.attempts < SUSPECT]


def _given_up(hopeless: FreeItem) -> FailedItem:
    reason = f"the worker died {hopeless.attempts} times while judging this image"
    if hopeless.problem:
        reason = f"given up after {hopeless.attempts} attempts: {hopeless.problem}"
    return FailedItem(hopeless.item_id, reason)
