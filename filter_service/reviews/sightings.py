"""Finds the items of stored images, as far as somebody may see them, and an item's own vector."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, not_, select, true
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from filter_service.accounts.callers import Caller
from filter_service.db.embeddings import unit
from filter_service.db.query_encoder import QueryVector
from filter_service.db.scope import Scope
from filter_service.db.tables import (
    Client,
    Embedding,
    Item,
    PolicyClass,
    ReviewOutcome,
    StoredImage,
    StoredScore,
)
from filter_service.reviews.row_access import visible
from filter_service.verdicts import Verdict

ITEMS = 3  # shown of one image to people
HELD = 5  # likewise to clients


@dataclass(frozen=True, slots=True)
class SeenItem:
    """An item of an image that was found, and what became of it."""

    id: int
    client: str
    source: str
    verdict: Verdict | None
    class_name: str | None
    probability: float | None
    decision: str | None
    sampled: bool | None  # it was clear when it was reviewed


@dataclass(frozen=True, slots=True)
class Sighting:
    """A stored image near to what was looked for."""

    digest: str
    similarity: float
    items: tuple[SeenItem, ...]


@dataclass(frozen=True, slots=True)
class HeldItem:
    """An item of an image that was found, as its client sees it."""

    id: int
    batch: uuid.UUID
    source: str
    verdict: Verdict | None
    class_name: str | None


def items_of(
    session: Session, caller: Caller, digests: Sequence[str], scope: Scope
) -> dict[str, list[SeenItem]]:
    """The newest items of each image, as far as this person may see them."""
    newest = (
        select(Item)
        .where(Item.image_id == StoredImage.id, scope.has(Item.client_id), visible(caller))
        .order_by((Item.id + 0).desc())  # or the planner walks all items from the newest
        .limit(ITEMS)
        .lateral("newest")
    )
    query = (
        select(
            StoredImage.digest,
            newest.c.id,
            Client.name.label("client"),
            newest.c.source,
            newest.c.verdict,
            PolicyClass.name,
            newest.c.probability,
            ReviewOutcome.decision,
            ReviewOutcome.sampled,
        )
        .select_from(StoredImage)
        .join(newest, true())
        .join(Client, Client.id == newest.c.client_id)
        .outerjoin(PolicyClass, PolicyClass.id == newest.c.class_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == newest.c.id)
        .where(StoredImage.digest.in_(digests))
        .order_by(newest.c.id.desc())
    )
    found: defaultdict[str, list[SeenItem]] = defaultdict(list)
    for name, *row in session.execute(query):
        found[name].append(SeenItem(*row))
    return dict(found)


def newest_items_of(
    session: Session, scope: Scope, digests: Sequence[str]
) -> defaultdict[str, list[HeldItem]]:
    """The newest items of each image that a client sees: some were submitted a thousand times."""
    newest = (
        select(Item.id, Item.batch_id, Item.source, Item.verdict, Item.class_id)
        .where(Item.image_id == StoredImage.id, scope.has(Item.client_id))
        .order_by((Item.id + 0).desc())  # or the planner walks all items from the newest
        .limit(HELD)
        .correlate(StoredImage)
        .lateral()
    )
    rows = session.execute(
        select(StoredImage.digest, newest, PolicyClass.name)
        .select_from(StoredImage)
        .join(newest, true())
        .outerjoin(PolicyClass, PolicyClass.id == newest.c.class_id)
        .where(StoredImage.digest.in_(digests))
        .order_by(newest.c.id.desc())
    )
    found: defaultdict[str, list[HeldItem]] = defaultdict(list)
    for digest, item, batch, source, verdict, _, class_name in rows:
        found[digest].append(HeldItem(item, batch, source, verdict, class_name))
    return found


def closed_images(session: Session, caller: Caller, digests: Sequence[str]) -> set[str]:
    """Those of the images that stand for a class which is closed to whoever asks."""
    query = (
        select(StoredImage.digest)
        .join(Item, Item.image_id == StoredImage.id)
        .where(
            StoredImage.digest.in_(digests),
            caller.scope.has(Item.client_id),
            not_(visible(caller)),
        )
    )
    return set(session.scalars(query))


def known_images(session: Session, scope: Scope, digests: Collection[str]) -> frozenset[str]:
    """Those of the images of which a client has items."""
    if scope.everyone or not digests:
        return frozenset(digests)
    own = (
        select(StoredImage.digest)
        .join(Item, Item.image_id == StoredImage.id)
        .where(StoredImage.digest.in_(digests), scope.has(Item.client_id))
    )
    return frozenset(digest for digest in session.scalars(own) if digest)


def some_item_of(session: Session, caller: Caller, digests: Sequence[str]) -> dict[str, int]:
    """Some item of each image, of those that somebody may see."""
    one = (
        select(Item.id)
        .where(Item.image_id == StoredImage.id, visible(caller))
        .limit(1)
        .lateral("one")
    )
    query = (
        select(StoredImage.digest, one.c.id)
        .select_from(StoredImage)
        .join(one, true())
        .where(StoredImage.digest.in_(digests))
    )
    return dict(session.execute(query).all())


def kept_item_of(session: Session, caller: Caller, digest: str) -> tuple[int, uuid.UUID] | None:
    """The first item, with its batch, of an image whose bytes are kept, if they may see one."""
    query = (
        select(Item.id, Item.batch_id)
        .join(StoredImage, StoredImage.id == Item.image_id)
        .where(StoredImage.digest == digest, StoredImage.bytes_gone_at.is_(None), visible(caller))
        .order_by(Item.id)
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    return None if row is None else (row.id, row.batch_id)


def newest_by_image(
    session: Session, caller: Caller, images: Sequence[int]
) -> dict[int, tuple[str, int]]:
    """By the images' ids: the digest, and the newest item that somebody may see of it."""
    query = (
        select(Item.image_id, StoredImage.digest, Item.id)
        .ext(distinct_on(Item.image_id))
        .join(StoredImage, StoredImage.id == Item.image_id)
        .where(Item.image_id.in_(images), StoredImage.digest.is_not(None), visible(caller))
        .order_by(Item.image_id, Item.id.desc())
    )
    return {
        image: (digest, item)
        for image, digest, item in session.execute(query)
        if image is not None and digest is not None
    }


def stored_vector(session: Session, item: Item) -> tuple[QueryVector, str] | None:
    """What is stored of the view that was judged, with the image's digest: no model is asked."""
    judged = exists().where(
        StoredScore.encoder_id == item.encoder_id,
        StoredScore.class_id == item.class_id,
        StoredScore.image_id == item.image_id,
        StoredScore.frame == Embedding.frame,
        StoredScore.view == Embedding.view,
    )
    query = (
        select(Embedding, StoredImage.digest)
        .join(StoredImage, StoredImage.id == Embedding.image_id)
        .where(Embedding.encoder_id == item.encoder_id, Embedding.image_id == item.image_id)
        .order_by(judged.desc(), Embedding.frame, Embedding.view)
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    if row is None or row[1] is None or item.encoder_id is None:
        return None
    stored, name = row[0], row[1]
    exact = stored.exact_vector
    vector = unit(stored.vector) if exact is None else exact
    return QueryVector(item.encoder_id, vector, 1.0), name
