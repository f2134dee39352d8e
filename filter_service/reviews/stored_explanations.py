"""Reads what is stored about why an item was flagged: records, views, classes."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from filter_service.db.tables import (
    Item,
    PolicyClass,
    StoredEncoder,
    StoredExplanation,
    StoredImage,
    StoredScore,
)
from filter_service.images.views import View
from filter_service.verdicts.explanation import Explanation


@dataclass(frozen=True, slots=True)
class ClassExplanation:
    """One stored explanation, with the image and the encoder that it is about."""

    stored: StoredExplanation
    class_name: str
    digest: str | None
    preprocessing: dict[str, Any]


def explanations_of(session: Session, item_id: int) -> list[tuple[StoredExplanation, str]]:
    """All of an item with their classes, in the policy's order."""
    query = (
        select(StoredExplanation, PolicyClass.name)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(StoredExplanation.item_id == item_id)
        .order_by(PolicyClass.position, StoredExplanation.encoder_id)
    )
    return [(found, name) for found, name in session.execute(query)]


def explained_classes(session: Session, item_id: int) -> list[str]:
    """The classes for which an item has an explanation, by name."""
    return sorted({name for _, name in explanations_of(session, item_id)})


def newest_explanation(session: Session, item_id: int, class_name: str) -> ClassExplanation | None:
    """The last one that was written of an item for a class, whichever encoder judged."""
    query = _with_image().where(
        StoredExplanation.item_id == item_id,
        PolicyClass.name == class_name,
        StoredImage.id.is_not(None),
    )
    newest = query.order_by(StoredExplanation.created_at.desc()).limit(1)
    return _one(session, newest)


def standing_explanation(
    session: Session, item: Item, class_name: str | None
) -> ClassExplanation | None:
    """Of an item for one class, or for its worst, by the encoder whose verdict stands."""
    wanted = (
        PolicyClass.id == item.class_id if class_name is None else PolicyClass.name == class_name
    )
    query = _with_image().where(
        StoredExplanation.item_id == item.id,
        StoredExplanation.encoder_id == item.encoder_id,
        wanted,
    )
    return _one(session, query)


def records_of(session: Session, item: Item) -> dict[str, Explanation]:
    """What explains the item's flags, by class, in the policy's order."""
    return {
        name: Explanation.model_validate(found.record)
        for found, name in explanations_of(session, item.id)
        if found.encoder_id == item.encoder_id
    }


def views_of(session: Session, item: Item) -> dict[str, View]:
    """Which view each explanation of an item is about, by class."""
    if item.encoder_id is None:
        return {}
    frame = StoredExplanation.record["frame"].as_integer()
    view = StoredExplanation.record["view"].as_string()
    query = (
        select(PolicyClass.name, frame, view)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(
            StoredExplanation.item_id == item.id, StoredExplanation.encoder_id == item.encoder_id
        )
    )
    rows = session.execute(query)
    return {name: View.parse(number or 0, said or "") for name, number, said in rows}


def scored_view(session: Session, item: Item) -> View:
    """The view that shows an item's class most strongly; where none was judged the plain one."""
    query = select(StoredScore.frame, StoredScore.view).where(
        StoredScore.encoder_id == item.encoder_id,
        StoredScore.class_id == item.class_id,
        StoredScore.image_id == item.image_id,
    )
    found = session.execute(query).one_or_none()
    return View() if found is None else View.parse(found.frame, found.view)


def class_of(session: Session, item_id: int) -> str | None:
    """The class that an item was flagged for, or came nearest to."""
    query = select(PolicyClass.name).join(Item, Item.class_id == PolicyClass.id)
    return session.scalar(query.where(Item.id == item_id))


def digest_of(session: Session, item: Item) -> str | None:
    """The digest of an item's image; None: nothing came, or it was erased."""
    return session.scalar(select(StoredImage.digest).where(StoredImage.id == item.image_id))


def _with_image() -> Select[StoredExplanation, str, str | None, Any]:
    """Rows of `ClassExplanation`."""
    preprocessing = StoredEncoder.details["preprocessing"]
    return (
        select(StoredExplanation, PolicyClass.name, StoredImage.digest, preprocessing)
        .join(Item, Item.id == StoredExplanation.item_id)
        .outerjoin(StoredImage, StoredImage.id == Item.image_id)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .join(StoredEncoder, StoredEncoder.id == StoredExplanation.encoder_id)
    )


def _one(
    session: Session, query: Select[StoredExplanation, str, str | None, Any]
) -> ClassExplanation | None:
    row = session.execute(query).one_or_none()
    return None if row is None else ClassExplanation(*row)
