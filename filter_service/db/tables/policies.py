"""Tables of policies, their classes, versions and activations."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Table, now, sha256, short, small_id


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


class PolicyShadow(Table):
    """A version that runs beside the one that judges, on live traffic and without effect."""

    __tablename__ = "policy_shadows"
    __table_args__ = (
        Index("one_shadow_of_name", "name", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("shadows_of_version", "policy_id", "id"),
    )
    id: Mapped[small_id]
    policy_id: Mapped[int] = mapped_column(ForeignKey("policies.id"))
    name: Mapped[str] = mapped_column(comment="Of the policy.")
    started_by: Mapped[str]
    started_at: Mapped[now]
    ended_by: Mapped[str | None]
    ended_at: Mapped[datetime | None]
    reached: Mapped[int] = mapped_column(BigInteger, comment="The last item that was seen to.")
    seen: Mapped[int] = mapped_column(BigInteger, server_default="0", comment="Items compared.")
    left_alone: Mapped[int] = mapped_column(
        BigInteger, server_default="0", comment="Items of another encoder, or without vectors."
    )
    unsure: Mapped[int] = mapped_column(
        BigInteger, server_default="0", comment="Compared so near that judging encodes them again."
    )


class ShadowFlag(Table):
    """An item that a shadow, or the version that judged, flags for a class."""

    __tablename__ = "shadow_flags"
    __table_args__ = (Index("shadow_flags_of_item", "item_id"),)
    shadow_id: Mapped[int] = mapped_column(ForeignKey("policy_shadows.id"), primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    by_shadow: Mapped[bool]
    by_judge: Mapped[bool] = mapped_column(comment="By the version that judged the item.")
