"""Determines why an item has no verdict: waiting, erased, cancelled or stranded."""

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import ColumnElement, case, or_, select
from sqlalchemy.orm import Session

from filter_service.db.tables import Batch, Erasure, Fetch, Item, QueueEntry


class UnjudgedReason(StrEnum):
    """Why there is no verdict."""

    WAITING = "waiting"  # queued, being judged or being fetched
    ERASED = "erased"  # before anybody came to judge it
    CANCELLED = "cancelled"  # with its batch
    STRANDED = "stranded"  # none of these: it is nowhere that somebody would find it


SENTENCES = {
    UnjudgedReason.WAITING: "The item waits to be judged.",
    UnjudgedReason.ERASED: "The item was erased before it was judged.",
    UnjudgedReason.CANCELLED: "The item's batch was cancelled before it was judged.",
    UnjudgedReason.STRANDED: "The item is in no queue: submit the image again.",
}


def waits() -> ColumnElement[bool]:
    """An item is queued, being judged or being fetched."""
    queued = select(QueueEntry.item_id).where(QueueEntry.item_id == Item.id)
    fetched = select(Fetch.item_id).where(Fetch.item_id == Item.id, Fetch.due_at.is_not(None))
    return or_(queued.exists(), fetched.exists())


def unjudged() -> ColumnElement[str | None]:
    """Why an item has no verdict; null for one that has."""
    erased = or_(
        select(Erasure.id).where(Erasure.item_id == Item.id).exists(),
        select(Erasure.id).where(Erasure.image_id == Item.image_id).exists(),
    )
    cancelled = select(Batch.id).where(Batch.id == Item.batch_id, Batch.cancelled_at.is_not(None))
    return case(
        (Item.verdict.is_not(None), None),
        (waits(), UnjudgedReason.WAITING.value),
        (erased, UnjudgedReason.ERASED.value),
        (cancelled.exists(), UnjudgedReason.CANCELLED.value),
        else_=UnjudgedReason.STRANDED.value,
    )


def reasons(session: Session, items: Sequence[int]) -> dict[int, UnjudgedReason]:
    """Why each of these items has no verdict; those that have one are left out."""
    rows = session.execute(
        select(Item.id, unjudged()).where(Item.id.in_(items), Item.verdict.is_(None))
    )
    return {item: UnjudgedReason(why) for item, why in rows if why is not None}
