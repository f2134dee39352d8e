"""What is locked away: images of sealed classes, which only custodians may fetch, and say why.

Nothing is computed of them beyond the verdict, nothing of them is shown, and nobody reviews them.
An image that was judged before, by a policy that sealed nothing, loses what was computed of it.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Select, delete, exists, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import Image, Item, ReviewCase, SealedItem, StoredExplanation
from filter_service.errors import InvalidRequest, NotAllowed, UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.storage import Storage

FORGOTTEN = ["explanations", "embeddings", "scores"]
SHORTEST, LONGEST = 5, 500  # letters of a reason

_FORGET = text("SELECT forget_image(:image, :parts ::varchar[])")


_ImageId = InstrumentedAttribute[int] | InstrumentedAttribute[int | None]


@dataclass(frozen=True, slots=True)
class Sealing:
    """An item that was flagged for a sealed class."""

    item_id: int
    batch_id: uuid.UUID
    image_id: int
    class_name: str
    days: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What a custodian learns of one item: everything but the picture."""

    sealed: SealedItem
    item: Item
    image: Image


def is_locked(image_id: _ImageId) -> ColumnElement[bool]:
    """The condition on a column of images; every item of such an image is closed to everybody."""
    return exists().where(SealedItem.image_id == image_id)


def require_open(session: Session, item_id: int) -> None:
    """Raises NotAllowed for an item whose image is locked away."""
    if session.scalar(select(Item.id).where(Item.id == item_id, is_locked(Item.image_id))):
        raise NotAllowed(f"Item {item_id} is locked away: only a custodian may ask for it.")


def hold(session: Session, sealing: Collection[int], others: Collection[int]) -> set[int]:
    """Images that are locked away or are to be, so that nobody adds to them meanwhile.

    Who adds to an image holds its row, and waits here for whoever locks it away.
    """
    rows = select(Image.id).order_by(Image.id)
    session.execute(rows.where(Image.id.in_(sealing)).with_for_update()).all()
    shared = rows.where(Image.id.in_(others)).with_for_update(read=True, key_share=True)
    session.execute(shared).all()
    locked = select(SealedItem.image_id).where(SealedItem.image_id.in_({*sealing, *others}))
    return {*sealing, *session.scalars(locked)}


def lock_away(session: Session, sealings: Sequence[Sealing], actor: str) -> None:
    """In the transaction that records the verdicts; the images are held."""
    now = datetime.now(UTC)
    for s in sealings:
        until = now + timedelta(days=s.days)
        row = {
            "item_id": s.item_id,
            "image_id": s.image_id,
            "class_name": s.class_name,
            "preserve_until": until,
        }
        session.execute(insert(SealedItem).values(row).on_conflict_do_nothing())
        about = {"class": s.class_name, "preserve_until": until.isoformat()}
        entries = [Entry(Event.LOCKED_AWAY, actor, s.item_id, s.batch_id, about)]
        explained = (
            select(Item.id, Item.batch_id)
            .where(Item.image_id == s.image_id, Item.id != s.item_id)
            .where(exists().where(StoredExplanation.item_id == Item.id))
            .order_by(Item.id)
        )
        entries += [
            Entry(Event.LOCKED_AWAY, actor, other, batch, {"with": s.item_id})
            for other, batch in session.execute(explained)
        ]
        ledger.append(session, entries)
        session.execute(_FORGET, {"image": s.image_id, "parts": FORGOTTEN})
        session.execute(update(Image).where(Image.id == s.image_id).values(pdq=None))
        session.execute(delete(ReviewCase).where(ReviewCase.image_id == s.image_id))


def kept(sessions: Sessions, before: int | None, limit: int) -> list[Kept]:
    """What is locked away, the newest item first, from below the item `before`."""
    query = _kept().order_by(SealedItem.item_id.desc()).limit(limit)
    if before is not None:
        query = query.where(SealedItem.item_id < before)
    with sessions.begin() as session:
        return [Kept(s, item, image) for s, item, image in session.execute(query)]


def kept_item(sessions: Sessions, item_id: int) -> Kept:
    """Raises UnknownItem."""
    with sessions.begin() as session:
        return _kept_item(session, item_id)


def original(
    sessions: Sessions, storage: Storage, item_id: int, reason: str, actor: str
) -> tuple[str, bytes]:
    """The bytes as they were submitted, under their digest, once the ledger says who wanted them.

    Raises InvalidRequest without a reason, UnknownItem, and NotAllowed when they are deleted.
    """
    why = reason.strip()
    if not SHORTEST <= len(why) <= LONGEST:
        raise InvalidRequest(
            f"The reason has {len(why)} letters, and {SHORTEST} to {LONGEST} are needed: say what "
            "the file is needed for."
        )
    with sessions.begin() as session:
        found = _kept_item(session, item_id)
        digest = found.image.digest
        if digest is None or found.image.bytes_gone_at is not None:
            raise NotAllowed(f"The bytes of item {item_id} were deleted when their time was over.")
        read = Entry(Event.SEALED_READ, actor, item_id, found.item.batch_id, {"reason": why})
        ledger.append(session, [read])
    return digest, storage.get(digest)


def _kept() -> Select[SealedItem, Item, Image]:
    """Rows of `Kept`."""
    return (
        select(SealedItem, Item, Image)
        .join(Item, Item.id == SealedItem.item_id)
        .join(Image, Image.id == SealedItem.image_id)
    )


def _kept_item(session: Session, item_id: int) -> Kept:
    row = session.execute(_kept().where(SealedItem.item_id == item_id)).one_or_none()
    if row is None:
        raise UnknownItem(f"Item {item_id} is not locked away: /sealed lists those that are.")
    found, item, image = row
    return Kept(found, item, image)
