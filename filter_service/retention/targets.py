"""The target of an erasure, and its separation from others' items of the same image."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from filter_service.db.tables import Item, ReviewOutcome, StoredImage
from filter_service.retention.retention_rules import RetainedPart


@dataclass(frozen=True, slots=True)
class Target:
    """What is erased: an image with all its items, or an item that never had one."""

    items: Sequence[Item]
    image: StoredImage | None
    actor: str
    asked: int  # the item that the request named
    same: Sequence[int]  # every item of the image, other clients', too
    client: int | None = None  # whose items these are; None: the operator asks, for all

    @property
    def ids(self) -> list[int]:
        return [item.id for item in self.items]

    @property
    def shared(self) -> bool:
        """The image stays, for others' items."""
        return len(self.same) > len(self.items)


def apart(session: Session, image: StoredImage, target: Target) -> StoredImage:
    """Give the items an image of their own, of which nothing is here."""
    empty = StoredImage(bytes=image.bytes, parts_gone=list(RetainedPart), bytes_gone_at=func.now())
    session.add(empty)
    session.flush()
    for item in target.items:
        item.image_id = empty.id
    decided = update(ReviewOutcome).where(ReviewOutcome.item_id.in_(target.ids))
    session.execute(decided.values(image_id=empty.id))
    session.flush()
    return empty
