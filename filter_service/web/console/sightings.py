"""Finds the items of an image that a person may see, and an item's own vector."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, select, true
from sqlalchemy.orm import Session

from filter_service import retention
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
from filter_service.errors import UnknownItem
from filter_service.verdicts import Verdict
from filter_service.web.http.access import Caller
from filter_service.web.http.row_access import item_for, visible

ITEMS = 3  # shown of one image


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


def vector_of(session: Session, caller: Caller, item_id: int) -> tuple[QueryVector, str]:
    """What is stored of the view that was judged: no model is asked. -> it, and its digest."""
    item = item_for(session, caller, item_id)
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
        retention.require_here(session, item_id, retention.RetainedPart.EMBEDDINGS)
        raise UnknownItem(
            f"Item {item_id} has no stored vector, since it was not judged or was deleted since: "
            "search by its file."
        )
    stored, name = row[0], row[1]
    exact = stored.exact_vector
    vector = unit(stored.vector) if exact is None else exact
    return QueryVector(item.encoder_id, vector, 1.0), name
