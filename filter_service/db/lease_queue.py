"""Leases on rows: one column says from when on a row is free, and whoever claims it moves that on.

Whoever is killed lets its leases lapse, and others claim. Rows that somebody else is just claiming
are passed over, so nobody waits. A lease is told from a later one of its row by when it ends.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Update, func, select, update
from sqlalchemy.orm import InstrumentedAttribute

from filter_service.db.tables import Delivery, Fetch, QueueEntry, ReviewCase
from filter_service.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

Rows = ColumnElement[bool]  # a condition on them


@dataclass(frozen=True, slots=True)
class LeaseQueue:
    """A table of what waits to be done, by one at a time."""

    until: InstrumentedAttribute[Any]  # free from then on; null: not to be done
    attempts: InstrumentedAttribute[int] | None = None  # claims so far, where they are counted

    @property
    def free(self) -> Rows:
        return self.until <= func.now()

    @property
    def held(self) -> Rows:
        return self.until > func.now()

    def select_free(self, *columns: Any, key_share: bool = False) -> Select[Any]:  # noqa: ANN401
        """Free rows, locked until the transaction ends; say in which order, and how many."""
        free = select(*columns).where(self.free)
        return free.with_for_update(skip_locked=True, key_share=key_share)

    def hold(self, length: timedelta | ColumnElement[timedelta], *rows: Rows) -> Update:
        """Let leases end so long from now: a heartbeat, or a pause after a failure."""
        return update(self.until.class_).where(*rows).values({self.until: func.now() + length})

    def give_back(self, *rows: Rows) -> Update:
        """Let leases end now."""
        return self.hold(timedelta(0), *rows)

    def claim(self, length: timedelta, *rows: Rows) -> Update:
        """Begin leases on rows that are free and locked."""
        held = self.hold(length, *rows)
        return held if self.attempts is None else held.values({self.attempts: self.attempts + 1})


ITEMS = LeaseQueue(QueueEntry.leased_until, QueueEntry.attempts)
FETCHES = LeaseQueue(Fetch.due_at, Fetch.attempts)
DELIVERIES = LeaseQueue(Delivery.due_at, Delivery.attempts)
CASES = LeaseQueue(ReviewCase.leased_until)


@contextmanager
def heartbeat(extend: Callable[[], None], length: timedelta) -> Iterator[None]:
    """Extend leases of this length from another thread while a model computes in this one."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(length.total_seconds() / 3):
            try:
                extend()
            except DatabaseUnavailable as error:
                logger.warning("The leases could not be extended. %s", error)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
