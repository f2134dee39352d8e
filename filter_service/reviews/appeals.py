"""Appeals: opens and lists them, and sends the item to a person who has not decided it."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.arrivals import hold_images
from filter_service.db.policies import load_policy
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Batch,
    Item,
    PolicyClass,
    ReviewCase,
    ReviewOutcome,
    StoredImage,
)
from filter_service.errors import Conflict, InvalidRequest, UnknownEntry, UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.policy import Severity
from filter_service.reviews import restricted
from filter_service.reviews.case_claims import lock
from filter_service.reviews.case_opening import Opening, Stage, open_case
from filter_service.reviews.queue import is_free
from filter_service.reviews.settlement import Decision
from filter_service.verdicts import Verdict, threshold_margin
from filter_service.webhooks import EventType, announce

LONGEST_STATEMENT = 5_000  # letters


def open_appeal(sessions: Sessions, item_id: int, statement: str, actor: str) -> uuid.UUID:
    """Ask for another decision about an image that counts as forbidden; -> the appeal.

    An item that nobody works on waits as an appeal from now on. Whoever works on it, or has just
    decided it, finishes undisturbed; then the appeal is somebody else's. An escalated one stays
    with the seniors, whose decision answers the appeal.
    """
    statement = _checked(statement)
    with sessions.begin() as session:
        lock(session, item_id)  # so that no decision takes effect in between
        _hold(session, item_id)
        item = _appealable(session, item_id)
        appeal = uuid.uuid4()
        new = upsert(Appeal).values(
            id=appeal, item_id=item_id, statement=statement, opened_by=actor
        )
        if session.scalar(new.on_conflict_do_nothing().returning(Appeal.id)) is None:
            raise Conflict(f"An appeal about item {item_id} is open already: wait for its answer.")
        _send_to_review(session, item, actor)
        about = {"appeal": str(appeal)}
        ledger.append(session, [Entry(Event.APPEALED, actor, item_id, item.batch_id, about)])
        message = {"item": item_id, "batch": str(item.batch_id), "source": item.source, **about}
        announce(
            session, EventType.APPEAL_OPENED, f"item {item_id}", message, item_id, item.batch_id
        )
    return appeal


def appeals_of(sessions: Sessions, item_id: int) -> list[Appeal]:
    """The appeals about an item, oldest first; one that is open is to be read before deciding."""
    query = select(Appeal).where(Appeal.item_id == item_id).order_by(Appeal.opened_at, Appeal.id)
    with sessions.begin() as session:
        return list(session.scalars(query))


def appeal(sessions: Sessions, appeal_id: uuid.UUID, scope: Scope = OPERATOR) -> Appeal:
    """One appeal; raises UnknownEntry."""
    query = select(Appeal).join(Item, Item.id == Appeal.item_id)
    with sessions.begin() as session:
        found = session.scalar(query.where(Appeal.id == appeal_id, scope.has(Item.client_id)))
    if found is None:
        raise UnknownEntry(f"There is no appeal {appeal_id}: check the id that opening it gave.")
    return found


@dataclass(frozen=True, slots=True)
class _Item:
    """An item with what its case needs."""

    item_id: int
    batch_id: uuid.UUID
    image_id: int | None
    policy_id: int
    source: str
    verdict: Verdict | None
    margin: float | None
    judged_for: str | None  # class
    reviewed_for: str | None
    decision: str | None


def _checked(statement: str) -> str:
    statement = statement.strip()
    if not 1 <= len(statement) <= LONGEST_STATEMENT:
        raise InvalidRequest(
            f"The statement has {len(statement)} letters: give 1 to {LONGEST_STATEMENT:,}."
        )
    if "\x00" in statement:
        raise InvalidRequest("The statement holds a NUL, which cannot be kept: leave it out.")
    return statement


def _hold(session: Session, item_id: int) -> None:
    """Nothing of the image is deleted or locked away from here on; raises if that was done."""
    image = session.scalar(select(Item.image_id).where(Item.id == item_id))
    if image is None:
        return  # nor is anything of it flagged
    hold_images(session, [image])
    restricted.require_open(session, item_id)
    if session.scalar(select(StoredImage.digest).where(StoredImage.id == image)) is None:
        raise Conflict(f"Item {item_id} was erased: nothing is left that anybody could look at.")


def _appealable(session: Session, item_id: int) -> _Item:
    """The item, if its image counts as forbidden: flagged, or missed and found in a sample."""
    row: Sequence[Any] | None = session.execute(
        select(
            Item.id,
            Item.batch_id,
            Item.image_id,
            Batch.policy_id,
            Item.source,
            Item.verdict,
            Item.margin,
            PolicyClass.name,
            ReviewOutcome.class_name,
            ReviewOutcome.decision,
        )
        .join(Batch, Batch.id == Item.batch_id)
        .outerjoin(PolicyClass, PolicyClass.id == Item.class_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == Item.id)
        .where(Item.id == item_id)
    ).one_or_none()
    if row is None:
        raise UnknownItem(f"There is no item {item_id}: check the id.")
    item = _Item(*row)
    overturned = item.decision == Decision.OVERTURNED
    if item.verdict is Verdict.FLAGGED and overturned:
        raise InvalidRequest(
            f"The flag of item {item_id} was overturned: nothing is left to appeal."
        )
    if item.verdict is not Verdict.FLAGGED and not (item.verdict is Verdict.CLEAR and overturned):
        raise InvalidRequest(
            f"Item {item_id} is {item.verdict or 'not judged yet'}: only flags can be appealed."
        )
    return item


def _send_to_review(session: Session, item: _Item, actor: str) -> None:
    turned = (
        update(ReviewCase)
        .where(
            ReviewCase.item_id == item.item_id,
            ReviewCase.stage.in_([Stage.FIRST, Stage.SECOND]),
            is_free(),
        )
        .values(stage=Stage.APPEAL)
    )
    session.execute(turned)
    open_case(session, _opening(session, item), actor)  # which does nothing where one is open


def _opening(session: Session, item: _Item) -> Opening:
    """A case for an item that was decided, or that was flagged without asking anybody."""
    if item.image_id is None:
        raise InvalidRequest(f"Item {item.item_id} has no image that anybody could look at.")
    name = item.reviewed_for or item.judged_for or ""
    policy = load_policy(session, item.policy_id).policy
    forbidden = next((c for c in policy.classes if c.name == name), None)
    above = 0.0
    if forbidden is not None and item.margin is not None and name == item.judged_for:
        above = item.margin - threshold_margin(forbidden)
    return Opening(
        item_id=item.item_id,
        batch_id=item.batch_id,
        image_id=item.image_id,
        policy_id=item.policy_id,
        class_name=name,
        severity=forbidden.severity if forbidden else Severity.MEDIUM,
        margin=above,
        sampled=item.verdict is Verdict.CLEAR,
        stage=Stage.APPEAL,
    )
