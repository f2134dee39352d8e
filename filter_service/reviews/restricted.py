"""Restricted classes: locks their images away, and gives files to custodians only.

Nothing is computed of them beyond the verdict, nothing of them is shown, and nobody reviews them.
An image that was judged before, by a policy that restricted nothing, loses what was computed of it;
a legal hold comes first, and until it is released that is hidden like the image, but not deleted.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, Select, delete, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from filter_service import ledger
from filter_service.calibration import labels
from filter_service.db.arrays import one_of
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Item,
    LegalHold,
    Restriction,
    ReviewCase,
    StoredExplanation,
    StoredImage,
)
from filter_service.errors import InvalidRequest, NotAllowed, UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.reviews.report_answers import answer
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.webhooks import EventType, announce

FORGOTTEN = ["explanations", "embeddings", "scores"]
SHORTEST, LONGEST = 5, 500  # letters of a reason

_FORGET = text("SELECT forget_image(:image, :parts ::varchar[])")


_ImageId = InstrumentedAttribute[int] | InstrumentedAttribute[int | None]


@dataclass(frozen=True, slots=True)
class RestrictedFlag:
    """An item that was flagged for a restricted class."""

    item_id: int
    batch_id: uuid.UUID
    image_id: int
    class_name: str
    days: int


@dataclass(frozen=True, slots=True)
class RestrictedItem:
    """What a custodian learns of one item: everything but the picture."""

    restriction: Restriction
    item: Item
    image: StoredImage


def is_locked(image_id: _ImageId) -> ColumnElement[bool]:
    """The condition on a column of images; every item of such an image is closed to everybody."""
    return exists().where(Restriction.image_id == image_id)


def require_open(session: Session, item_id: int) -> None:
    """Raises NotAllowed for an item whose image is locked away."""
    if session.scalar(select(Item.id).where(Item.id == item_id, is_locked(Item.image_id))):
        raise NotAllowed(f"Item {item_id} is locked away: only a custodian may ask for it.")


def hold(session: Session, restricting: Collection[int], others: Collection[int]) -> set[int]:
    """Images that are locked away or are to be, so that nobody adds to them meanwhile.

    Who adds to an image holds its row, and waits here for whoever locks it away. Everybody takes
    cases before images, and images by id, so that no two wait for each other.
    """
    if restricting:
        cases = select(ReviewCase.item_id).where(one_of(ReviewCase.image_id, restricting))
        session.execute(cases.order_by(ReviewCase.item_id).with_for_update()).all()
    for alone, run in groupby(sorted({*restricting, *others}), lambda image: image in restricting):
        rows = select(StoredImage.id).where(one_of(StoredImage.id, run)).order_by(StoredImage.id)
        session.execute(rows.with_for_update(read=not alone, key_share=not alone)).all()
    locked = select(Restriction.image_id).where(
        one_of(Restriction.image_id, {*restricting, *others})
    )
    return {*restricting, *session.scalars(locked)}


def lock_away(session: Session, flags: Sequence[RestrictedFlag], actor: str) -> None:
    """In the transaction that records the verdicts; the images are held."""
    now = datetime.now(UTC)
    for s in flags:
        until = now + timedelta(days=s.days)
        row = {
            "item_id": s.item_id,
            "image_id": s.image_id,
            "class_name": s.class_name,
            "preserve_until": until,
        }
        session.execute(insert(Restriction).values(row).on_conflict_do_nothing())
        about = {"class": s.class_name, "preserve_until": until.isoformat()}
        ledger.append(session, [Entry(Event.LOCKED_AWAY, actor, s.item_id, s.batch_id, about)])
        if not _held(session, s.image_id):
            _forget(session, s.image_id, s.item_id, actor)
        _close_appeals(session, s.image_id, actor)
        answer(session, [Item.image_id == s.image_id], Verdict.FLAGGED, actor)
        session.execute(delete(ReviewCase).where(ReviewCase.image_id == s.image_id))


def hold_released(session: Session, image_id: int, actor: str) -> None:
    """Forget what a legal hold has kept of what is locked away; the caller locks the image."""
    row = session.execute(
        select(Restriction, Item.batch_id)
        .join(Item, Item.id == Restriction.item_id)
        .where(Restriction.image_id == image_id)
        .order_by(Restriction.item_id)
        .limit(1)
    ).one_or_none()
    if row is None or _held(session, image_id):
        return
    found, batch = row
    about = {"class": found.class_name, "preserve_until": found.preserve_until.isoformat()}
    ledger.append(session, [Entry(Event.LOCKED_AWAY, actor, found.item_id, batch, about)])
    _forget(session, image_id, found.item_id, actor)


def restricted_items(
    sessions: Sessions, before: int | None, limit: int, classes: Collection[str] | None = None
) -> list[RestrictedItem]:
    """What is locked away, the newest item first, from below `before`; None: for any class."""
    query = _restricted_rows().order_by(Restriction.item_id.desc()).limit(limit)
    if before is not None:
        query = query.where(Restriction.item_id < before)
    if classes is not None:
        query = query.where(Restriction.class_name.in_(classes))
    with sessions.begin() as session:
        return [RestrictedItem(s, item, image) for s, item, image in session.execute(query)]


def kept_item(sessions: Sessions, item_id: int) -> RestrictedItem:
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
        restricted_item = _kept_item(session, item_id)
        digest = restricted_item.image.digest
        if digest is None or restricted_item.image.bytes_gone_at is not None:
            raise NotAllowed(f"The bytes of item {item_id} were deleted when their time was over.")
        read = Entry(
            Event.SEALED_READ, actor, item_id, restricted_item.item.batch_id, {"reason": why}
        )
        ledger.append(session, [read])
    return digest, storage.get(digest)


def _held(session: Session, image_id: int) -> bool:
    """A legal hold stands, on whichever item of the image."""
    holds = select(LegalHold.id).join(Item, Item.id == LegalHold.item_id)
    standing = holds.where(Item.image_id == image_id, LegalHold.released_at.is_(None))
    return session.scalar(standing.limit(1)) is not None


def _forget(session: Session, image_id: int, locked: int, actor: str) -> None:
    """What was computed of an image; there is an entry of the item that was locked away with it."""
    explained = (
        select(Item.id, Item.batch_id)
        .where(Item.image_id == image_id, Item.id != locked)
        .where(exists().where(StoredExplanation.item_id == Item.id))
        .order_by(Item.id)
    )
    entries = [
        Entry(Event.LOCKED_AWAY, actor, other, batch, {"with": locked})
        for other, batch in session.execute(explained)
    ]
    ledger.append(session, entries)
    session.execute(_FORGET, {"image": image_id, "parts": FORGOTTEN})
    labels.forget(session, image_id)
    session.execute(update(StoredImage).where(StoredImage.id == image_id).values(pdq=None))


def _close_appeals(session: Session, image_id: int, actor: str) -> None:
    """Nobody may look at the image any more, so nobody can answer them: it stays forbidden."""
    closed = (
        update(Appeal)
        .where(Appeal.item_id == Item.id, Item.image_id == image_id, Appeal.closed_at.is_(None))
        .values(closed_at=func.now(), upheld=True)
        .returning(Appeal.id, Item.id, Item.batch_id, Item.source, Item.verdict)
    )
    for appeal, item, batch, source, verdict in session.execute(closed).all():
        about = {"appeal": str(appeal), "upheld": True}
        ledger.append(session, [Entry(Event.APPEAL_CLOSED, actor, item, batch, about)])
        message = {"item": item, "batch": str(batch), "source": source, "verdict": verdict, **about}
        message["final"] = Verdict.FLAGGED
        announce(session, EventType.APPEAL_CLOSED, f"item {item}", message, item, batch)


def _restricted_rows() -> Select[Restriction, Item, StoredImage]:
    """Rows of `RestrictedItem`."""
    return (
        select(Restriction, Item, StoredImage)
        .join(Item, Item.id == Restriction.item_id)
        .join(StoredImage, StoredImage.id == Restriction.image_id)
    )


def _kept_item(session: Session, item_id: int) -> RestrictedItem:
    row = session.execute(_restricted_rows().where(Restriction.item_id == item_id)).one_or_none()
    if row is None:
        raise UnknownItem(f"Item {item_id} is not locked away: /sealed lists those that are.")
    found, item, image = row
    return RestrictedItem(found, item, image)
