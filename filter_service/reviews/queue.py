"""The review queue: which cases wait, who may see them, and in what order."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select, true, tuple_
from sqlalchemy.orm import Session

from filter_service.accounts import Ability, clients, may
from filter_service.db.keyset import cursor, key_of
from filter_service.db.lease_queue import CASES
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Client,
    Item,
    Person,
    Review,
    ReviewCase,
    StoredImage,
    StoredPolicy,
)
from filter_service.errors import InvalidRequest
from filter_service.reviews.case_opening import Stage

LONGEST_PAGE = 200  # cases

Held = Literal["free", "mine", "all"]
Order = Literal["urgency", "age"]
Columns = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which cases, and in what order."""

    class_name: str | None = None
    policy: str | None = None  # by name, in all its versions
    client: str | None = None  # by name
    batch: uuid.UUID | None = None
    stage: Stage | None = None
    held: Held = "free"  # "mine" holds what can still be undone, too; "all" what others hold
    order: Order = "urgency"


@dataclass(frozen=True, slots=True)
class QueuedCase:
    """An item that waits for somebody's decision, without anything that others decided."""

    item_id: int
    stage: Stage
    sampled: bool  # a clear item; confirmed: rightly clear, overturned: it was missed
    severity: int  # 0 low to 3 critical
    margin: float  # logits above the threshold
    class_name: str
    policy_id: int
    batch_id: uuid.UUID
    image_id: int
    digest: str
    source: str
    opened_at: datetime
    holder: str | None  # log-in name of whoever works on it
    pending: bool  # decided, and can still be undone
    client: str
    acted: bool  # the flag acted by itself; confirmed: rightly so
    reported: int  # 0 not, 1 by a user or a moderator, 2 by a trusted flagger or an authority
    urgency: int  # severity, and who reported it


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Some cases, and where to go on."""

    cases: list[QueuedCase]
    next: str | None


def waiting(
    sessions: Sessions, person: Person, wanted: Filter, after: str | None = None, limit: int = 50
) -> QueuePage:
    """A page of the cases that a person may see; give `next` as `after` for those that follow."""
    limit = max(1, min(limit, LONGEST_PAGE))
    beyond = [] if after is None else [_beyond(wanted.order, after)]
    with sessions.begin() as session:
        query = _chosen(session, person, wanted, wanted.held).where(*beyond)
        found = _load(session, query.limit(limit + 1), wanted.order)
    cases = found[:limit]
    return QueuePage(cases, _cursor(wanted.order, cases[-1]) if len(found) > limit else None)


def ahead(sessions: Sessions, person: Person, wanted: Filter, limit: int = 3) -> list[QueuedCase]:
    """What this person is likely to get next, to be fetched beforehand; nothing is claimed."""
    with sessions.begin() as session:
        free = _chosen(session, person, wanted, "free").limit(limit)
        return _load(session, free, wanted.order)


def case_of(sessions: Sessions, item_id: int) -> QueuedCase | None:
    """The case of an item, if it waits for review."""
    with sessions.begin() as session:
        return case_in(session, item_id)


def visible(person: Person) -> ColumnElement[bool]:
    """The cases that a person may see: those of their classes, escalated ones for seniors only."""
    rules: list[ColumnElement[bool]] = [true()]
    if person.classes is not None:
        rules.append(ReviewCase.class_name.in_(person.classes))
    if not may(person, Ability.REVIEW_SENIOR) and not may(person, Ability.AUDIT):
        rules.append(ReviewCase.stage != Stage.SENIOR)
    return and_(*rules)


def is_free() -> ColumnElement[bool]:
    """The cases that nobody holds and nobody has decided."""
    return and_(ReviewCase.review_id.is_(None), CASES.free)


def untouched(person: Person) -> ColumnElement[bool]:
    """The cases of items that this person has neither decided nor escalated nor skipped."""
    return ~touched(person, ReviewCase.item_id)


def touched(person: Person, item_id: Any) -> ColumnElement[bool]:  # noqa: ANN401
    """Whether this person has decided, escalated or skipped an item."""
    own = select(Review.id).where(
        Review.item_id == item_id, Review.person_id == person.id, Review.undone_at.is_(None)
    )
    # The offset keeps Postgres from joining: it would sort the whole queue to do so, where looking
    # up the few cases that are wanted takes no time.
    return exists(own.offset(0))


def _held_now() -> ColumnElement[bool]:
    return and_(ReviewCase.review_id.is_(None), CASES.held)


def _conditions(
    session: Session, person: Person, wanted: Filter, held: Held
) -> list[ColumnElement[bool]]:
    conditions = [visible(person)]
    if held == "mine":
        conditions.append(ReviewCase.holder == person.id)
        conditions.append(or_(_held_now(), ReviewCase.review_id.is_not(None)))
    else:
        conditions.append(untouched(person))
        conditions.append(is_free() if held == "free" else ReviewCase.review_id.is_(None))
    if wanted.class_name is not None:
        conditions.append(ReviewCase.class_name == wanted.class_name)
    if wanted.policy is not None:
        # Asked beforehand: Postgres plans well only if it knows which these are.
        versions = select(StoredPolicy.id).where(StoredPolicy.name == wanted.policy)
        conditions.append(ReviewCase.policy_id.in_(session.scalars(versions).all()))
    if wanted.client is not None:
        conditions.append(ReviewCase.client_id == clients.named(session, wanted.client).id)
    if wanted.batch is not None:
        conditions.append(ReviewCase.batch_id == wanted.batch)
    if wanted.stage is not None:
        conditions.append(ReviewCase.stage == wanted.stage)
    return conditions


def _chosen(session: Session, person: Person, wanted: Filter, held: Held) -> Select[int]:
    return (
        select(ReviewCase.item_id)
        .where(*_conditions(session, person, wanted, held))
        .order_by(*_order(wanted.order))
    )


def next_case(
    session: Session, person: Person, wanted: Filter, held: Literal["mine", "free"]
) -> int | None:
    """The first case in order that nobody is just taking, locked."""
    query = _chosen(session, person, wanted, held).where(ReviewCase.review_id.is_(None))
    return session.scalar(query.limit(1).with_for_update(of=ReviewCase, skip_locked=True))


def _cases() -> Columns:
    """Everything of a Case, in the order of its fields."""
    working = or_(CASES.held, ReviewCase.review_id.is_not(None))
    return (
        select(
            ReviewCase.item_id,
            ReviewCase.stage,
            ReviewCase.sampled,
            ReviewCase.severity,
            ReviewCase.margin,
            ReviewCase.class_name,
            ReviewCase.policy_id,
            ReviewCase.batch_id,
            ReviewCase.image_id,
            StoredImage.digest,
            Item.source,
            ReviewCase.opened_at,
            Person.login,
            ReviewCase.review_id.is_not(None),
            Client.name,
            Item.fully_automated,
            ReviewCase.reported,
            ReviewCase.urgency,
        )
        .join(Client, Client.id == ReviewCase.client_id)
        .join(Item, Item.id == ReviewCase.item_id)
        .join(StoredImage, StoredImage.id == ReviewCase.image_id)
        .outerjoin(Person, and_(Person.id == ReviewCase.holder, working))
    )


def _load(session: Session, items: Select[int], order: Order) -> list[QueuedCase]:
    """The cases of some items; what belongs to them is looked up for no others."""
    return _read(session, _cases().where(ReviewCase.item_id.in_(items)).order_by(*_order(order)))


def case_in(session: Session, item_id: int) -> QueuedCase | None:
    return next(iter(_read(session, _cases().where(ReviewCase.item_id == item_id))), None)


def _read(session: Session, query: Columns) -> list[QueuedCase]:
    rows: Iterable[Sequence[Any]] = session.execute(query)
    return [QueuedCase(item_id, Stage(stage), *rest) for item_id, stage, *rest in rows]


def _order(order: Order) -> list[Any]:
    if order == "age":
        return [ReviewCase.opened_at, ReviewCase.item_id]
    return [ReviewCase.urgency.desc(), ReviewCase.margin.desc(), ReviewCase.item_id]


def _cursor(order: Order, last: QueuedCase) -> str:
    if order == "age":
        return cursor(order, last.opened_at.isoformat(), last.item_id)
    return cursor(order, last.urgency, float(last.margin), last.item_id)


def _beyond(order: Order, after: str) -> ColumnElement[bool]:
    kinds = (str, str, int) if order == "age" else (str, int, float, int)
    try:
        made_for, *key = key_of(after, *kinds)
        if made_for != order:
            raise ValueError(made_for)
        if order == "age":
            last = (datetime.fromisoformat(key[0]), key[1])
            return tuple_(ReviewCase.opened_at, ReviewCase.item_id) > last
    except (ValueError, InvalidRequest) as error:
        raise InvalidRequest(
            f"{after!r} is no place in this list: start again from its first page."
        ) from error
    urgency, margin, item_id = key
    # Both columns run downwards, so that the index finds the place; items of equal margin, few,
    # are told apart one by one.
    return and_(
        tuple_(ReviewCase.urgency, ReviewCase.margin) <= (urgency, margin),
        or_(
            tuple_(ReviewCase.urgency, ReviewCase.margin) < (urgency, margin),
            ReviewCase.item_id > item_id,
        ),
    )
