"""Which reviews made an item's probability: the labels for and against it that moved it most."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.orm import Session

from filter_service.calibration.label_influences import LabelInfluence, label_influences
from filter_service.calibration.training_labels import TrainingRow, training_of
from filter_service.db.embeddings import unit
from filter_service.db.tables import Embedding, Item
from filter_service.policy import ForbiddenClass
from filter_service.reviews.similar_images import place_of
from filter_service.scoring import FloatArray, learnt_direction

SHOWN = 5  # labels of each kind
LEAST = 1e-6  # of a probability: what moves it by less says nothing


@dataclass(frozen=True, slots=True)
class InfluentialLabel:
    """A label that moved a probability."""

    item_id: int | None  # None: uploaded, or of an item that whoever asks may not see
    uploaded: bool
    truth: bool  # the picture shows the class
    change: float  # of the probability: with it, less without it


@dataclass(frozen=True, slots=True)
class InfluentialLabels:
    """What reviews made of one probability."""

    raising: tuple[InfluentialLabel, ...]  # the one that raises it most first
    lowering: tuple[InfluentialLabel, ...]  # likewise
    labels: int  # all that it rests on and that are left
    gone: int  # erased since
    added: float | None  # logits that the head adds to the margin; None: there is no head


def influential_labels(
    session: Session,
    item: Item,
    forbidden: ForbiddenClass,
    margin: float,
    seen: ColumnElement[bool],
) -> InfluentialLabels | None:
    """Five for and five against, of items that fulfil a condition; None: no review moved anything.

    The item's own label is not told: whoever looks a second time decides without the first.
    """
    origin = forbidden.calibration.origin if forbidden.calibration else None
    place = place_of(session, item, forbidden.name)
    if (origin is None and forbidden.head is None) or forbidden.sealed or place is None:
        return None
    fitted = training_of(session, forbidden.calibration.digest) if forbidden.calibration else []
    taught = training_of(session, forbidden.head.digest) if forbidden.head else []
    vectors = _vectors(session, place.encoder_id, taught)
    found = label_influences(forbidden, margin, place.z, fitted, vectors)
    told = (origin.reviews if origin else 0) + (forbidden.head.labels if forbidden.head else 0)
    left = len(fitted) + len(vectors)
    others = [one for one in found if one.row.image_id != item.image_id]
    raising = [one for one in others if one.change > LEAST][:SHOWN]
    lowering = [one for one in reversed(others) if one.change < -LEAST][:SHOWN]
    open_ = _open(session, [one.row for one in (*raising, *lowering)], seen)
    head = forbidden.head
    return InfluentialLabels(
        tuple(_shown(one, open_) for one in raising),
        tuple(_shown(one, open_) for one in lowering),
        labels=left,
        gone=max(0, told - left),
        added=float(learnt_direction(head).added(place.z[None])[0]) if head else None,
    )


def _vectors(
    session: Session, encoder_id: int, rows: Sequence[TrainingRow]
) -> dict[TrainingRow, FloatArray]:
    """The kept vectors that a head learnt from, as far as they are left."""
    places = {(row.image_id, row.frame, row.view): row for row in rows}
    at = (Embedding.image_id, Embedding.frame, Embedding.view)
    query = select(*at, Embedding.vector, Embedding.exact_vector).where(
        Embedding.encoder_id == encoder_id, tuple_(*at).in_(list(places))
    )
    return {
        places[image, frame, view]: unit(half) if exact is None else exact
        for image, frame, view, half, exact in session.execute(query)
    }


def _open(
    session: Session, rows: Sequence[TrainingRow], seen: ColumnElement[bool]
) -> frozenset[int]:
    """Of the items that were decided, those that whoever asks may see."""
    named = [row.item_id for row in rows if row.item_id is not None]
    return frozenset(session.scalars(select(Item.id).where(Item.id.in_(named), seen)))


def _shown(found: LabelInfluence, open_: frozenset[int]) -> InfluentialLabel:
    item = found.row.item_id
    shown = item if item in open_ else None
    return InfluentialLabel(shown, item is None, found.row.truth, found.change)
