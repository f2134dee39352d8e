"""Tables of labels, and of what is estimated from them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Table, now


class StoredLabel(Table):
    """The truth about one image and one class, whatever encoder looks at it."""

    __tablename__ = "labels"
    __table_args__ = (
        Index("labels_of_class", "class_name", text("at DESC"), text("image_id DESC")),
        Index("labels_of_item", "item_id", postgresql_where=text("item_id IS NOT NULL")),
    )
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    truth: Mapped[bool] = mapped_column(comment="The image shows it.")
    source: Mapped[str] = mapped_column(comment="flag, sample, appeal or upload.")
    chance: Mapped[float | None] = mapped_column(
        comment="With which it came to be known; null: unknown, or not by the margin."
    )
    item_id: Mapped[int | None] = mapped_column(
        ForeignKey("items.id"), comment="That was decided; null: uploaded."
    )
    review_id: Mapped[int | None] = mapped_column(BigInteger, comment="The decision that stands.")
    at: Mapped[now]


class StoredEstimate(Table):
    """How right one class of a version is in one encoder, as it was estimated last."""

    __tablename__ = "class_estimates"
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"), primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    labels: Mapped[int] = mapped_column(comment="With a known chance, that it rests on.")
    estimates: Mapped[dict[str, Any]] = mapped_column(comment="precision, recall, prevalence.")
    agreement: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True),
        comment="Of probabilities with the truth: Brier score, log loss, calibration error, bins.",
    )
    calibrated: Mapped[bool] = mapped_column(comment="The version has a calibration of the class.")
    newest: Mapped[datetime] = mapped_column(comment="The newest label that it rests on.")
    at: Mapped[now]
