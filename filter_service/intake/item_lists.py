"""Lists items by batch, verdict and image."""

import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Select, select

from filter_service.db.session import Sessions
from filter_service.db.tables import Item, PolicyClass, StoredImage
from filter_service.verdicts import Verdict

CHUNK = 200  # items of one transaction


def items(
    sessions: Sessions,
    batch: uuid.UUID | None = None,
    verdict: Verdict | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[Item]:
    """Items in the order of their ids; give the last one's id as `after` for those that follow."""
    with sessions.begin() as session:
        return list(session.scalars(_items(batch, verdict, after, limit)))


def items_with_classes(
    sessions: Sessions,
    batch: uuid.UUID | None = None,
    verdict: Verdict | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[tuple[Item, str | None]]:
    """Items as above, each with its class: of a flagged one, or the nearest of a clear one."""
    query = _items(batch, verdict, after, limit).add_columns(PolicyClass.name)
    with sessions.begin() as session:
        rows = session.execute(query.outerjoin(PolicyClass, PolicyClass.id == Item.class_id))
        return [(item, name) for item, name in rows]


def probabilities(sessions: Sessions, items: Sequence[int]) -> dict[int, float | None]:
    """What the model gave each of these items."""
    query = select(Item.id, Item.probability).where(Item.id.in_(items))
    with sessions.begin() as session:
        return {i: p for i, p in session.execute(query)}


def in_batch(batch: uuid.UUID, verdict: Verdict | None) -> Select[Item]:
    """The items of a batch with a verdict, or without any."""
    return select(Item).where(Item.batch_id == batch, Item.verdict == verdict)  # None: IS NULL


def chunks(sessions: Sessions, query: Select[Item]) -> Iterator[list[Item]]:
    """The items of a query, some hundred at a time, each item once."""
    after = 0
    while True:
        page = query.where(Item.id > after).order_by(Item.id).limit(CHUNK)
        with sessions.begin() as session:
            found = list(session.scalars(page))
        if not found:
            return
        yield found
        after = found[-1].id


def has_bytes() -> ColumnElement[bool]:
    """The storage keeps its image."""
    kept = select(StoredImage.id).where(
        StoredImage.id == Item.image_id, StoredImage.bytes_gone_at.is_(None)
    )
    return kept.exists()


def _items(
    batch: uuid.UUID | None, verdict: Verdict | None, after: int, limit: int
) -> Select[Item]:
    query = select(Item).where(Item.id > after).order_by(Item.id).limit(limit)
    if batch is not None:
        query = query.where(Item.batch_id == batch)
    if verdict is not None:
        query = query.where(Item.verdict == verdict)
    return query
