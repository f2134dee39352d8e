"""The rows: images, policies, batches, items, what was measured, the ledger, people, reviews.

The migrations are what makes these tables; a test keeps the two equal. Comments stand where a name
is not enough.
"""

import uuid
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any

import numpy as np
from pgvector import HalfVector, Vector
from sqlalchemy import (
    ARRAY,
    VARCHAR,
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
    outerjoin,
    text,
)
from sqlalchemy.dialects.postgresql import BIT, DOUBLE_PRECISION, JSON, JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
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
of_client = Annotated[int, mapped_column(ForeignKey("clients.id"), server_default="1")]
exact_json = Annotated[dict[str, Any], mapped_column(JSON, comment="Text, as it was committed to.")]


class StoredImage(Table):
    """Bytes known by their digest; the storage keeps them."""

    __tablename__ = "images"
    __table_args__ = (
        # Those of which nothing is left are never looked at again.
        Index(
            "images_to_expire",
            "id",
            postgresql_where=text("NOT parts_gone @> '{bytes,embeddings,explanations}'"),
        ),
    )
    id: Mapped[big_id]
    digest: Mapped[str | None] = mapped_column(
        Digest, unique=True, comment="Null: erased, with everything that was computed of it."
    )
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[now]
    bytes_gone_at: Mapped[datetime | None] = mapped_column(
        comment="The storage keeps them no more: erased, or their time was over."
    )
    pdq: Mapped[str | None] = mapped_column(
        BIT(256), comment="Perceptual hash of the first frame; null: not judged, or too plain."
    )
    parts_gone: Mapped[list[str]] = mapped_column(
        ARRAY(VARCHAR),
        server_default=text("'{}'::character varying[]"),
        comment="bytes, embeddings, explanations: looked for and deleted since it was last judged.",
    )
    width: Mapped[int | None] = mapped_column(
        comment="Pixels, upright; null: not judged, or frames of several sizes."
    )
    height: Mapped[int | None] = mapped_column(comment="Likewise.")
    shown_time: Mapped[float | None] = mapped_column(
        comment="Share of its time on the screen that its frames stand for; null: not judged."
    )


class LooseBytes(Table):
    """Bytes in the storage that may be nobody's: still arriving, or to be deleted when due."""

    __tablename__ = "loose_bytes"
    __table_args__ = (Index("loose_of_digest", "digest"), Index("loose_due", "due_at"))
    id: Mapped[big_id]
    digest: Mapped[str] = mapped_column(Digest)
    due_at: Mapped[datetime]


class Client(Table):
    """Whoever submits here with one or more keys, and sees nothing of the others."""

    __tablename__ = "clients"
    id: Mapped[small_id]
    name: Mapped[str] = mapped_column(unique=True)
    created_by: Mapped[str]
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


class PolicyVersion(Table):
    """A version of a policy that somebody may call by its name."""

    __tablename__ = "policy_names"
    __table_args__ = (
        Index(
            "one_policy_of_client",
            "client_id",
            "policy_id",
            unique=True,
            postgresql_where=text("client_id IS NOT NULL"),
        ),
        Index(
            "one_policy_of_operator",
            "policy_id",
            unique=True,
            postgresql_where=text("client_id IS NULL"),
        ),
        Index("policies_of_name", "name", "client_id", "id"),
    )
    id: Mapped[small_id]
    client_id: Mapped[int | None] = mapped_column(
        ForeignKey("clients.id"), comment="Null: the operator's, which all clients may name."
    )
    name: Mapped[str]
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"))
    created_at: Mapped[now]


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


class StoredExplanation(Table):
    """The record of why one item was flagged for one class; the ledger holds its digest."""

    __tablename__ = "explanations"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    class_id: Mapped[int] = mapped_column(ForeignKey("policy_classes.id"), primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    faithful: Mapped[bool]
    record: Mapped[exact_json]
    created_at: Mapped[now]


class StoredPhrase(Table):
    """A wording of the phrase bank in one encoder's space."""

    __tablename__ = "phrases"
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id"), primary_key=True)
    text: Mapped[str] = mapped_column(primary_key=True)
    vector: Mapped[FloatArray] = mapped_column(Float32s)


class LedgerRow(Table):
    """One thing that happened; rows are added and never changed, which triggers enforce."""

    __tablename__ = "ledger"
    __table_args__ = (
        Index("ledger_of_item", "item_id", "id"),
        Index("ledger_of_batch", "batch_id", "id"),
    )
    id: Mapped[big_id]
    at: Mapped[now]
    event: Mapped[str]
    item_id: Mapped[int | None] = mapped_column(BigInteger)
    batch_id: Mapped[uuid.UUID | None]
    commitment: Mapped[str] = mapped_column(Digest, comment="SHA-256 of salt and payload.")


class LedgerPayload(Table):
    """Who did it and what it was about: what may have to be erased stays outside the tree."""

    __tablename__ = "ledger_payloads"
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), primary_key=True)
    salt: Mapped[bytes]
    actor: Mapped[str]
    details: Mapped[exact_json]


class LedgerEntry(Table):
    """An entry with its payload, to be read; actor and details are None once they are erased."""

    __table__ = outerjoin(LedgerRow.__table__, LedgerPayload.__table__)
    id: Mapped[int] = column_property(LedgerRow.__table__.c.id)
    at: Mapped[datetime]
    event: Mapped[str]
    item_id: Mapped[int | None]
    batch_id: Mapped[uuid.UUID | None]
    commitment: Mapped[str]
    actor: Mapped[str]
    details: Mapped[dict[str, Any]]


class UnsealedEntry(Table):
    """An entry that waits for its place in the tree; the row goes when it has one."""

    __tablename__ = "ledger_unsealed"
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), primary_key=True)


class SealedEntry(Table):
    """The place of an entry in the tree: leaves are counted from 0."""

    __tablename__ = "ledger_sealed"
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), unique=True)


class Tile(Table):
    """Up to 256 hashes of one level of the tree, side by side (C2SP tlog-tiles)."""

    __tablename__ = "ledger_tiles"
    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hashes: Mapped[bytes] = mapped_column(comment="32 bytes each; the last tile grows.")


class StoredCheckpoint(Table):
    """A signed statement of what the tree was at one size."""

    __tablename__ = "ledger_checkpoints"
    __table_args__ = (
        Index("checkpoints_to_publish", "size", postgresql_where=text("published_at IS NULL")),
    )
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[str] = mapped_column(Digest)
    note: Mapped[str] = mapped_column(comment="C2SP tlog-checkpoint, signed.")
    at: Mapped[now]
    published_at: Mapped[datetime | None] = mapped_column(comment="Outside the database.")


class StoredSigner(Table):
    """A key that signs checkpoints, by its public part; the newest signs, the others did."""

    __tablename__ = "ledger_signers"
    id: Mapped[small_id]
    vkey: Mapped[str] = mapped_column(unique=True, comment="C2SP signed-note verifier key.")
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), comment="Signer added.")
    added_at: Mapped[now]


class Person(Table):
    """Somebody who works here; passwords are hashed, or an identity provider vouches."""

    __tablename__ = "people"
    id: Mapped[small_id]
    login: Mapped[str] = mapped_column(unique=True, comment="Lower case.")
    name: Mapped[str]
    role: Mapped[str]
    password_hash: Mapped[str | None]
    subject: Mapped[str | None] = mapped_column(
        unique=True, comment="Who this is at the identity provider."
    )
    classes: Mapped[list[str] | None] = mapped_column(
        ARRAY(VARCHAR), comment="Names of the classes this person may see; null: all."
    )
    reveal_cap: Mapped[int | None] = mapped_column(comment="Unblurred images a day; null: any.")
    created_at: Mapped[now]
    disabled_at: Mapped[datetime | None]


class Login(Table):
    """An open session of a browser, known by its token's digest."""

    __tablename__ = "logins"
    digest: Mapped[str] = mapped_column(Digest, primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[now]
    expires_at: Mapped[datetime]


class LoginFailure(Table):
    """A refused log-in, by name and by address, so that guessing can be slowed down."""

    __tablename__ = "login_failures"
    __table_args__ = (Index("login_failures_of_key", "key", "at"),)
    id: Mapped[big_id]
    key: Mapped[str]
    at: Mapped[now]


class ApiKey(Table):
    """A platform's key; only its digest is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        # The ledger calls a platform by its key's name.
        Index("one_key_of_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )
    id: Mapped[small_id]
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(comment="Its first letters, by which people know it.")
    digest: Mapped[sha256]
    created_by: Mapped[str]
    created_at: Mapped[now]
    revoked_at: Mapped[datetime | None]
    client_id: Mapped[of_client]
    all_clients: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="The operator's own: it sees what every client has."
    )


class Reveals(Table):
    """How many images somebody saw unblurred on one day, by class."""

    __tablename__ = "reveals"
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]


class ReviewCase(Table):
    """An item that waits for somebody's decision; the row goes when the decision is final."""

    __tablename__ = "review_cases"
    __table_args__ = (
        # No column that a heartbeat changes is indexed, so that it stays in the page.
        Index("cases_in_order", text("severity DESC"), text("margin DESC"), "item_id"),
        Index(
            "cases_of_class",
            "class_name",
            text("severity DESC"),
            text("margin DESC"),
            "item_id",
        ),
        Index("cases_of_batch", "batch_id", text("severity DESC"), text("margin DESC"), "item_id"),
        Index(
            "cases_of_policy",
            "policy_id",
            text("severity DESC"),
            text("margin DESC"),
            "item_id",
        ),
        Index(
            "cases_of_client", "client_id", text("severity DESC"), text("margin DESC"), "item_id"
        ),
        Index("cases_of_stage", "stage", text("severity DESC"), text("margin DESC"), "item_id"),
        Index("cases_held", "holder", postgresql_where=text("holder IS NOT NULL")),
        Index("cases_by_age", "opened_at", "item_id"),
        Index("cases_of_image", "image_id"),
        {
            "postgresql_with": {
                "fillfactor": 70,
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 1000,
            }
        },
    )
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(comment="first, second, senior or appeal.")
    sampled: Mapped[bool] = mapped_column(comment="A clear item, drawn to see what is missed.")
    severity: Mapped[short] = mapped_column(comment="0 low to 3 critical.")
    margin: Mapped[float] = mapped_column(comment="Logits above the threshold.")
    class_name: Mapped[str]
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"))
    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batches.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    opened_at: Mapped[now]
    holder: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    claimed_at: Mapped[datetime | None]
    leased_until: Mapped[datetime] = mapped_column(
        server_default="-infinity", comment="Free from then on."
    )
    review_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="The decision that takes effect when it can no longer be undone."
    )
    client_id: Mapped[int] = mapped_column(server_default="1", comment="Its item's.")


class Review(Table):
    """What somebody decided about an item; nothing but undoing and taking effect is added later."""

    __tablename__ = "reviews"
    __table_args__ = (
        Index("reviews_of_item", "item_id", "id"),
        Index("reviews_decided", "decided_at", postgresql_using="brin"),
        Index(
            "reviews_to_settle",
            "effective_at",
            postgresql_where=text("settled_at IS NULL AND undone_at IS NULL"),
        ),
        # Nobody decides the same item twice: second looks and appeals are somebody else's.
        Index(
            "one_decision_each",
            "item_id",
            "person_id",
            unique=True,
            postgresql_where=text("undone_at IS NULL AND decision IN ('confirmed', 'overturned')"),
        ),
    )
    id: Mapped[big_id]
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    stage: Mapped[str]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    decision: Mapped[str] = mapped_column(comment="confirmed, overturned, escalated or skipped.")
    reason: Mapped[str | None]
    note: Mapped[str | None]
    group_id: Mapped[uuid.UUID | None] = mapped_column(comment="Decided together with others.")
    seconds: Mapped[float | None] = mapped_column(comment="From the claim to the decision.")
    revealed: Mapped[bool] = mapped_column(comment="This person saw the image unblurred.")
    decided_at: Mapped[now]
    effective_at: Mapped[datetime] = mapped_column(comment="It can be undone until then.")
    undone_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]


class ReviewOutcome(Table):
    """How an item's review ended, as it stands now; what came before is in reviews and ledger."""

    __tablename__ = "review_outcomes"
    __table_args__ = (
        Index("outcomes_of_image", "image_id"),
        Index("outcomes_of_class", "class_name", "at"),
    )
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    class_name: Mapped[str]
    decision: Mapped[str] = mapped_column(comment="confirmed or overturned.")
    sampled: Mapped[bool]
    review_id: Mapped[int | None] = mapped_column(
        ForeignKey("reviews.id"), comment="Null: a list decided."
    )
    at: Mapped[now]


class Appeal(Table):
    """A platform's user disagrees; somebody decides who has not decided the item before."""

    __tablename__ = "appeals"
    __table_args__ = (
        Index(
            "one_open_appeal",
            "item_id",
            unique=True,
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index("appeals_of_item", "item_id"),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    statement: Mapped[str]
    opened_by: Mapped[str]
    opened_at: Mapped[now]
    closed_at: Mapped[datetime | None]
    upheld: Mapped[bool | None] = mapped_column(comment="The flag stands.")
    review_id: Mapped[int | None] = mapped_column(ForeignKey("reviews.id"))


class ReviewRule(Table):
    """When a second look is asked for, or a clear item is drawn for review."""

    __tablename__ = "review_rules"
    id: Mapped[small_id]
    kind: Mapped[str] = mapped_column(comment="second_look or clear_sample.")
    class_name: Mapped[str | None] = mapped_column(comment="Null: every class.")
    margin_below: Mapped[float | None] = mapped_column(
        comment="Only so many logits above the threshold; null: any."
    )
    share: Mapped[float] = mapped_column(comment="Of those, drawn at random.")
    created_by: Mapped[str]
    created_at: Mapped[now]
    removed_at: Mapped[datetime | None]


class ListEntry(Table):
    """An image that is always or never to be flagged, with everything that is like it."""

    __tablename__ = "list_entries"
    __table_args__ = (
        # The last removal is what a worker looks at to see whether the lists have changed.
        Index("entries_removed", "removed_at", postgresql_where=text("removed_at IS NOT NULL")),
    )
    id: Mapped[small_id]
    kind: Mapped[str] = mapped_column(comment="allow or block.")
    class_name: Mapped[str] = mapped_column(comment="That it is listed for.")
    match: Mapped[str] = mapped_column(comment="digest, pdq or radius.")
    image_digest: Mapped[str | None] = mapped_column(Digest)
    pdq: Mapped[str | None] = mapped_column(BIT(256))
    encoder_id: Mapped[int | None] = mapped_column(ForeignKey("encoders.id"))
    vector: Mapped[FloatArray | None] = mapped_column(Float32s)
    within: Mapped[float | None] = mapped_column(comment="Bits of the PDQ, or degrees.")
    reason: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[now]
    removed_at: Mapped[datetime | None]


class Tally(Table):
    """Something counted, as differences that are summed and now and then put together."""

    __tablename__ = "tallies"
    __table_args__ = (Index("tallies_in_order", "kind", "at"),)
    id: Mapped[big_id]
    kind: Mapped[str] = mapped_column(
        comment="judged, flagged, undetermined, confirmed, overturned, sampled:DECISION, "
        "seconds, timed, waiting:STAGE."
    )
    at: Mapped[now]
    class_name: Mapped[str] = mapped_column(server_default="", comment="Empty: of no class.")
    amount: Mapped[float]


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


class WebhookEndpoint(Table):
    """Where a platform wants to be told."""

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


class Activation(Table):
    """A version of a policy that became, or is to become, the one that its name means."""

    __tablename__ = "policy_activations"
    __table_args__ = (
        Index("activations_of_name", "name", "id"),
        Index(
            "one_proposal_of_name",
            "name",
            unique=True,
            postgresql_where=text("activated_at IS NULL AND withdrawn_at IS NULL"),
        ),
        Index("activations_at_work", "id", postgresql_where=text("done_at IS NULL")),
    )
    id: Mapped[small_id]
    name: Mapped[str]
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"))
    before_id: Mapped[int | None] = mapped_column(
        ForeignKey("policies.id"), comment="The version that it takes the place of."
    )
    flags: Mapped[str] = mapped_column(comment="keep, reevaluate or reopen: what becomes of them.")
    reason: Mapped[str]
    proposed_by: Mapped[str]
    proposed_at: Mapped[now]
    activated_by: Mapped[str | None] = mapped_column(comment="Somebody else, with four eyes.")
    activated_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]
    withdrawn_at: Mapped[datetime | None]
    batch_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("batches.id"), comment="Of the items that are judged anew."
    )
    reached: Mapped[int] = mapped_column(
        BigInteger, server_default="0", comment="The last item that was seen to."
    )
    touched: Mapped[int] = mapped_column(server_default="0", comment="Items judged anew, reopened.")
    left_alone: Mapped[int] = mapped_column(
        server_default="0", comment="Items whose vectors or bytes are gone."
    )
    done_at: Mapped[datetime | None]


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


class SealedItem(Table):
    """An item of a class whose images nobody sees: kept for the time its policy says."""

    __tablename__ = "sealed_items"
    __table_args__ = (
        Index("sealed_until", "preserve_until"),
        Index("sealed_of_image", "image_id"),
    )
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    class_name: Mapped[str]
    sealed_at: Mapped[now]
    preserve_until: Mapped[datetime]


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
