"""Records moderators' decisions, and undoes them while that is possible."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import Appeal, LedgerEntry, Person, Review, ReviewCase
from filter_service.errors import Conflict, InvalidRequest, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.reviews.case_claims import LockedCase, admit, free, lock
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.queue import QueuedCase, is_free, untouched, visible
from filter_service.reviews.settlement import Decision

MOST_TOGETHER = 200  # look-alikes of one decision
LONGEST_REASON = 500  # letters
LONGEST_NOTE = 5_000  # letters


@dataclass(frozen=True, slots=True)
class DecisionReceipt:
    """A decision as it was written down."""

    review_id: int
    item_id: int
    effective_at: datetime  # it can be undone until then


def decide(
    sessions: Sessions,
    person: Person,
    item_id: int,
    decision: Decision,
    *,
    reason: str | None = None,
    note: str | None = None,
    undo_seconds: float,
    also: Sequence[int] = (),
) -> list[DecisionReceipt]:
    """Decide the case that this person holds, and look-alikes with it; -> what was decided.

    `also` names look-alikes: cases of the same class and stage that wait for anybody. Those that
    somebody else holds or has decided meanwhile are not in the answer, and stay as they are.
    Pressing twice gives the same answer twice.
    """
    given = _checked(decision, reason, note)
    if len(also) > MOST_TOGETHER:
        raise InvalidRequest(
            f"{len(also)} look-alikes are too many at once: leave {MOST_TOGETHER} or fewer."
        )
    with sessions.begin() as session:
        locked = lock(session, item_id)
        if locked is None or locked.review_id is not None or locked.holder_id != person.id:
            return _again(session, person, (item_id, *also), decision, locked)
        admit(session, person, locked.case)
        if decision is Decision.ESCALATED and locked.case.stage is Stage.SENIOR:
            raise InvalidRequest(
                f"Item {item_id} waits for a senior already: decide it, or skip it for another."
            )
        others = _lock_lookalikes(session, person, locked.case, also)
        return _write(session, person, locked, others, given, timedelta(seconds=undo_seconds))


def undo(
    sessions: Sessions, person: Person, review_ids: Sequence[int], seconds: float = 90.0
) -> None:
    """Take decisions back, all or none; the case is that person's again, look-alikes are free."""
    with sessions.begin() as session:
        own = select(Review).where(Review.id.in_(review_ids), Review.person_id == person.id)
        reviews = list(session.scalars(own.order_by(Review.id).with_for_update()))
        if missing := set(review_ids) - {r.id for r in reviews}:
            raise UnknownEntry(f"{person.login} made no decision {min(missing)}: check the number.")
        reviews = [r for r in reviews if r.undone_at is None]  # undoing twice is undoing once
        at = session.scalars(select(func.now())).one()
        if late := [r for r in reviews if r.settled_at is not None or r.effective_at <= at]:
            raise Conflict(
                f"It is too late to undo the decision about item {late[0].item_id}, which took "
                f"effect at {late[0].effective_at:%H:%M:%S}."
            )
        for review in reviews:
            review.undone_at = at
        _give_back(session, person, reviews, at + timedelta(seconds=seconds))
        actor = f"person {person.login}"
        ledger.append(
            session,
            [Entry(Event.UNDONE, actor, r.item_id, details={"review": r.id}) for r in reviews],
        )


@dataclass(frozen=True, slots=True)
class _DecisionInput:
    decision: Decision
    reason: str | None
    note: str | None


def _checked(decision: Decision, reason: str | None, note: str | None) -> _DecisionInput:
    given = _DecisionInput(decision, (reason or "").strip() or None, (note or "").strip() or None)
    if given.reason is None and decision in (Decision.ESCALATED, Decision.SKIPPED):
        raise InvalidRequest(f"An item is not {decision} without a reason: give one.")
    for what, text, longest in (
        ("reason", given.reason or "", LONGEST_REASON),
        ("note", given.note or "", LONGEST_NOTE),
    ):
        if len(text) > longest:
            raise InvalidRequest(f"The {what} has {len(text)} letters: {longest} are allowed.")
        if "\x00" in text:
            raise InvalidRequest(f"The {what} holds a NUL, which cannot be kept: leave it out.")
    return given


def _again(
    session: Session,
    person: Person,
    items: Sequence[int],
    decision: Decision,
    locked: LockedCase | None,
) -> list[DecisionReceipt]:
    """The answer that was given before, or why there is none."""
    own = (
        select(Review)
        .where(Review.person_id == person.id, Review.undone_at.is_(None))
        .order_by(Review.id)
    )
    last = session.scalars(own.where(Review.item_id == items[0])).all()[-1:]
    if last and last[0].decision == decision:
        group = last[0].group_id
        same = own.where(Review.item_id.in_(items), Review.group_id == group) if group else None
        together = last if same is None else session.scalars(same).all()
        return [DecisionReceipt(r.id, r.item_id, r.effective_at) for r in together]
    if last and locked is not None and locked.review_id == last[0].id:
        raise Conflict(f"You have {last[0].decision} item {items[0]} already: undo that first.")
    if locked is not None and locked.case.holder is not None:
        raise Conflict(f"{locked.case.holder} has taken item {items[0]} meanwhile: take another.")
    raise Conflict(f"{person.login} does not hold item {items[0]}: claim it first.")


def _lock_lookalikes(
    session: Session, person: Person, case: QueuedCase, also: Sequence[int]
) -> dict[int, uuid.UUID]:
    """The batches, by item, of what may be decided with a case; an appeal is read for itself."""
    if not also or case.stage is Stage.APPEAL:
        return {}
    appealed = exists().where(Appeal.item_id == ReviewCase.item_id, Appeal.closed_at.is_(None))
    query = (
        select(ReviewCase.item_id, ReviewCase.batch_id)
        .where(
            ReviewCase.item_id.in_(also),
            ReviewCase.item_id != case.item_id,
            ReviewCase.class_name == case.class_name,
            ReviewCase.stage == case.stage,
            ReviewCase.sampled == case.sampled,
            or_(is_free(), and_(ReviewCase.holder == person.id, ReviewCase.review_id.is_(None))),
            visible(person),
            untouched(person),
            ~appealed,
        )
        .order_by(ReviewCase.item_id)
        # What somebody else is just taking is theirs; waiting for it here could last for ever.
        .with_for_update(skip_locked=True)
    )
    return dict(session.execute(query).all())


def _write(
    session: Session,
    person: Person,
    locked: LockedCase,
    others: dict[int, uuid.UUID],
    given: _DecisionInput,
    undoable: timedelta,
) -> list[DecisionReceipt]:
    """One review and one ledger entry for each item; the cases wait for nobody meanwhile."""
    case, actor = locked.case, f"person {person.login}"
    at = session.scalars(select(func.now())).one()
    batches = {case.item_id: case.batch_id, **others}
    revealed = _revealed(session, actor, batches)
    shared = {
        "stage": case.stage,
        "decision": given.decision,
        "reason": given.reason,
        "group_id": uuid.uuid4() if others else None,
    }
    rows: list[dict[str, Any]] = [
        {
            "item_id": item_id,
            "person_id": person.id,
            "note": given.note,
            "seconds": None if item_id in others else _since(at, locked.claimed_at),
            "revealed": item_id in revealed,
            "decided_at": at,
            "effective_at": at + undoable,
            **shared,
        }
        for item_id in batches
    ]
    added = insert(Review).returning(Review.id, sort_by_parameter_order=True)
    ids = dict(zip(batches, session.scalars(added, rows).all(), strict=True))
    session.execute(
        update(ReviewCase)
        .where(ReviewCase.item_id == Review.item_id, Review.id.in_(ids.values()))
        .values(review_id=Review.id, holder=person.id, leased_until=at)
    )
    ledger.append(session, [_entry(actor, ids[r["item_id"]], r, batches) for r in rows])
    return [
        DecisionReceipt(review_id, item_id, at + undoable) for item_id, review_id in ids.items()
    ]


def _entry(
    actor: str, review_id: int, row: dict[str, Any], batches: Mapping[int, uuid.UUID]
) -> Entry:
    """The entry commits to all that was said, and to how it came about."""
    group = row["group_id"] and str(row["group_id"])
    said = {
        name: row[name] for name in ("stage", "decision", "reason", "note", "seconds", "revealed")
    }
    told = {"review": review_id, **said, "group_id": group}
    return Entry(Event.DECIDED, actor, row["item_id"], batches[row["item_id"]], told)


def _since(at: datetime, claimed_at: datetime | None) -> float:
    return (at - (claimed_at or at)).total_seconds()


def _revealed(session: Session, actor: str, items: Iterable[int]) -> set[int]:
    """Of which of these images this person has seen the original."""
    entries = select(LedgerEntry.item_id).where(
        LedgerEntry.item_id.in_(list(items)),
        LedgerEntry.event == Event.REVEALED,
        LedgerEntry.actor == actor,
    )
    return {item_id for item_id in session.scalars(entries) if item_id is not None}


def _give_back(
    session: Session, person: Person, reviews: Sequence[Review], until: datetime
) -> None:
    """As it was before: what this person had claimed is theirs, what they had not is free."""
    claimed = [r.id for r in reviews if r.seconds is not None]
    session.execute(
        update(ReviewCase)
        .where(ReviewCase.review_id.in_(claimed))
        .values(review_id=None, holder=person.id, leased_until=until)
    )
    free(session, [r.item_id for r in reviews if r.seconds is None])
