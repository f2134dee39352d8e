"""Tables of encoders, vectors, scores, the phrase bank and screening checks."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Float16s, Float32s, Table, now, sha256, small_id
from filter_service.verdicts import FloatArray


class StoredEncoder(Table):
    """An encoder that has judged here; the function register_encoder makes its partitions."""

    __tablename__ = "encoders"
    id: Mapped[small_id]
    fingerprint: Mapped[sha256]
    name: Mapped[str]
    dim: Mapped[int]
    details: Mapped[dict[str, Any]]
    created_at: Mapped[now]


class StoredCheck(Table):
    """What the running check of an encoder's fast pass has seen, in all workers together."""

    __tablename__ = "screening_checks"
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    pairs: Mapped[int] = mapped_column(
        BigInteger, server_default="0", comment="Images of which both passes were compared."
    )
    outside: Mapped[int] = mapped_column(
        BigInteger,
        server_default="0",
        comment="Of these, with a margin outside the band as it was then.",
    )
    total: Mapped[float] = mapped_column(
        server_default="0", comment="Of their largest deviations, in measured bands."
    )
    furthest: Mapped[float] = mapped_column(
        server_default="0", comment="The largest of all, in measured bands."
    )
    alarms: Mapped[int] = mapped_column(BigInteger, server_default="0")
    widening: Mapped[float] = mapped_column(
        server_default="1", comment="Times the measured band, since the last alarm."
    )
    alarmed_at: Mapped[datetime | None]


class Embedding(Table):
    """The vector of one view; partitioned by encoder."""

    __tablename__ = "embeddings"
    __table_args__ = {"postgresql_partition_by": "LIST (encoder_id)"}  # noqa: RUF012
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    frame: Mapped[int] = mapped_column(primary_key=True)
    view: Mapped[str] = mapped_column(
        primary_key=True,
        server_default="",
        comment="Of the frame; empty: as the model takes it.",
    )
    vector: Mapped[FloatArray] = mapped_column(Float16s)
    exact_vector: Mapped[FloatArray | None] = mapped_column(
        Float32s, comment="Where it was computed in float32; else the other came from less."
    )


class StoredScore(Table):
    """An image's margin for one class, shared by all its items; partitioned by encoder.

    No foreign keys: a policy of fifteen classes writes fifteen of these for every image.
    """

    __tablename__ = "scores"
    __table_args__ = (
        Index(
            "scores_by_margin",
            "encoder_id",
            "class_id",
            "margin",
            postgresql_include=["image_id", "frame", "view"],
        ),
        {"postgresql_partition_by": "LIST (encoder_id)"},
    )
    encoder_id: Mapped[int] = mapped_column(primary_key=True)
    class_id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    margin: Mapped[float]
    frame: Mapped[int]
    view: Mapped[str] = mapped_column(
        server_default="", comment="Of the frame; empty: as the model takes it."
    )
    exact: Mapped[bool]


class StoredPhrase(Table):
    """A wording of the phrase bank in one encoder's space."""

    __tablename__ = "phrases"
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    text: Mapped[str] = mapped_column(primary_key=True)
    vector: Mapped[FloatArray] = mapped_column(Float32s)
