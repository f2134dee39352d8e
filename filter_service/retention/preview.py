"""Previews what an erasure or a retention rule would delete."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from filter_service.db.session import Sessions
from filter_service.db.tables import Item, StoredImage
from filter_service.errors import UnknownItem
from filter_service.retention.expiry import aged, over_now, pages
from filter_service.retention.retention_rules import (
    EffectiveRetentionRule,
    RetainedPart,
    RetentionTerms,
    active_rules,
)

MOST = 100_000  # images that are looked at


@dataclass(frozen=True, slots=True)
class WouldErase:
    """An item's image, and every item that is one of it."""

    items: Sequence[Item]  # without columns that change; the one asked for is among them
    size: int  # bytes of the image that the storage keeps


@dataclass(frozen=True, slots=True)
class WouldExpire:
    """What a rule deletes at once."""

    images: int
    items: int
    size: int  # bytes of the images whose bytes go
    more: bool  # there are more images than were looked at


def would_erase(sessions: Sessions, item_id: int) -> WouldErase:
    """Raises UnknownItem."""
    with sessions.begin() as session:
        item = session.get(Item, item_id)
        if item is None:
            raise UnknownItem(f"There is no item {item_id}: check the id.")
        if item.image_id is None:
            return WouldErase([item], 0)
        image = session.get_one(StoredImage, item.image_id)
        same = session.scalars(select(Item).where(Item.image_id == image.id).order_by(Item.id))
        return WouldErase(list(same), image.bytes if image.bytes_gone_at is None else 0)


def would_expire(sessions: Sessions, terms: RetentionTerms) -> WouldExpire:
    """What goes at the next pass if the rule is added to those that hold."""
    wanted = EffectiveRetentionRule(
        terms.days, terms.parts, terms.class_name, terms.outcome
    )  # with the id 0
    with sessions.begin() as session:
        rules = [*active_rules(session), wanted]
    images = items = size = looked = 0
    for page in pages(sessions, aged(rules)):
        if looked >= MOST:
            return WouldExpire(images, items, size, more=True)
        looked += len(page)
        with sessions.begin() as session:
            expired = over_now(session, page, rules)
            under = {
                image: parts
                for image, (_, why) in expired.items()
                if (parts := {p for of in why.values() for p, r in of.items() if r == wanted.id})
            }
            images += len(under)
            items += sum(len(expired[image][0]) for image in under)
            loose = [image for image, parts in under.items() if RetainedPart.BYTES in parts]
            still_stored = (StoredImage.id.in_(loose), StoredImage.bytes_gone_at.is_(None))
            size += int(
                session.scalar(select(func.sum(StoredImage.bytes)).where(*still_stored)) or 0
            )
    return WouldExpire(images, items, size, more=False)
