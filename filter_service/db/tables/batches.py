"""Tables of batches, items, the queue, idempotency keys and pending fetches."""

import uuid
from datetime import date, datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Digest, Table, big_id, now, of_client, short
from filter_service.verdicts import Verdict


class Batch(Table):
    """What a platform submitted in one go."""

    __tablename__ = "batches"
    __table_args__ = (
        Index("batches_in_order", "submitted_at", "id"),
        Index("batches_of_client", "client_id", "submitted_at", "id"),
        Index(
            "one_batch_of_activation",
            "activation_id",
            "client_id",
            unique=True,
            postgresql_where=text("activation_id IS NOT NULL"),
        ),
        Index(
            "batches_to_announce",
            "submitted_at",
            "id",
            postgresql_where=text("announced_at IS NULL"),
        ),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"))
    label: Mapped[str]
    priority: Mapped[short]
    submitted_at: Mapped[now]
    cancelled_at: Mapped[datetime | None]
    total: Mapped[int | None] = mapped_column(comment="Items; null while they still arrive.")
    announced_at: Mapped[datetime | None] = mapped_column(comment="Its end was told to webhooks.")
    client_id: Mapped[of_client]
    activation_id: Mapped[int | None] = mapped_column(
        comment="For which its items are judged anew; those refer to batches themselves."
    )


class Item(Table):
    """One submission of one image; without a verdict it is queued, or its batch was cancelled."""

    __tablename__ = "items"
    __table_args__ = (
        Index("items_of_batch", "batch_id", "id"),
        Index("items_of_verdict", "batch_id", "verdict", "id"),
        Index("items_not_clear", "verdict", "id", postgresql_where=text("verdict <> 'clear'")),
        Index("items_of_image", "image_id"),
        Index("items_of_client", "client_id", "image_id"),
        # For sums over a period: next to no space, and nothing to do when a verdict is written.
        Index("items_judged", "judged_at", postgresql_using="brin"),
        Index(
            "items_failed_of_client",
            "client_id",
            "id",
            postgresql_where=text("verdict = 'undetermined'"),
        ),
        Index(
            "items_that_supersede", "supersedes", postgresql_where=text("supersedes IS NOT NULL")
        ),
    )
    id: Mapped[big_id]
    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batches.id"))
    image_id: Mapped[int | None] = mapped_column(
        ForeignKey("images.id"), comment="Null for a file that could not be read."
    )
    source: Mapped[str] = mapped_column(comment="The file's name as submitted.")
    verdict: Mapped[Verdict | None]
    reason: Mapped[str | None] = mapped_column(comment="Why undetermined.")
    judged_at: Mapped[datetime | None]
    encoder_id: Mapped[int | None] = mapped_column(ForeignKey("encoders.id"))
    class_id: Mapped[int | None] = mapped_column(
        ForeignKey("policy_classes.id"), comment="Of the worst score, with margin and probability."
    )
    margin: Mapped[float | None]
    probability: Mapped[float | None]
    list_entry_id: Mapped[int | None] = mapped_column(
        ForeignKey("list_entries.id"), comment="The list that decided, against the model or not."
    )
    supersedes: Mapped[int | None] = mapped_column(
        ForeignKey("items.id"), comment="The item that was judged anew, under another policy."
    )
    content_date: Mapped[date | None] = mapped_column(comment="When its user put it up.")
    seen_pixels: Mapped[float | None] = mapped_column(
        comment="Share of each frame that the model saw; null: unknown."
    )
    seen_time: Mapped[float | None] = mapped_column(
        comment="Share of its time on the screen; null: unknown."
    )
    client_id: Mapped[int] = mapped_column(server_default="1", comment="Its batch's.")
    fully_automated: Mapped[bool] = mapped_column(
        server_default="false", comment="Its flag acted by itself, before any person looked."
    )


class ItemAttribute(Table):
    """What a platform said of an item beside its image, such as where it comes from."""

    __tablename__ = "item_attributes"
    __table_args__ = (Index("attributes_by_name", "name", "item_id"),)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class QueueEntry(Table):
    """An item that waits or is being judged; the row goes when the verdict is recorded."""

    __tablename__ = "queue"
    __table_args__ = (
        # No column that a claim or a heartbeat changes is indexed, so that both stay in the page.
        Index("queue_order", text("priority DESC"), "item_id"),
        {
            "postgresql_with": {
                "fillfactor": 70,
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 1000,
            }
        },
    )
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    priority: Mapped[short]
    queued_at: Mapped[now]
    attempts: Mapped[short] = mapped_column(server_default="0", comment="Claims so far.")
    leased_until: Mapped[datetime] = mapped_column(
        server_default="-infinity", comment="Free from then on."
    )
    worker: Mapped[uuid.UUID | None] = mapped_column(comment="Who holds the lease.")
    problem: Mapped[str | None] = mapped_column(comment="Why the last attempt was put off.")


class IdempotencyKey(Table):
    """A request that began a batch, so that asking again finds it."""

    __tablename__ = "idempotency_keys"
    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str] = mapped_column(Digest, comment="Of what was asked.")
    batch_id: Mapped[uuid.UUID] = mapped_column(comment="Without a total while it is accepted.")
    created_at: Mapped[now]


class Fetch(Table):
    """The bytes of an item that are still to be fetched; the row goes when they are kept."""

    __tablename__ = "fetches"
    __table_args__ = (Index("fetches_due", "due_at"),)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    uri: Mapped[str]
    attempts: Mapped[short] = mapped_column(server_default="0")
    due_at: Mapped[now | None] = mapped_column(comment="Free from then on; null: given up.")
    problem: Mapped[str | None] = mapped_column(comment="Why the last attempt was put off.")
