"""Tables of labels, and of what is estimated from them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Digest, Table, now


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
    source: Mapped[str] = mapped_column(comment="flag, sample, appeal, upload or report.")
    chance: Mapped[float | None] = mapped_column(
        comment="With which it came to be known; null: unknown, or not by the margin."
    )
    item_id: Mapped[int | None] = mapped_column(
        ForeignKey("items.id"), comment="That was decided; null: uploaded."
    )
    review_id: Mapped[int | None] = mapped_column(BigInteger, comment="The decision that stands.")
    at: Mapped[now]


class TrainingLabel(Table):
    """A label as it was when a calibration or a head was fitted on it."""

    __tablename__ = "training_labels"
    __table_args__ = (
        Index("training_of_image", "image_id"),
        Index("training_of_item", "item_id", postgresql_where=text("item_id IS NOT NULL")),
    )
    fit: Mapped[str] = mapped_column(
        Digest, primary_key=True, comment="Digest of the calibration or head, by its policy."
    )
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    item_id: Mapped[int | None] = mapped_column(
        ForeignKey("items.id"), comment="That was decided; null: uploaded."
    )
    truth: Mapped[bool] = mapped_column(comment="The image shows the class.")
    margin: Mapped[float] = mapped_column(comment="Of a head's label, that of the prompts alone.")
    frame: Mapped[int] = mapped_column(comment="Of the view that a head learnt from.")
    view: Mapped[str]


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


class StoredWatch(Table):
    """The test that says when margins and flagged share of a class change, as far as it came."""

    __tablename__ = "drift_watches"
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    class_id: Mapped[int] = mapped_column(
        ForeignKey("policy_classes.id"), primary_key=True, comment="Of one version."
    )
    reference: Mapped[list[float]] = mapped_column(
        ARRAY(DOUBLE_PRECISION), comment="Margins that it compares with; empty: to be drawn anew."
    )
    flagged: Mapped[int] = mapped_column(comment="Of the images before it began.")
    flagged_of: Mapped[int]
    month: Mapped[int] = mapped_column(
        BigInteger, comment="Images in one: for so many the chance of a false alarm is stated."
    )
    reached: Mapped[int] = mapped_column(BigInteger, comment="The last image that was looked at.")
    seen: Mapped[int] = mapped_column(server_default="0", comment="Images looked at.")
    margin_evidence: Mapped[list[float]] = mapped_column(ARRAY(DOUBLE_PRECISION))
    share_evidence: Mapped[list[float]] = mapped_column(ARRAY(DOUBLE_PRECISION))
    calm: Mapped[int] = mapped_column(
        BigInteger, comment="The last image when nothing spoke for a change."
    )
    since_seen: Mapped[int] = mapped_column(server_default="0", comment="Images after it.")
    since_total: Mapped[float] = mapped_column(server_default="0", comment="Of their margins.")
    since_flagged: Mapped[int] = mapped_column(server_default="0")
    started_at: Mapped[now]
    looked_at: Mapped[now]
    alarmed_at: Mapped[datetime | None]
    alarm: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="What moved, since when, by how much."
    )
