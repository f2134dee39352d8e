"""Tables of cases, reviews, appeals, review rules, hash lists and restricted items."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Computed, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import BIT
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Digest, Float32s, Table, big_id, now, short, small_id
from filter_service.verdicts import FloatArray


class ReviewCase(Table):
    """An item that waits for somebody's decision; the row goes when the decision is final."""

    __tablename__ = "review_cases"
    __table_args__ = (
        # No column that a heartbeat changes is indexed, so that it stays in the page.
        Index("cases_in_order", text("urgency DESC"), text("margin DESC"), "item_id"),
        Index(
            "cases_of_class",
            "class_name",
            text("urgency DESC"),
            text("margin DESC"),
            "item_id",
        ),
        Index("cases_of_batch", "batch_id", text("urgency DESC"), text("margin DESC"), "item_id"),
        Index(
            "cases_of_policy",
            "policy_id",
            text("urgency DESC"),
            text("margin DESC"),
            "item_id",
        ),
        Index("cases_of_client", "client_id", text("urgency DESC"), text("margin DESC"), "item_id"),
        Index("cases_of_stage", "stage", text("urgency DESC"), text("margin DESC"), "item_id"),
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
    sampled: Mapped[bool] = mapped_column(
        comment="A clear item, drawn to see what is missed, or reported."
    )
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
    chance: Mapped[float | None] = mapped_column(
        comment="With which it came to be reviewed, when it was drawn; null: not by a draw."
    )
    class_chances: Mapped[dict[str, Any] | None] = mapped_column(
        comment="The same by class that it was drawn for."
    )
    evenly: Mapped[bool] = mapped_column(
        server_default="true", comment="Drawn, or one of all, whatever its margin."
    )
    reported: Mapped[short] = mapped_column(
        server_default="0",
        comment="0 not, 1 by a user or a moderator, 2 by a trusted flagger or an authority.",
    )
    urgency: Mapped[short] = mapped_column(
        Computed(
            "2 * severity + CASE WHEN reported > 1 THEN 100 WHEN reported > 0 THEN 1 ELSE 0 END",
            persisted=True,
        ),
        comment="Severity, and who reported it.",
    )


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
    chance: Mapped[float | None] = mapped_column(comment="Its case's.")
    evenly: Mapped[bool] = mapped_column(server_default="true", comment="Its case's.")


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


class Report(Table):
    """Somebody says that a picture is forbidden; a decision about it answers."""

    __tablename__ = "reports"
    __table_args__ = (
        Index("reports_of_item", "item_id"),
        Index("reports_open", "item_id", postgresql_where=text("closed_at IS NULL")),
        Index("reports_by_whom", "reported_by", "reported_at"),
        Index(
            "one_report_each",
            "item_id",
            "reference",
            unique=True,
            postgresql_where=text("reference IS NOT NULL"),
        ),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    source: Mapped[str] = mapped_column(comment="user, trusted_flagger, authority or own.")
    reason: Mapped[str]
    class_name: Mapped[str | None] = mapped_column(
        comment="That it is said to show; null: not said."
    )
    reference: Mapped[str | None] = mapped_column(
        comment="Of whoever reported it: the same about an item is the same report."
    )
    reported_by: Mapped[str]
    reported_at: Mapped[now]
    closed_at: Mapped[datetime | None]
    final: Mapped[str | None] = mapped_column(
        comment="flagged or clear, as it stands then; null: open, or erased."
    )
    review_id: Mapped[int | None] = mapped_column(
        ForeignKey("reviews.id"),
        comment="The decision that answered it; null: none, or it stood before.",
    )


class ReviewRule(Table):
    """When a second look is asked for, or what waits for nobody is drawn for review."""

    __tablename__ = "review_rules"
    id: Mapped[small_id]
    kind: Mapped[str] = mapped_column(comment="second_look, clear_sample or certain_sample.")
    class_name: Mapped[str | None] = mapped_column(comment="Null: every class.")
    margin_below: Mapped[float | None] = mapped_column(
        comment="Only so many logits from the threshold; null: any."
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


class Restriction(Table):
    """An item of a restricted class, kept for the time its policy says."""

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
