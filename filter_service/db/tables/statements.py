"""Tables of issued statements of reasons, and of items whose statement is due."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Table, exact_json, now


class StoredStatement(Table):
    """A statement of reasons as it was issued for one decision."""

    __tablename__ = "statements"
    __table_args__ = (
        Index("statements_in_order", "issued_at", "puid"),
        Index(
            "statements_to_export",
            "issued_at",
            "puid",
            postgresql_where=text("exported_at IS NULL"),
        ),
        Index("statements_of_item", "item_id"),
        Index(
            "one_standing_statement",
            "item_id",
            unique=True,
            postgresql_where=text("withdrawn_at IS NULL"),
        ),
    )
    puid: Mapped[uuid.UUID] = mapped_column(primary_key=True, comment="Of the decision.")
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    review_id: Mapped[int | None] = mapped_column(
        ForeignKey("reviews.id"), comment="Null: no person decided."
    )
    language: Mapped[str] = mapped_column(comment="Of the notice, one after another: en,de.")
    issued_at: Mapped[now]
    document: Mapped[exact_json]
    notice: Mapped[str] = mapped_column(comment="For the user who is affected, with redress.")
    exported_at: Mapped[datetime | None] = mapped_column(comment="Written for the database's.")
    withdrawn_at: Mapped[datetime | None] = mapped_column(comment="The restriction was lifted.")


class StatementDue(Table):
    """An item whose decision may need a statement, or may end one; the row goes when it is done."""

    __tablename__ = "statements_due"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    problem: Mapped[str | None] = mapped_column(comment="Why none could be issued; it waits.")
