"""The outbox: webhook events, written in the transaction in which they happened."""

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Delivery, Item, OutboxEvent, WebhookEndpoint
from filter_service.db.unjudged import UnjudgedReason, unjudged, waits
from filter_service.errors import Conflict
from filter_service.verdicts import Verdict
from filter_service.webhooks.endpoints import ON_REQUEST, EventType, endpoint_row

PING = "webhook.ping"  # a test, which is sent to one endpoint because somebody asked for it
AT_ONCE = 100  # batches announced in one go

# One statement, which writes nothing where nobody wants the type. A new event is due no sooner than
# those of its subject that it has to wait for, so that nobody looks at it in vain.
_ANNOUNCE = text("""
    WITH wanting AS (
        SELECT id FROM webhook_endpoints
        WHERE disabled_at IS NULL AND removed_at IS NULL
            AND (:type = ANY(events) OR events IS NULL AND NOT :on_request)
            AND (client_id IS NULL
                 OR client_id = (SELECT client_id FROM batches WHERE id = :batch_id))
    ), event AS (
        INSERT INTO outbox (message_id, type, subject, item_id, batch_id, payload)
        SELECT :message_id, :type, :subject, :item_id, :batch_id, :payload
        WHERE EXISTS (SELECT FROM wanting)
        RETURNING id
    )
    INSERT INTO deliveries (endpoint_id, event_id, subject, due_at)
    SELECT wanting.id, event.id, :subject, greatest(now(), (
        SELECT max(due_at) FROM deliveries AS earlier
        WHERE earlier.endpoint_id = wanting.id AND earlier.subject = :subject
            AND earlier.delivered_at IS NULL AND earlier.given_up_at IS NULL
    ))
    FROM wanting, event
""").bindparams(
    bindparam("type", type_=WebhookEndpoint.url.type),
    bindparam("subject", type_=OutboxEvent.subject.type),
    bindparam("message_id", type_=OutboxEvent.message_id.type),
    bindparam("item_id", type_=OutboxEvent.item_id.type),
    bindparam("batch_id", type_=OutboxEvent.batch_id.type),
    bindparam("payload", type_=JSONB()),
)


def announce(
    session: Session,
    type: EventType,
    subject: str,
    payload: Mapping[str, Any],
    item_id: int | None = None,
    batch_id: uuid.UUID | None = None,
) -> None:
    """Tell every endpoint of the batch's client, and of the operator, that wants this type.

    It is told if the caller's transaction is committed.

    Events of one subject reach an endpoint in the order in which they were announced.
    """
    session.execute(
        _ANNOUNCE,
        {
            "type": type.value,
            "on_request": type in ON_REQUEST,
            "subject": subject,
            "message_id": uuid.uuid4(),
            "item_id": item_id,
            "batch_id": batch_id,
            "payload": dict(payload),
        },
    )


def is_wanted(session: Session, type: EventType) -> bool:
    """Whether anybody asks for events of a type, by its name."""
    asks = select(WebhookEndpoint.id).where(
        WebhookEndpoint.removed_at.is_(None),
        WebhookEndpoint.disabled_at.is_(None),
        WebhookEndpoint.events.any_() == type.value,
    )
    return session.scalar(asks.limit(1)) is not None


def announce_finished(sessions: Sessions, limit: int = AT_ONCE) -> int:
    """Announce batches of which nothing is left to judge, each exactly once; how many."""
    waiting = select(Item.id).where(Item.batch_id == Batch.id, Item.verdict.is_(None), waits())
    finished = (
        select(Batch)
        .where(
            Batch.announced_at.is_(None),
            Batch.total.is_not(None),
            Batch.cancelled_at.is_not(None) | ~waiting.exists(),
        )
        .order_by(Batch.submitted_at, Batch.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )
    with sessions.begin() as session:
        batches = list(session.scalars(finished))
        for batch in batches:
            data = _summary(session, batch)
            announce(
                session,
                EventType.BATCH_FINISHED,
                f"batch {batch.id}",
                data,
                batch_id=batch.id,
            )
        session.execute(
            update(Batch)
            .where(Batch.id.in_([b.id for b in batches]))
            .values(announced_at=func.now())
        )
    return len(batches)


def ping(sessions: Sessions, endpoint_id: int, actor: str, scope: Scope = OPERATOR) -> uuid.UUID:
    """Send a test event to one endpoint; -> its webhook-id. Raises UnknownEntry or Conflict."""
    with sessions.begin() as session:
        if endpoint_row(session, endpoint_id, scope).disabled_at is not None:
            raise Conflict(
                f"Webhook {endpoint_id} is disabled since its address answered 410 Gone: "
                "have it tried again first."
            )
        event = OutboxEvent(
            message_id=uuid.uuid4(),
            type=PING,
            subject=f"webhook {endpoint_id}",
            payload={"asked_by": actor},
        )
        session.add(event)
        session.flush()
        session.add(Delivery(endpoint_id=endpoint_id, event_id=event.id, subject=event.subject))
    return event.message_id


def _summary(session: Session, batch: Batch) -> dict[str, Any]:
    """How a batch ended."""
    counts = dict(
        session.execute(
            select(Item.verdict, func.count())
            .where(Item.batch_id == batch.id)
            .group_by(Item.verdict)
        ).all()
    )
    erased = select(func.count()).where(
        Item.batch_id == batch.id, Item.verdict.is_(None), unjudged() == UnjudgedReason.ERASED.value
    )
    return {
        "batch": str(batch.id),
        "label": batch.label,
        "total": batch.total,
        "cancelled": batch.cancelled_at is not None,
        **{verdict.value: counts.get(verdict, 0) for verdict in Verdict},
        "erased": session.scalar(erased) or 0,
    }
