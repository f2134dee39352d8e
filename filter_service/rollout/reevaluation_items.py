"""Finds the items that a new version of a policy concerns, and what still arrives."""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, exists, func, select
from sqlalchemy.orm import Session, aliased

from filter_service.db.tables import (
    Activation,
    Batch,
    Fetch,
    Item,
    PolicyVersion,
    QueueEntry,
    ReviewCase,
    ReviewOutcome,
    StoredImage,
)
from filter_service.reviews.settlement import Decision
from filter_service.rollout.activation import Flags
from filter_service.rollout.requeue import Old
from filter_service.verdicts import Verdict

ARRIVING = timedelta(days=1)  # as long as the request that began a batch may be repeated


def first_arriving(session: Session, work: Activation) -> int | None:
    """The first id that belongs to a batch which may still bring items under the version before."""
    first = select(func.min(Item.id)).where(Item.batch_id == Batch.id).scalar_subquery()
    return session.scalar(
        select(func.min(func.coalesce(first, work.reached + 1))).where(
            Batch.policy_id == work.before_id,
            Batch.total.is_(None),
            Batch.cancelled_at.is_(None),
            Batch.submitted_at <= work.activated_at,
            Batch.submitted_at > func.now() - ARRIVING,
        )
    )


def items_before(session: Session, work: Activation, until: int) -> list[Old]:
    """What was submitted under the version before, until it was replaced."""
    later = aliased(Item)
    rows: Select[*tuple[Any, ...]] = (
        select(
            Item.id,
            Item.batch_id,
            Item.client_id,
            Batch.policy_id,
            Item.image_id,
            StoredImage.digest,
            Item.source,
            Item.content_date,
            Item.verdict,
            Item.encoder_id,
            StoredImage.bytes_gone_at.is_not(None),
            exists().where(QueueEntry.item_id == Item.id)
            | exists().where(Fetch.item_id == Item.id, Fetch.due_at.is_not(None)),
            _confirmed(),
            exists().where(later.supersedes == Item.id),
        )
        .join(Batch, Batch.id == Item.batch_id)
        .join(
            StoredImage, StoredImage.id == Item.image_id
        )  # what was never read cannot be compared
        .where(
            Item.id > work.reached,
            Item.id <= until,
            Batch.policy_id == work.before_id,
            ~_own_name(),
            Batch.submitted_at <= work.activated_at,
        )
        .order_by(Item.id)
    )
    return [Old(*row) for row in session.execute(rows)]


def _own_name() -> ColumnElement[bool]:
    """The batch's client means its own by this name, whatever the operator activates."""
    return exists().where(
        PolicyVersion.client_id == Batch.client_id, PolicyVersion.policy_id == Batch.policy_id
    )


def _confirmed() -> ScalarSelect[str]:
    return (
        select(ReviewOutcome.class_name)
        .where(
            ReviewOutcome.item_id == Item.id,
            ReviewOutcome.decision == Decision.CONFIRMED,
            ReviewOutcome.review_id.is_not(None),
            Item.list_entry_id.is_(None),  # what a list decided, the list decides
            ~exists().where(ReviewCase.item_id == ReviewOutcome.item_id),
        )
        .scalar_subquery()
    )


def concerns(item: Old, flags: Flags) -> bool:
    if flags is Flags.REOPEN:
        return item.verdict is Verdict.FLAGGED and item.confirmed is not None
    judged = item.verdict in (Verdict.CLEAR, Verdict.FLAGGED)
    return judged and not item.superseded
