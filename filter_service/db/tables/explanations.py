"""The table of stored explanations."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Table, exact_json, now


class StoredExplanation(Table):
    """The record of why one item was flagged for one class; the ledger holds its digest."""

    __tablename__ = "explanations"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("policy_classes.id"), primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    faithful: Mapped[bool]
    record: Mapped[exact_json]
    created_at: Mapped[now]
