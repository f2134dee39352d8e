"""Queues undetermined items again."""

import uuid
from collections.abc import Callable, Sequence
from itertools import groupby

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.arrivals import enqueue, hold_images
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Fetch, Item
from filter_service.intake.batches import batch_in
from filter_service.intake.item_lists import chunks, has_bytes, in_batch
from filter_service.ledger import Entry, Event
from filter_service.verdicts import Verdict

Notify = Callable[[], object]  # tells some worker that there is work


def retry(
    sessions: Sessions,
    notify_workers: Notify,
    batch: uuid.UUID,
    actor: str = "platform",
    scope: Scope = OPERATOR,
) -> int:
    """Queue the undetermined items of a batch again, or fetch them; how many.

    What came without bytes and without an address to fetch them from stays as it is, and so does
    what was deleted since.
    """
    with sessions.begin() as session:
        found = batch_in(session, batch, scope)
    if found.cancelled_at is not None:
        return 0
    retried = 0
    fetchable = select(Fetch.item_id).where(Fetch.item_id == Item.id).exists()
    undetermined = in_batch(batch, Verdict.UNDETERMINED).where(has_bytes() | fetchable)
    for failed in chunks(sessions, undetermined):
        with sessions.begin() as session:
            retried += _requeue(session, failed, found.priority, actor)
        notify_workers()
    return retried


def retry_items(
    sessions: Sessions, notify_workers: Notify, items: Sequence[int], actor: str = "platform"
) -> int:
    """Queue these items again as far as they are undetermined and can be judged; how many."""
    wanted = (
        select(Item, Batch.priority)
        .join(Batch, Batch.id == Item.batch_id)
        .where(
            Item.id.in_(items),
            Item.verdict == Verdict.UNDETERMINED,
            has_bytes(),
            Batch.cancelled_at.is_(None),
        )
        .order_by(Batch.priority, Item.id)
    )
    retried = 0
    with sessions.begin() as session:
        rows = session.execute(wanted).all()
        for priority, same in groupby(rows, key=lambda row: row[1]):
            retried += _requeue(session, [item for item, _ in same], priority, actor)
    if retried:
        notify_workers()
    return retried


def _requeue(session: Session, failed: list[Item], priority: int, actor: str) -> int:
    """Take the verdict off undetermined items and queue them; somebody else may be quicker."""
    reasons = {item.id: item.reason for item in failed}
    hold_images(session, [item.image_id for item in failed if item.image_id is not None])
    again = (
        update(Item)
        .where(
            Item.id.in_(reasons),
            Item.verdict == Verdict.UNDETERMINED,
            Item.image_id.is_(None) | has_bytes(),
        )
        .values(verdict=None, reason=None, judged_at=None)
        .returning(Item.id, Item.batch_id, Item.image_id)
    )
    rows = sorted(session.execute(again).all())
    enqueue(session, [item for item, _, image in rows if image is not None], priority)
    _fetch_again(session, [item for item, _, image in rows if image is None])
    entries = [
        Entry(Event.RETRIED, actor, item, batch, {"reason": reasons[item]})
        for item, batch, _ in rows
    ]
    ledger.append(session, entries)
    return len(entries)


def _fetch_again(session: Session, items: list[int]) -> None:
    """Let fetches that were given up start anew."""
    anew = update(Fetch).where(Fetch.item_id.in_(items), Fetch.due_at.is_(None))
    session.execute(anew.values(due_at=func.now(), attempts=0, problem=None))
