"""Ledger entries: what can happen, and how it is appended with its erasable payload."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from secrets import token_bytes
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from filter_service.db.arrays import column
from filter_service.db.tables import LedgerEntry
from filter_service.ledger.codec import SALT, Payload


class Event(StrEnum):
    """What can happen: to an item, or to what decides about items."""

    SUBMITTED = "submitted"
    CANCELLED = "cancelled"
    JUDGED = "judged"
    EXPLAINED = "explained"
    FAILED = "failed"  # it became undetermined
    RETRIED = "retried"
    FETCHED = "fetched"
    LOCKED_AWAY = "locked away"  # flagged for a class that is sealed
    SEALED_READ = "sealed read"  # somebody looked at what is locked away
    OPENED = "opened"  # a case waits for review
    CLAIMED = "claimed"
    RELEASED = "released"
    HANDED_OVER = "handed over"
    REVEALED = "revealed"  # somebody saw the image unblurred
    LABELLED = "labelled"  # somebody said what images show, from outside
    DECIDED = "decided"
    UNDONE = "undone"
    SETTLED = "settled"  # a decision took effect
    APPEALED = "appealed"
    APPEAL_CLOSED = "appeal closed"
    REPORTED = "reported"  # somebody says that the picture is forbidden
    REPORT_CLOSED = "report closed"
    STATED = "stated"  # a statement of reasons was issued
    STATEMENT_WITHDRAWN = "statement withdrawn"  # since the restriction was lifted
    LISTED = "listed"
    UNLISTED = "unlisted"
    LIST_DECIDED = "list decided"
    RULE_ADDED = "rule added"
    RULE_REMOVED = "rule removed"
    POLICY_PROPOSED = "policy proposed"  # to be activated
    POLICY_WITHDRAWN = "policy withdrawn"
    POLICY_ACTIVATED = "policy activated"
    SHADOW_STARTED = "shadow started"  # a version looks on from now on, without effect
    SHADOW_ENDED = "shadow ended"
    DRIFT_ACCEPTED = "drift accepted"  # what comes now is what margins are compared with
    REEVALUATED = "re-evaluated"  # judged again, as another item, under another policy
    REOPENED = "reopened"  # put before a person again, for another policy
    RETENTION_ADDED = "retention added"
    RETENTION_REMOVED = "retention removed"
    HELD = "held"  # nothing of it may be deleted
    HOLD_RELEASED = "hold released"
    EXPIRED = "expired"  # part of it was deleted when its time was over
    ERASED = "erased"
    SIGNED_IN = "signed in"
    PERSON_ADDED = "person added"
    PERSON_CHANGED = "person changed"
    CLIENT_ADDED = "client added"
    KEY_ADDED = "key added"
    KEY_REVOKED = "key revoked"
    WEBHOOK_ADDED = "webhook added"
    WEBHOOK_REMOVED = "webhook removed"
    REDELIVERED = "redelivered"
    SEARCHED = "searched"
    EXPORTED = "exported"
    RECORD_READ = "record read"  # an auditor opened the decision record
    REPLAYED = "replayed"
    SIGNER_ADDED = "signer added"  # a key that signs checkpoints from now on


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, and who did it: a person, or the part of the service."""

    event: Event
    actor: str
    item_id: int | None = None
    batch_id: uuid.UUID | None = None
    details: dict[str, Any] = field(default_factory=dict)


_APPEND = text("""
    WITH new AS MATERIALIZED (
        SELECT nextval('ledger_id_seq') AS id, given.*
        FROM unnest(
            :events ::varchar[], :items ::bigint[], :batches ::uuid[],
            :commitments ::bytea[], :salts ::bytea[], :actors ::varchar[], :details ::varchar[]
        ) AS given (event, item_id, batch_id, commitment, salt, actor, details)
    ), entries AS (
        INSERT INTO ledger (id, event, item_id, batch_id, commitment)
        OVERRIDING SYSTEM VALUE
        SELECT id, event, item_id, batch_id, commitment FROM new
    ), waiting AS (
        INSERT INTO ledger_unsealed (entry_id) SELECT id FROM new
    )
    INSERT INTO ledger_payloads (entry_id, salt, actor, details)
    SELECT id, salt, actor, details::json FROM new
""")


def append(session: Session, entries: Iterable[Entry]) -> None:
    """Add entries in the caller's transaction, so that they stand exactly if it happened."""
    given = list(entries)
    if not given:
        return
    payloads = [Payload.of(e.actor, e.details, token_bytes(SALT)) for e in given]
    session.execute(
        _APPEND,
        {
            "events": [e.event.value for e in given],
            "items": column([e.item_id for e in given]),
            "batches": [e.batch_id for e in given],
            "commitments": [p.commitment for p in payloads],
            "salts": [p.salt for p in payloads],
            "actors": [p.actor for p in payloads],
            "details": [p.details for p in payloads],
        },
    )


def of_item(session: Session, item_id: int) -> list[LedgerEntry]:
    """Everything that happened to one item, oldest first."""
    entries = select(LedgerEntry).where(LedgerEntry.item_id == item_id).order_by(LedgerEntry.id)
    return list(session.scalars(entries))
