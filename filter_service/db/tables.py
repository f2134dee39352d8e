"""The rows: images, policies, batches, items, their queue, what was measured, and the ledger.

The migrations are what makes these tables; a test keeps the two equal. Comments stand where a name
is not enough.
"""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from pgvector import HalfVector, Vector
from sqlalchemy import (
    BigInteger,
    Dialect,
    Enum,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    TypeDecorator,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import UserDefinedType

from filter_service.verdicts import FloatArray, Verdict


class Digest(TypeDecorator[str]):
    """A SHA-256: hexadecimal in Python, 32 bytes in the database."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes.fromhex(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.hex()


class _Floats(UserDefinedType[FloatArray]):
    """A vector of any dimension that travels in binary: as text, 512 numbers take 1.3 ms."""

    name: str
    wire: str  # numpy type of one number in Postgres' binary form, after a header of 4 bytes
    wrap: Callable[[FloatArray], HalfVector | Vector]

    def get_col_spec(self, **_: object) -> str:
        return self.name

    def bind_processor(self, dialect: Dialect) -> Callable[[FloatArray | None], Any]:
        return lambda value: None if value is None else type(self).wrap(value)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return getattr(func, f"{self.name}_send")(column, type_=self)  # type: ignore[no-any-return]

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[bytes | None], FloatArray | None]:
        return lambda value: None if value is None else self.parse(value)

    @classmethod
    def parse(cls, data: bytes) -> FloatArray:
        """What `vector_send` or `halfvec_send` gave: -> (d,) float32."""
        return np.frombuffer(data, cls.wire, offset=4).astype(np.float32)


class Float16s(_Floats):
    cache_ok = True
    name, wire, wrap = "halfvec", ">f2", HalfVector


class Float32s(_Floats):
    cache_ok = True
    name, wire, wrap = "vector", ">f4", Vector


ischema_names.update(halfvec=Float16s, vector=Float32s)  # alembic compares what it can read back


class Table(DeclarativeBase):
    """The parent of every table."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it as a class attribute)
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        Verdict: Enum(Verdict, name="verdict", values_callable=lambda e: [v.value for v in e]),
        float: DOUBLE_PRECISION,
    }


big_id = Annotated[int, mapped_column(BigInteger, Identity(always=True), primary_key=True)]
small_id = Annotated[int, mapped_column(Identity(always=True), primary_key=True)]
sha256 = Annotated[str, mapped_column(Digest, unique=True)]
now = Annotated[datetime, mapped_column(server_default=func.now())]
short = Annotated[int, mapped_column(SmallInteger)]


class Image(Table):
    """Bytes known by their digest; the storage keeps them."""

    __tablename__ = "images"
    id: Mapped[big_id]
    digest: Mapped[sha256]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[now]


class StoredPolicy(Table):
    """One immutable version of a policy."""

    __tablename__ = "policies"
    id: Mapped[small_id]
    digest: Mapped[sha256]
    name: Mapped[str]
    document: Mapped[dict[str, Any]]
    created_at: Mapped[now]


class PolicyClass(Table):
    """A forbidden class of a stored policy, so that scores need four bytes for it."""

    __tablename__ = "policy_classes"
    __table_args__ = (UniqueConstraint("policy_id", "name"),)
    id: Mapped[small_id]
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"))
    position: Mapped[short]
    name: Mapped[str]


class StoredEncoder(Table):
    """An encoder that has judged here; the function register_encoder makes its partitions."""

    __tablename__ = "encoders"
    id: Mapped[small_id]
    fingerprint: Mapped[sha256]
    name: Mapped[str]
    dim: Mapped[int]
    details: Mapped[dict[str, Any]]
    created_at: Mapped[now]


class Batch(Table):
    """What a platform submitted in one go."""

    __tablename__ = "batches"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"))
    label: Mapped[str]
    priority: Mapped[short]
    submitted_at: Mapped[now]
    cancelled_at: Mapped[datetime | None]
    total: Mapped[int | None] = mapped_column(comment="Items; null while they still arrive.")


class Item(Table):
    """One submission of one image; without a verdict it is queued, or its batch was cancelled."""

    __tablename__ = "items"
    __table_args__ = (
        Index("items_of_batch", "batch_id", "id"),
        Index("items_of_verdict", "batch_id", "verdict", "id"),
        Index("items_not_clear", "verdict", "id", postgresql_where=text("verdict <> 'clear'")),
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


class Queued(Table):
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


class Embedding(Table):
    """The vector of one frame; partitioned by encoder."""

    __tablename__ = "embeddings"
    __table_args__ = {"postgresql_partition_by": "LIST (encoder_id)"}  # noqa: RUF012
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    frame: Mapped[int] = mapped_column(primary_key=True)
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
            postgresql_include=["image_id", "frame"],
        ),
        {"postgresql_partition_by": "LIST (encoder_id)"},
    )
    encoder_id: Mapped[int] = mapped_column(primary_key=True)
    class_id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    margin: Mapped[float]
    frame: Mapped[int]
    exact: Mapped[bool]


class StoredExplanation(Table):
    """The record of why one item was flagged for one class."""

    __tablename__ = "explanations"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("policy_classes.id"), primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    faithful: Mapped[bool]
    record: Mapped[dict[str, Any]]
    created_at: Mapped[now]


class StoredPhrase(Table):
    """A wording of the phrase bank in one encoder's space."""

    __tablename__ = "phrases"
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    text: Mapped[str] = mapped_column(primary_key=True)
    vector: Mapped[FloatArray] = mapped_column(Float32s)


class LedgerEntry(Table):
    """One thing that happened; rows are added and never changed, which triggers enforce."""

    __tablename__ = "ledger"
    __table_args__ = (
        Index("ledger_of_item", "item_id", "id"),
        Index("ledger_of_batch", "batch_id", "id"),
    )
    id: Mapped[big_id]
    at: Mapped[now]
    event: Mapped[str]
    actor: Mapped[str]
    item_id: Mapped[int | None] = mapped_column(BigInteger)
    batch_id: Mapped[uuid.UUID | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
