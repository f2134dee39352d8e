"""Finds the most urgent free items without walking over all that were taken before.

What is taken off the queue leaves dead rows in its index, until vacuum has removed them; while a
transaction is open anywhere, that is not before its end. So a worker remembers how far it has come
at each priority, and looks ahead from there. What became free behind it (a lease that lapsed, an
item that was put off) is found when it looks at everything, which it does now and then.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import Session

from filter_service.db.lease_queue import ITEMS
from filter_service.db.tables import QueueEntry

PAUSE = 2.0  # seconds at least between two looks at everything
PART = 50  # and so many times as long as such a look takes
MOST = 8  # priorities that are remembered; with more, everything is looked at each time


@dataclass(frozen=True, slots=True)
class FreeItem:
    """An item that nobody holds, locked."""

    item_id: int
    priority: int
    attempts: int
    problem: str | None


@dataclass
class QueuePlace:
    """How far a worker has come in the queue."""

    pause: float = PAUSE
    part: float = PART
    _passed: dict[int, int] = field(default_factory=dict)  # priority -> last item taken
    _due: float = 0.0  # when everything is looked at again

    def most_urgent(self, session: Session, limit: int) -> list[FreeItem]:
        """Lock free items, the most urgent first."""
        if time.monotonic() < self._due and len(self._passed) <= MOST:
            ahead = self._ahead(session, limit)
            if ahead:
                return ahead
        began = time.monotonic()
        found = _locked(session, true(), limit)
        ended = time.monotonic()
        self._due = ended + max(self.pause, self.part * (ended - began))
        return found

    def passed(self, taken: Iterable[FreeItem]) -> None:
        """These were taken, in this order."""
        self._passed |= {item.priority: item.item_id for item in taken}

    def _ahead(self, session: Session, limit: int) -> list[FreeItem]:
        found: list[FreeItem] = []
        for part in self._parts():
            if len(found) < limit:
                found += _locked(session, part, limit - len(found))
        return found

    def _parts(self) -> Iterator[ColumnElement[bool]]:
        """The stretches of the queue that were not passed, the most urgent first."""
        below: ColumnElement[bool] = true()
        for priority, item in sorted(self._passed.items(), reverse=True):
            yield below & (QueueEntry.priority > priority)
            yield (QueueEntry.priority == priority) & (QueueEntry.item_id > item)
            below = QueueEntry.priority < priority
        yield below


def _locked(session: Session, where: ColumnElement[bool], limit: int) -> list[FreeItem]:
    columns = QueueEntry.item_id, QueueEntry.priority, QueueEntry.attempts, QueueEntry.problem
    free = ITEMS.select_free(*columns).where(where)
    urgent = free.order_by(QueueEntry.priority.desc(), QueueEntry.item_id).limit(limit)
    return [FreeItem(*row) for row in session.execute(urgent).all()]
