"""Counts what waits in the queue, and says since when."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from filter_service.db.lease_queue import ITEMS
from filter_service.db.tables import QueueEntry


@dataclass(frozen=True, slots=True)
class WaitingItems:
    """Items without a verdict."""

    queued: int
    judging: int  # some worker holds them
    since: datetime | None  # when the oldest came


def waiting_items(session: Session, most: int) -> WaitingItems:
    """Counted up to `most`."""
    leased = ITEMS.held.label("leased")
    some = select(leased).limit(most).subquery()
    counted = select(some.c.leased, func.count()).group_by(some.c.leased)
    counts: dict[bool, int] = {leased: n for leased, n in session.execute(counted)}
    # Ids grow as items come in: the first is the oldest, but for one that was queued again.
    oldest = session.scalar(select(QueueEntry.queued_at).order_by(QueueEntry.item_id).limit(1))
    return WaitingItems(counts.get(False, 0), counts.get(True, 0), oldest)
