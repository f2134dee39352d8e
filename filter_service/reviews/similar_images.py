"""Finds similar images: those that wait for review, and those decided before.

Both walk the index of embeddings outwards from the image, so far and no further, and then ask which
of the images met there wait, or were decided.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Double, and_, cast, func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Embedding,
    Item,
    Person,
    PolicyClass,
    ReviewCase,
    ReviewOutcome,
    StoredEncoder,
    StoredImage,
    StoredScore,
)
from filter_service.db.vectors import among, near
from filter_service.errors import UnknownItem
from filter_service.images.perceptual_hash import NEAR
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.queue import is_free, untouched, visible
from filter_service.scoring import FloatArray

LIMIT = 60
WALKED = 400  # frames met on the way outwards; 1,000 would take five times as long
RECENT = 2_000  # decisions that are read one by one where the walk meets too few

# Of the 28,680 pairs among the 240 sample scenes none comes above a cosine of 0.90. Above 0.95 lie
# all copies that were scaled and compressed again, all mirrored ones and 96% of those whose edge
# was cut off by a fiftieth, of which PDQ alone finds 26%; it finds lighter ones instead.
CLOSE = 0.95


@dataclass(frozen=True, slots=True)
class Lookalike:
    """A waiting case whose image is nearly the same."""

    item_id: int
    digest: str
    degrees: float  # between the embeddings
    pdq_bits: int | None  # None where a picture is too plain for the hash
    source: str


@dataclass(frozen=True, slots=True)
class Precedent:
    """An image near this one that moderators have decided for the same class."""

    item_id: int
    digest: str
    degrees: float
    decision: str  # confirmed or overturned
    at: datetime
    sampled: bool  # it was clear; confirmed: rightly so, overturned: it was missed


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """Where an item lies in the space of the encoder that judged it."""

    encoder_id: int
    dim: int
    z: FloatArray  # (d,) unit


def lookalikes(
    sessions: Sessions, person: Person, item_id: int, limit: int = LIMIT
) -> list[Lookalike]:
    """Cases that this person may decide together with this one, nearest first.

    They wait for the same class in the same stage, and nobody else holds them.
    """
    with sessions.begin() as session:
        item = _item(session, item_id)
        class_name, stage, sampled = _waits_for(session, item)
        place = place_of(session, item, class_name)
        if class_name is None or place is None:
            return []
        cosines = near(session, place.encoder_id, place.dim, place.z, WALKED)
        met = _met(cosines)
        pdq = session.scalar(select(StoredImage.pdq).where(StoredImage.id == item.image_id))
        bits = func.bit_count(StoredImage.pdq.op("#")(pdq))
        rows = session.execute(
            select(ReviewCase.item_id, StoredImage.digest, met.c.cosine, bits, Item.source)
            .join(met, met.c.image_id == ReviewCase.image_id)
            .join(StoredImage, StoredImage.id == ReviewCase.image_id)
            .join(Item, Item.id == ReviewCase.item_id)
            .where(
                ReviewCase.item_id != item_id,
                ReviewCase.class_name == class_name,
                ReviewCase.stage == stage,
                ReviewCase.sampled == sampled,
                visible(person),
                untouched(person),
                or_(
                    is_free(),
                    and_(ReviewCase.holder == person.id, ReviewCase.review_id.is_(None)),
                ),
                or_(met.c.cosine >= CLOSE, bits <= NEAR),
            )
            .order_by(met.c.cosine.desc(), ReviewCase.item_id)
            .limit(limit)
        )
        return [Lookalike(i, d, _degrees(c), b, source) for i, d, c, b, source in rows]


def precedents(
    sessions: Sessions, item_id: int, class_name: str, limit: int = 5
) -> list[Precedent]:
    """The nearest images that moderators have decided for a class, nearest first."""
    with sessions.begin() as session:
        place = place_of(session, _item(session, item_id), class_name)
        if place is None:
            return []
        cosines = near(session, place.encoder_id, place.dim, place.z, WALKED)
        decided = _decided(session, cosines, item_id, class_name, limit)
        if len(decided) < limit:
            recent = _recent(session, class_name)
            cosines |= among(session, place.encoder_id, place.z, recent)
            decided = _decided(session, cosines, item_id, class_name, limit)
    return decided


def _item(session: Session, item_id: int) -> Item:
    item = session.get(Item, item_id)
    if item is None:
        raise UnknownItem(f"There is no item {item_id}: check the id.")
    return item


def _waits_for(session: Session, item: Item) -> tuple[str | None, str, bool]:
    """Class and stage of an item's case, and whether it was drawn; else what it was flagged for."""
    columns = (ReviewCase.class_name, ReviewCase.stage, ReviewCase.sampled)
    case = session.execute(select(*columns).where(ReviewCase.item_id == item.id)).one_or_none()
    if case is not None:
        name, stage, sampled = case
        return name, stage, sampled
    flagged_for = select(PolicyClass.name).where(PolicyClass.id == item.class_id)
    return session.scalar(flagged_for), Stage.FIRST, False


def place_of(session: Session, item: Item, class_name: str | None) -> EncodedItem | None:
    """The vector of the view that shows the class most strongly; None: never encoded."""
    shows_it = (
        select(StoredScore.image_id)
        .join(PolicyClass, PolicyClass.id == StoredScore.class_id)
        .join(Batch, Batch.policy_id == PolicyClass.policy_id)
        .where(
            StoredScore.encoder_id == item.encoder_id,
            StoredScore.image_id == item.image_id,
            Batch.id == item.batch_id,
            PolicyClass.name == class_name,
            StoredScore.frame == Embedding.frame,
            StoredScore.view == Embedding.view,
        )
        .exists()
    )
    row = session.execute(
        select(StoredEncoder.id, StoredEncoder.dim, Embedding.vector)
        .join(Embedding, Embedding.encoder_id == StoredEncoder.id)
        .where(StoredEncoder.id == item.encoder_id, Embedding.image_id == item.image_id)
        .order_by(shows_it.desc(), Embedding.frame, Embedding.view)
        .limit(1)
    ).one_or_none()
    return EncodedItem(*row) if row else None


def _met(cosines: Mapping[int, float]) -> Any:  # noqa: ANN401  (a table of two columns)
    """Images and their cosines as rows to join."""
    ids = cast(list(cosines), ARRAY(BigInteger))
    values = cast(list(cosines.values()), ARRAY(Double))
    return func.unnest(ids, values).table_valued("image_id", "cosine").render_derived()


def _recent(session: Session, class_name: str) -> list[int]:
    """Images that moderators have decided lately for a class."""
    return list(
        session.scalars(
            select(ReviewOutcome.image_id)
            .where(ReviewOutcome.class_name == class_name, ReviewOutcome.review_id.is_not(None))
            .order_by(ReviewOutcome.at.desc())
            .limit(RECENT)
        )
    )


def _decided(
    session: Session, cosines: Mapping[int, float], item_id: int, class_name: str, limit: int
) -> list[Precedent]:
    """Those of these images that were decided, each once, as it was decided last."""
    met = _met(cosines)
    rows = session.execute(
        select(
            ReviewOutcome.item_id,
            StoredImage.digest,
            met.c.cosine,
            ReviewOutcome.decision,
            ReviewOutcome.at,
            ReviewOutcome.sampled,
        )
        .ext(distinct_on(met.c.cosine, ReviewOutcome.image_id))
        .join(met, met.c.image_id == ReviewOutcome.image_id)
        .join(StoredImage, StoredImage.id == ReviewOutcome.image_id)
        .where(
            ReviewOutcome.class_name == class_name,
            ReviewOutcome.item_id != item_id,
            ReviewOutcome.review_id.is_not(None),
        )
        .order_by(met.c.cosine.desc(), ReviewOutcome.image_id, ReviewOutcome.at.desc())
        .limit(limit)
    )
    return [Precedent(i, d, _degrees(c), decision, at, s) for i, d, c, decision, at, s in rows]


def _degrees(cosine: float) -> float:
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
