"""Lists labels one by one, and counts them by class and source, by what somebody may see."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, select, tuple_
from sqlalchemy.orm import Session

from filter_service.calibration.labels import LabelSource, restricted_classes
from filter_service.db.tables import Item, Restriction, StoredLabel

_KEY = (StoredLabel.at, StoredLabel.image_id, StoredLabel.class_name)


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """Which labels: of one class, source or client; None: any."""

    class_name: str | None = None
    source: LabelSource | None = None
    client_id: int | None = None  # that submitted the image


@dataclass(frozen=True, slots=True)
class ListedLabel:
    """One label, with an item that shows its image."""

    image_id: int
    item_id: int | None  # None: its items are another client's
    class_name: str
    truth: bool
    source: str
    chance: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ListedCount:
    """How many labels of one class and source pass the filter."""

    class_name: str
    source: str
    present: int
    absent: int
    drawn: int  # with a known chance


def listed(
    session: Session,
    wanted: LabelFilter,
    classes: Collection[str] | None,
    before: tuple[datetime, int, str] | None = None,
    limit: int = 100,
) -> list[ListedLabel]:
    """The newest first, of classes that somebody may see (None: all), none that is restricted.

    `before` is the time, image and class of the last one of the page before.
    """
    query = (
        select(
            StoredLabel.image_id,
            _an_item(wanted.client_id),
            StoredLabel.class_name,
            StoredLabel.truth,
            StoredLabel.source,
            StoredLabel.chance,
            StoredLabel.at,
        )
        .where(*_conditions(session, wanted, classes))
        .order_by(*(column.desc() for column in _KEY))
        .limit(limit)
    )
    if before is not None:
        query = query.where(tuple_(*_KEY) < before)
    return [ListedLabel(*row) for row in session.execute(query)]


def counted(
    session: Session, wanted: LabelFilter, classes: Collection[str] | None
) -> list[ListedCount]:
    """By class and source."""
    label = StoredLabel
    query = (
        select(
            label.class_name,
            label.source,
            func.count().filter(label.truth),
            func.count().filter(~label.truth),
            func.count(label.chance),
        )
        .where(*_conditions(session, wanted, classes))
        .group_by(label.class_name, label.source)
        .order_by(label.class_name, label.source)
    )
    return [ListedCount(*row) for row in session.execute(query)]


def _an_item(client_id: int | None) -> Any:  # noqa: ANN401  (a scalar subquery)
    """The item that was decided, or the newest one of the image."""
    of_image: Select[int | None] = select(func.max(Item.id)).where(
        Item.image_id == StoredLabel.image_id
    )
    if client_id is not None:
        of_image = of_image.where(Item.client_id == client_id)
        return of_image.correlate(StoredLabel).scalar_subquery()
    return func.coalesce(StoredLabel.item_id, of_image.correlate(StoredLabel).scalar_subquery())


def _conditions(
    session: Session, wanted: LabelFilter, classes: Collection[str] | None
) -> list[ColumnElement[bool]]:
    label = StoredLabel
    conditions = [
        ~exists().where(Restriction.image_id == label.image_id),
        label.class_name.not_in(sorted(restricted_classes(session))),
    ]
    if classes is not None:
        conditions.append(label.class_name.in_(sorted(classes)))
    if wanted.class_name is not None:
        conditions.append(label.class_name == wanted.class_name)
    if wanted.source is not None:
        conditions.append(label.source == wanted.source)
    if wanted.client_id is not None:
        theirs = exists().where(Item.image_id == label.image_id, Item.client_id == wanted.client_id)
        conditions.append(theirs)
    return conditions
