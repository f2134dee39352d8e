"""The log of webhook deliveries: events, attempts and redelivery."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Delivery, DeliveryAttempt, OutboxEvent
from filter_service.errors import UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.webhooks.endpoints import endpoint_row

ATTEMPTS = 50  # shown of one delivery, the last ones


class DeliveryState(StrEnum):
    """How far a delivery has come."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class AttemptSummary:
    """One try at a delivery."""

    at: datetime
    status: int | None  # None: no answer
    problem: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class DeliveryEntry:
    """One event on its way to an endpoint, or there."""

    event_id: int
    message_id: uuid.UUID  # webhook-id
    type: str
    subject: str
    payload: dict[str, Any]
    at: datetime  # when it happened
    state: DeliveryState
    due_at: datetime | None  # the next attempt, while it waits
    attempts: tuple[AttemptSummary, ...]  # the newest first


@dataclass(frozen=True, slots=True)
class DeliveryLogPage:
    """Some deliveries; `next` is the `before` of those that follow, None at the end."""

    deliveries: tuple[DeliveryEntry, ...]
    next: int | None


def deliveries(
    sessions: Sessions,
    endpoint_id: int,
    before: int | None = None,
    limit: int = 50,
    state: DeliveryState | None = None,
    scope: Scope = OPERATOR,
) -> DeliveryLogPage:
    """What was sent to an endpoint or waits, the newest first. Raises UnknownEntry."""
    query = _page(endpoint_id, before, limit, state)
    with sessions.begin() as session:
        endpoint_row(session, endpoint_id, scope)
        rows = session.execute(query).all()
        attempts: dict[int, list[AttemptSummary]] = {}
        tries = (
            select(DeliveryAttempt)
            .where(
                DeliveryAttempt.endpoint_id == endpoint_id,
                DeliveryAttempt.event_id.in_([event.id for _, event in rows]),
            )
            .order_by(DeliveryAttempt.event_id, DeliveryAttempt.id.desc())
        )
        for t in session.scalars(tries):
            tried = attempts.setdefault(t.event_id, [])
            if len(tried) < ATTEMPTS:
                tried.append(AttemptSummary(t.at, t.status, t.problem, t.seconds))
    page = tuple(_delivered(d, event, attempts.get(event.id, [])) for d, event in rows[:limit])
    return DeliveryLogPage(page, page[-1].event_id if len(rows) > limit else None)


def deliveries_waiting(session: Session, most: int) -> int:
    """How many are not made yet, of all endpoints; counted up to `most`."""
    waiting = Delivery.delivered_at.is_(None) & Delivery.given_up_at.is_(None)
    some = select(Delivery.event_id).where(waiting).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def redeliver(
    sessions: Sessions,
    endpoint_id: int,
    message_id: uuid.UUID,
    actor: str,
    scope: Scope = OPERATOR,
) -> None:
    """Send an event once more, whatever became of it, under its old id. Raises UnknownEntry."""
    with sessions.begin() as session:
        endpoint_row(session, endpoint_id, scope)
        again = (
            update(Delivery)
            .where(
                Delivery.endpoint_id == endpoint_id,
                Delivery.event_id == OutboxEvent.id,
                OutboxEvent.message_id == message_id,
            )
            .values(attempts=0, due_at=func.now(), delivered_at=None, given_up_at=None)
            .returning(OutboxEvent.item_id, OutboxEvent.batch_id)
        )
        row = session.execute(again).one_or_none()
        if row is None:
            raise UnknownEntry(
                f"Nothing with the webhook-id {message_id} was ever for webhook {endpoint_id}: "
                "take an id from its deliveries."
            )
        details = {"webhook": endpoint_id, "message": str(message_id)}
        ledger.append(session, [Entry(Event.REDELIVERED, actor, *row, details)])


def _page(
    endpoint_id: int, before: int | None, limit: int, state: DeliveryState | None
) -> Select[Delivery, OutboxEvent]:
    """One row more than asked for, by which to see that more follow."""
    query = (
        select(Delivery, OutboxEvent)
        .join(OutboxEvent, OutboxEvent.id == Delivery.event_id)
        .where(Delivery.endpoint_id == endpoint_id)
        .order_by(Delivery.event_id.desc())
        .limit(limit + 1)
    )
    if before is not None:
        query = query.where(Delivery.event_id < before)
    match state:
        case DeliveryState.DELIVERED:
            query = query.where(Delivery.delivered_at.is_not(None))
        case DeliveryState.GIVEN_UP:
            query = query.where(Delivery.delivered_at.is_(None), Delivery.given_up_at.is_not(None))
        case DeliveryState.WAITING:
            query = query.where(Delivery.delivered_at.is_(None), Delivery.given_up_at.is_(None))
    return query


def _delivered(row: Delivery, event: OutboxEvent, attempts: list[AttemptSummary]) -> DeliveryEntry:
    state = DeliveryState.WAITING
    if row.delivered_at is not None:
        state = DeliveryState.DELIVERED
    elif row.given_up_at is not None:
        state = DeliveryState.GIVEN_UP
    return DeliveryEntry(
        event.id,
        event.message_id,
        event.type,
        event.subject,
        event.payload,
        event.at,
        state,
        row.due_at if state is DeliveryState.WAITING else None,
        tuple(attempts),
    )
