"""Tables of retention rules, legal holds and erasures."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, VARCHAR, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Digest, Table, now, small_id


class RetentionRule(Table):
    """How long something is kept of items of one class and outcome."""

    __tablename__ = "retention_rules"
    id: Mapped[small_id]
    class_name: Mapped[str | None] = mapped_column(comment="Null: every class.")
    outcome: Mapped[str | None] = mapped_column(
        comment="clear, flagged, undetermined, confirmed or overturned; null: any."
    )
    parts: Mapped[list[str]] = mapped_column(
        ARRAY(VARCHAR), comment="bytes, embeddings, explanations."
    )
    days: Mapped[int] = mapped_column(comment="After the last thing that happened to the item.")
    created_by: Mapped[str]
    created_at: Mapped[now]
    removed_at: Mapped[datetime | None]


class LegalHold(Table):
    """Nothing of this item's image may be deleted until the hold is released."""

    __tablename__ = "legal_holds"
    __table_args__ = (
        Index(
            "one_hold_of_item",
            "item_id",
            unique=True,
            postgresql_where=text("released_at IS NULL"),
        ),
    )
    id: Mapped[small_id]
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    reason: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[now]
    released_by: Mapped[str | None]
    released_at: Mapped[datetime | None]


class Erasure(Table):
    """A request to forget an image: what is left of it to do, and the receipt."""

    __tablename__ = "erasures"
    __table_args__ = (
        Index("erasures_of_item", "item_id"),
        Index("erasures_of_image", "image_id"),
        Index("erasures_in_order", "requested_at", "id"),
        Index("erasures_to_do", "id", postgresql_where=text("done_at IS NULL")),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    image_id: Mapped[int | None] = mapped_column(
        ForeignKey("images.id"), comment="Null: the item never had one."
    )
    digest: Mapped[str | None] = mapped_column(
        Digest, comment="Until the storage has forgotten it too."
    )
    reason: Mapped[str]
    requested_by: Mapped[str]
    requested_at: Mapped[now]
    done_at: Mapped[datetime | None]
    receipt: Mapped[dict[str, Any] | None]
