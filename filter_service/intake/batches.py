"""Batches: how far they have come, their lists, and cancellation."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Select, delete, func, select, tuple_
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Fetch, Item, QueueEntry, StoredPolicy
from filter_service.db.unjudged import UnjudgedReason, unjudged
from filter_service.errors import UnknownBatch
from filter_service.intake.item_lists import chunks, in_batch
from filter_service.ledger import Entry, Event
from filter_service.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Status:
    """How far a batch has come."""

    batch: uuid.UUID
    label: str
    submitted_at: datetime
    cancelled_at: datetime | None
    total: int | None  # None while items still arrive
    clear: int
    flagged: int
    undetermined: int
    waiting: int  # queued, being judged or being fetched
    cancelled: int  # with the batch, before there was a verdict
    erased: int  # likewise
    stranded: int  # without a verdict, and nobody will come to find one

    @property
    def finished(self) -> bool:
        """Nothing more will happen to it."""
        return self.total is not None and (self.waiting == 0 or self.cancelled_at is not None)


def status(sessions: Sessions, batch: uuid.UUID, scope: Scope = OPERATOR) -> Status:
    """Count a batch's items by verdict."""
    with sessions.begin() as session:
        found = batch_in(session, batch, scope)
        counts = dict(
            session.execute(
                select(Item.verdict, func.count())
                .where(Item.batch_id == batch)
                .group_by(Item.verdict)
            ).all()
        )
        why = unjudged().label("why")
        unjudged_of = select(why, func.count()).where(
            Item.batch_id == batch, Item.verdict.is_(None)
        )
        rest = dict(session.execute(unjudged_of.group_by(why)).all())
    return Status(
        batch=batch,
        label=found.label,
        submitted_at=found.submitted_at,
        cancelled_at=found.cancelled_at,
        total=found.total,
        clear=counts.get(Verdict.CLEAR, 0),
        flagged=counts.get(Verdict.FLAGGED, 0),
        undetermined=counts.get(Verdict.UNDETERMINED, 0),
        **{each.value: rest.get(each.value, 0) for each in UnjudgedReason},
    )


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch with the version of the policy that it is judged under."""

    batch: Batch
    policy: str
    digest: str


def newest(
    sessions: Sessions, scope: Scope, before: tuple[datetime, uuid.UUID] | None, limit: int
) -> list[BatchRow]:
    """The batches that somebody sees, the newest first, from below a moment and an id."""
    query = _rows(scope).order_by(Batch.submitted_at.desc(), Batch.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tuple_(Batch.submitted_at, Batch.id) < before)
    with sessions.begin() as session:
        return [BatchRow(*row) for row in session.execute(query)]


def batch_row(session: Session, batch: uuid.UUID, scope: Scope = OPERATOR) -> BatchRow:
    """Raises UnknownBatch."""
    found = session.execute(_rows(scope).where(Batch.id == batch)).one_or_none()
    if found is None:
        raise UnknownBatch(f"There is no batch {batch}: check the id that submitting it gave.")
    return BatchRow(*found)


def cancel(
    sessions: Sessions, batch: uuid.UUID, actor: str = "platform", scope: Scope = OPERATOR
) -> int:
    """Take back every item of a batch that has no verdict yet; how many those were.

    A worker that holds one of them finds it gone when it comes to record the verdict.
    """
    with sessions.begin() as session:
        found = batch_in(session, batch, scope, lock=True)
        if found.cancelled_at is None:
            found.cancelled_at = datetime.now(UTC)
            ledger.append(session, [Entry(Event.CANCELLED, actor, batch_id=batch)])
    cancelled = 0
    for waiting in chunks(sessions, in_batch(batch, None)):
        with sessions.begin() as session:
            gone = _unqueue(session, [item.id for item in waiting])
            ledger.append(session, [Entry(Event.CANCELLED, actor, i, batch) for i in gone])
        cancelled += len(gone)
    return cancelled


def batch_in(
    session: Session, batch: uuid.UUID, scope: Scope = OPERATOR, *, lock: bool = False
) -> Batch:
    """Raises UnknownBatch."""
    query = select(Batch).where(Batch.id == batch, scope.has(Batch.client_id))
    found = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise UnknownBatch(f"There is no batch {batch}: check the id that `submit` printed.")
    return found


def _unqueue(session: Session, items: list[int]) -> list[int]:
    """Take items off the queue, whoever holds them, and fetch no more; -> those that waited."""
    gone: list[int] = []
    for table in (
        Fetch,
        QueueEntry,
    ):  # in this order, or what was fetched meanwhile would be queued
        locked = select(table.item_id).where(table.item_id.in_(items)).order_by(table.item_id)
        taken = delete(table).where(table.item_id.in_(locked.with_for_update()))
        gone += session.scalars(taken.returning(table.item_id))
    return sorted(gone)


def _rows(scope: Scope) -> Select[Batch, str, str]:
    """Those of `BatchRow`."""
    return (
        select(Batch, StoredPolicy.name, StoredPolicy.digest)
        .join(StoredPolicy, StoredPolicy.id == Batch.policy_id)
        .where(scope.has(Batch.client_id))
    )
