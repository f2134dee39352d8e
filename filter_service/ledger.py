"""The append-only record of everything that happened; the table itself refuses anything else."""

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from filter_service.db.tables import LedgerEntry


class Event(StrEnum):
    """What can happen: to an item, or to what decides about items."""

    SUBMITTED = "submitted"
    CANCELLED = "cancelled"
    JUDGED = "judged"
    EXPLAINED = "explained"
    FAILED = "failed"  # it became undetermined
    RETRIED = "retried"
    FETCHED = "fetched"
    OPENED = "opened"  # a case waits for review
    CLAIMED = "claimed"
    RELEASED = "released"
    HANDED_OVER = "handed over"
    REVEALED = "revealed"  # somebody saw the image unblurred
    DECIDED = "decided"
    UNDONE = "undone"
    SETTLED = "settled"  # a decision took effect
    APPEALED = "appealed"
    APPEAL_CLOSED = "appeal closed"
    LISTED = "listed"
    UNLISTED = "unlisted"
    LIST_DECIDED = "list decided"
    RULE_ADDED = "rule added"
    RULE_REMOVED = "rule removed"
    SIGNED_IN = "signed in"
    PERSON_ADDED = "person added"
    PERSON_CHANGED = "person changed"
    KEY_ADDED = "key added"
    KEY_REVOKED = "key revoked"
    WEBHOOK_ADDED = "webhook added"
    WEBHOOK_REMOVED = "webhook removed"
    REDELIVERED = "redelivered"
    SEARCHED = "searched"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, and who did it: a person, or the part of the service."""

    event: Event
    actor: str
    item_id: int | None = None
    batch_id: uuid.UUID | None = None
    details: dict[str, Any] = field(default_factory=dict)


def append(session: Session, entries: Iterable[Entry]) -> None:
    """Add entries in the caller's transaction, so that they stand exactly if it happened."""
    if rows := [asdict(e) for e in entries]:
        session.execute(insert(LedgerEntry), rows)


def of_item(session: Session, item_id: int) -> list[LedgerEntry]:
    """Everything that happened to one item, oldest first."""
    entries = select(LedgerEntry).where(LedgerEntry.item_id == item_id).order_by(LedgerEntry.id)
    return list(session.scalars(entries))
