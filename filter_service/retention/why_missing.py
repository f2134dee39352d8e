"""Says why a part of an item is gone: erased, or expired under a retention rule."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from filter_service.db.tables import Erasure, Item, LedgerEntry, StoredImage
from filter_service.errors import ContentGone
from filter_service.ledger import Event
from filter_service.retention.retention_rules import RetainedPart


def why_gone(session: Session, item_id: int, part: RetainedPart = RetainedPart.BYTES) -> str | None:
    """The sentence about a part of an item that was deleted; None: nobody deleted it."""
    image = session.execute(
        select(StoredImage.id, StoredImage.digest, StoredImage.parts_gone)
        .join(Item, Item.image_id == StoredImage.id)
        .where(Item.id == item_id)
    ).one_or_none()
    if image is None or image.digest is None:
        mine = Erasure.item_id == item_id if image is None else Erasure.image_id == image.id
        erased = session.scalar(select(Erasure).where(mine).order_by(Erasure.requested_at).limit(1))
        if erased is None:
            return None
        return (
            f"Item {item_id} was erased on {erased.requested_at:%Y-%m-%d}: nothing of its image is "
            f"kept for it (receipt {erased.id})."
        )
    return _expired(session, item_id, part) if part in image.parts_gone else None


def require_here(session: Session, item_id: int, part: RetainedPart = RetainedPart.BYTES) -> None:
    """Raises Gone for what was deleted."""
    if said := why_gone(session, item_id, part):
        raise ContentGone(said)


def last_erasure(session: Session) -> datetime | None:
    """When somebody last had an image erased."""
    return session.scalar(select(func.max(Erasure.requested_at)))


def _expired(session: Session, item_id: int, part: RetainedPart) -> str:
    entries = select(LedgerEntry).where(
        LedgerEntry.item_id == item_id, LedgerEntry.event == Event.EXPIRED.value
    )
    for entry in session.scalars(entries.order_by(LedgerEntry.id.desc())):
        if part in entry.details["parts"]:
            rule = entry.details["rule"]
            law = f"retention rule {rule}" if rule else "its policy, when its time was over"
            return f"The {part} of item {item_id} were deleted on {entry.at:%Y-%m-%d} under {law}."
    return f"The {part} of item {item_id} were deleted."
