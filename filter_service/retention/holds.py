"""Legal holds: nothing of an item's image is deleted until the hold is released."""

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import Erasure, Item, LegalHold, StoredImage
from filter_service.errors import Conflict, UnknownEntry, UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.retention.reason_text import checked_reason
from filter_service.reviews import restricted


def hold(sessions: Sessions, item_id: int, reason: str, actor: str) -> LegalHold:
    """Keep everything of an item's image, in all its items. Raises UnknownItem or Conflict."""
    reason = checked_reason(reason)
    with sessions.begin() as session:
        item = _locked(session, item_id)
        new = insert(LegalHold).values(item_id=item_id, reason=reason, created_by=actor)
        held: LegalHold | None = session.scalar(new.on_conflict_do_nothing().returning(LegalHold))
        if held is None:
            raise Conflict(f"Item {item_id} is under a legal hold already: release that one first.")
        about = {"hold": held.id, "reason": reason}
        ledger.append(session, [Entry(Event.HELD, actor, item_id, item.batch_id, about)])
    return held


def release(sessions: Sessions, item_id: int, reason: str, actor: str) -> LegalHold:
    """Let the rules, and requests to erase, see to an item's image again.

    What was locked away while it was held loses now what was computed of it.
    """
    reason = checked_reason(reason)
    ended = (
        update(LegalHold)
        .where(LegalHold.item_id == item_id, LegalHold.released_at.is_(None))
        .values(released_by=actor, released_at=func.now())
        .returning(LegalHold)
    )
    image = (
        select(StoredImage.id).join(Item, Item.image_id == StoredImage.id).where(Item.id == item_id)
    )
    with sessions.begin() as session:
        image_id = session.scalar(
            image.with_for_update(of=StoredImage)
        )  # before the hold, as in `hold`
        held = session.scalar(ended)
        if held is None:
            raise UnknownEntry(f"Item {item_id} is under no legal hold: list the holds.")
        batch = session.scalar(select(Item.batch_id).where(Item.id == item_id))
        about = {"hold": held.id, "reason": reason}
        ledger.append(session, [Entry(Event.HOLD_RELEASED, actor, item_id, batch, about)])
        if image_id is not None:
            restricted.hold_released(session, image_id, actor)
    return held


def holds(sessions: Sessions, after: int | None = None, limit: int = 50) -> list[LegalHold]:
    """Holds that stand, newest first; give the last one's id as `after` for those that follow."""
    query = select(LegalHold).where(LegalHold.released_at.is_(None))
    if after is not None:
        query = query.where(LegalHold.id < after)
    with sessions.begin() as session:
        return list(session.scalars(query.order_by(LegalHold.id.desc()).limit(limit)))


def standing(session: Session, items: Collection[int]) -> LegalHold | None:
    """A hold on any of these items."""
    query = select(LegalHold).where(LegalHold.item_id.in_(items), LegalHold.released_at.is_(None))
    return session.scalar(query.order_by(LegalHold.id).limit(1))


def _locked(session: Session, item_id: int) -> Item:
    """The item, of which nothing is deleted while the caller's transaction lasts."""
    here = select(Item).where(Item.id == item_id)
    item = session.scalar(here.with_for_update(read=True, key_share=True))
    if item is None:
        raise UnknownItem(f"There is no item {item_id}: check the id.")
    if item.image_id is None:
        erased = session.scalar(select(Erasure.id).where(Erasure.item_id == item_id)) is not None
    else:
        image = select(StoredImage.digest).where(StoredImage.id == item.image_id)
        erased = session.scalar(image.with_for_update(read=True, key_share=True)) is None
    if erased:
        raise Conflict(f"Item {item_id} was erased: there is nothing left to hold.")
    return item
