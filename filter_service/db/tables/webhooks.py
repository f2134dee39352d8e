"""Tables of webhook endpoints, outbox events, deliveries and attempts."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, VARCHAR, BigInteger, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Table, big_id, now, small_id


class WebhookEndpoint(Table):
    """A webhook endpoint of a platform."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("endpoints_of_client", "client_id", "id"),)
    id: Mapped[small_id]
    url: Mapped[str]
    secret: Mapped[str] = mapped_column(comment="whsec_…; signing needs it as it is.")
    events: Mapped[list[str] | None] = mapped_column(ARRAY(VARCHAR), comment="Null: all.")
    created_by: Mapped[str]
    created_at: Mapped[now]
    failing_since: Mapped[datetime | None] = mapped_column(
        comment="No delivery has succeeded since then."
    )
    disabled_at: Mapped[datetime | None] = mapped_column(comment="It answered 410 Gone.")
    removed_at: Mapped[datetime | None]
    client_id: Mapped[int | None] = mapped_column(
        ForeignKey("clients.id"), comment="Null: the operator's, which is told of every client."
    )


class OutboxEvent(Table):
    """Something to tell the platforms, written in the transaction in which it happened."""

    __tablename__ = "outbox"
    __table_args__ = (Index("outbox_of_item", "item_id", "id"),)
    id: Mapped[big_id]
    message_id: Mapped[uuid.UUID] = mapped_column(unique=True, comment="webhook-id.")
    type: Mapped[str]
    subject: Mapped[str] = mapped_column(comment="Events of one subject are sent in order.")
    item_id: Mapped[int | None] = mapped_column(BigInteger)
    batch_id: Mapped[uuid.UUID | None]
    payload: Mapped[dict[str, Any]]
    at: Mapped[now]


class Delivery(Table):
    """One event on its way to one endpoint."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index(
            "deliveries_due",
            "endpoint_id",
            "due_at",
            postgresql_where=text("delivered_at IS NULL AND given_up_at IS NULL"),
        ),
        Index(
            "deliveries_in_vain",
            "endpoint_id",
            "event_id",
            postgresql_where=text("delivered_at IS NULL"),
        ),
        Index(
            "deliveries_of_subject",
            "endpoint_id",
            "subject",
            "event_id",
            postgresql_where=text("delivered_at IS NULL AND given_up_at IS NULL"),
        ),
    )
    endpoint_id: Mapped[int] = mapped_column(ForeignKey("webhook_endpoints.id"), primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("outbox.id"), primary_key=True)
    subject: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[now] = mapped_column(comment="Free from then on.")
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]


class DeliveryAttempt(Table):
    """One try at a delivery, for the log that people read."""

    __tablename__ = "delivery_attempts"
    __table_args__ = (Index("attempts_of_event", "event_id", "endpoint_id", "id"),)
    id: Mapped[big_id]
    endpoint_id: Mapped[int] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_id: Mapped[int] = mapped_column(ForeignKey("outbox.id"))
    at: Mapped[now]
    status: Mapped[int | None] = mapped_column(comment="HTTP status; null: no answer.")
    problem: Mapped[str | None]
    seconds: Mapped[float]
