"""Lists and filters the ledger's newest entries for auditors, and reports its state."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    LedgerEntry,
    LedgerRow,
    SealedEntry,
    StoredCheckpoint,
    StoredSigner,
    UnsealedEntry,
)
from filter_service.ledger import Entry, Event
from filter_service.ledger.checkpoints import newest_checkpoint

ROWS = 50  # of one page
SPAN = 50_000  # entries that are looked at for one page, however few of them are wanted
MANY = 10_000  # entries that wait: more are not counted
SLACK = timedelta(minutes=10)  # entries are numbered a little out of the order of their times


@dataclass(frozen=True, slots=True)
class LedgerState:
    """How far the ledger is sealed, and who vouches for it."""

    checkpoint: StoredCheckpoint | None
    published: StoredCheckpoint | None  # the newest that was written outside the database
    vkey: str | None
    waiting: int  # MANY: that many, or more
    waiting_since: datetime | None


@dataclass(frozen=True, slots=True)
class JournalFilter:
    """Which entries are looked for."""

    event: Event | None = None
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def criteria(self) -> dict[str, Any]:
        """For the ledger; empty where everything is wanted."""
        return {name: str(value) for name, value in asdict(self).items() if value}


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Some entries, newest first, with the positions of those that are sealed."""

    entries: list[LedgerEntry]
    positions: dict[int, int]
    next: int | None  # entries before this one follow; None: that was all
    looked: bool  # fewer than a page, and there is more to look through


def state(sessions: Sessions) -> LedgerState:
    """Of the whole ledger."""
    some = select(UnsealedEntry.entry_id).order_by(UnsealedEntry.entry_id).limit(MANY).subquery()
    published = (
        select(StoredCheckpoint)
        .where(StoredCheckpoint.published_at.is_not(None))
        .order_by(StoredCheckpoint.size.desc())
        .limit(1)
    )
    with sessions.begin() as session:
        first, waiting = session.execute(
            select(func.min(some.c.entry_id), func.count()).select_from(some)
        ).one()
        since = select(LedgerRow.at).where(LedgerRow.id == first)
        return LedgerState(
            newest_checkpoint(session),
            session.scalar(published),
            session.scalar(select(StoredSigner.vkey).order_by(StoredSigner.id.desc()).limit(1)),
            waiting,
            session.scalar(since) if waiting else None,
        )


def recent(
    sessions: Sessions,
    wanted: JournalFilter,
    seen: ColumnElement[bool],
    actor: str,
    before: int | None = None,
) -> JournalPage:
    """Entries, newest first; looking for some of them is written down.

    `seen` is the condition on items whose entries may be shown.
    """
    with sessions.begin() as session:
        if wanted.criteria:
            details = {"ledger": wanted.criteria, "before": before}
            ledger.append(session, [Entry(Event.SEARCHED, actor, details=details)])
        low, high = _between(session, wanted, before)
        floor = max(low, high - SPAN)
        query = select(LedgerEntry).where(
            LedgerEntry.id >= floor,
            LedgerEntry.id < high,
            (LedgerEntry.item_id.is_(None)) | exists().where(Item.id == LedgerEntry.item_id, seen),
            *_conditions(wanted),
        )
        rows = list(session.scalars(query.order_by(LedgerEntry.id.desc()).limit(ROWS + 1)))
        entries = rows[:ROWS]
        more = len(rows) > ROWS
        following = entries[-1].id if more else floor if floor > low else None
        return JournalPage(entries, _positions(session, entries), following, not more)


def entry_of(session: Session, entry_id: int) -> LedgerEntry | None:
    """One entry."""
    return session.scalar(select(LedgerEntry).where(LedgerEntry.id == entry_id))


def _conditions(wanted: JournalFilter) -> list[ColumnElement[bool]]:
    conditions = []
    if wanted.event is not None:
        conditions.append(LedgerEntry.event == wanted.event.value)
    if wanted.actor:
        names = [wanted.actor, f"person {wanted.actor}", f"key {wanted.actor}"]
        conditions.append(LedgerEntry.actor.in_(names))
    if wanted.since is not None:
        conditions.append(LedgerEntry.at >= wanted.since)
    if wanted.until is not None:
        conditions.append(LedgerEntry.at < wanted.until)
    return conditions


def _between(session: Session, wanted: JournalFilter, before: int | None) -> tuple[int, int]:
    """The numbers between which entries of that time lie: [low, high)."""
    newest = session.scalar(select(func.max(LedgerRow.id))) or 0
    high = newest + 1
    if wanted.until is not None:
        high = _first_after(session, wanted.until + SLACK, newest)
    low = 1
    if wanted.since is not None:
        low = _first_after(session, wanted.since - SLACK, newest)
    return low, high if before is None else min(high, before)


def _first_after(session: Session, at: datetime, newest: int) -> int:
    """The number of about the first entry of a time: no index is needed to find it."""
    low, high = 1, newest + 1
    while low < high:
        middle = (low + high) // 2
        query = select(LedgerRow.at).where(LedgerRow.id >= middle).order_by(LedgerRow.id).limit(1)
        first = session.scalar(query)
        if first is None or first.astimezone(UTC) >= at:
            high = middle
        else:
            low = middle + 1
    return low


def _positions(session: Session, entries: list[LedgerEntry]) -> dict[int, int]:
    query = select(SealedEntry.entry_id, SealedEntry.position).where(
        SealedEntry.entry_id.in_([e.id for e in entries])
    )
    return dict(session.execute(query).all())
