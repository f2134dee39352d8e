"""Review cases: claiming under a lease, extending, releasing and handing over."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.accounts import Ability, may, sees
from filter_service.db.lease_queue import CASES
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, Person, Review, ReviewCase
from filter_service.errors import Conflict, NotAllowed, UnknownItem, UnknownPerson
from filter_service.ledger import Entry, Event
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.queue import Filter, QueuedCase, case_in, next_case, touched

FAIR_TIME = timedelta(minutes=15)  # for somebody to notice what was handed over to them


@dataclass(frozen=True, slots=True)
class LockedCase:
    """A case whose row nobody else can change before the transaction ends."""

    case: QueuedCase
    holder_id: int | None  # whoever had it last, also when the lease lapsed
    claimed_at: datetime | None
    review_id: int | None  # the decision that has not taken effect yet


def claim_next(
    sessions: Sessions, person: Person, wanted: Filter, seconds: float
) -> QueuedCase | None:
    """Take the most urgent case that this person may decide; what they hold already comes first."""
    require_reviewer(person)
    while True:
        with sessions.begin() as session:
            item_id = next_case(session, person, wanted, "mine")
            if item_id is not None and _extend(session, person, item_id, seconds):
                return case_in(session, item_id)
            item_id = next_case(session, person, wanted, "free")
            if item_id is None:
                return None
            # The row is locked now. What was read to choose it may be older than the lock, such as
            # this person's own decision in another window: the second look at it is not theirs.
            if not session.scalar(select(touched(person, item_id))):
                return _take(session, person, item_id, seconds)


def claim(sessions: Sessions, person: Person, item_id: int, seconds: float) -> QueuedCase:
    """Take this very case, or keep it; also one that this person skipped, since they ask for it."""
    with sessions.begin() as session:
        locked = lock(session, item_id)
        if locked is None:
            raise _not_waiting(session, item_id)
        if locked.review_id is not None:
            raise Conflict(f"Item {item_id} has just been decided: take another.")
        admit(session, person, locked.case)
        if locked.case.holder == person.login:
            _extend(session, person, item_id, seconds)
            return locked.case
        if locked.case.holder is not None:
            raise Conflict(f"{locked.case.holder} is working on item {item_id}: take another.")
        return _take(session, person, item_id, seconds)


def extend(sessions: Sessions, person: Person, item_id: int, seconds: float) -> None:
    """Say that this person's page is alive; a lapsed lease revives if nobody took the case."""
    with sessions.begin() as session:
        if not _extend(session, person, item_id, seconds):
            raise _not_held(session, item_id)


def release(sessions: Sessions, person: Person, item_id: int) -> None:
    """Give a case back on purpose."""
    with sessions.begin() as session:
        locked = _lock_own(session, person, item_id)
        free(session, [item_id])
        ledger.append(session, [_entry(Event.RELEASED, person, locked.case)])


def hand_over(sessions: Sessions, person: Person, item_id: int, to_login: str) -> None:
    """Give a case to somebody who may take it; it stays theirs until they had time to notice."""
    with sessions.begin() as session:
        locked = _lock_own(session, person, item_id)
        to = session.scalar(select(Person).where(Person.login == to_login.strip().lower()))
        if to is None:
            raise UnknownPerson(f"Nobody here is called {to_login!r}: check the log-in name.")
        admit(session, to, locked.case)
        _hold(session, to, item_id, FAIR_TIME)
        ledger.append(
            session, [_entry(Event.HANDED_OVER, person, locked.case, to=f"person {to.login}")]
        )


def require_reviewer(person: Person) -> None:
    if not may(person, Ability.REVIEW):
        raise NotAllowed(
            f"{person.login} may not review as {person.role}: ask an admin for the role moderator."
        )


def admit(session: Session, person: Person, case: QueuedCase) -> None:
    """Raise unless this person may decide this case."""
    require_reviewer(person)
    if not sees(person, case.class_name):
        raise NotAllowed(
            f"{person.login} may not see class {case.class_name!r}, for which item {case.item_id} "
            "waits: an admin can allow it."
        )
    if case.stage is Stage.SENIOR and not may(person, Ability.REVIEW_SENIOR):
        raise NotAllowed(
            f"Item {case.item_id} waits for a senior, and {person.login} is {person.role}."
        )
    decided = exists().where(
        Review.item_id == case.item_id,
        Review.person_id == person.id,
        Review.undone_at.is_(None),
        Review.decision.in_(["confirmed", "overturned"]),
    )
    if session.scalar(select(decided)):
        raise Conflict(
            f"{person.login} has decided item {case.item_id} before: now it is another's turn."
        )


def lock(session: Session, item_id: int) -> LockedCase | None:
    """A case, locked until the caller's transaction ends; None if the item does not wait."""
    row = session.execute(
        select(ReviewCase.holder, ReviewCase.claimed_at, ReviewCase.review_id)
        .where(ReviewCase.item_id == item_id)
        .with_for_update()
    ).one_or_none()
    case = case_in(session, item_id) if row else None
    return LockedCase(case, *row) if row and case else None


def free(session: Session, items: Sequence[int], stage: Stage | None = None) -> None:
    """Let locked cases wait for anybody, in this stage or the one they are in."""
    values: dict[str, Any] = {"stage": stage} if stage else {}
    given_back = CASES.give_back(ReviewCase.item_id.in_(items))
    session.execute(given_back.values(holder=None, claimed_at=None, review_id=None, **values))


def _hold(session: Session, person: Person, item_id: int, length: timedelta) -> None:
    claim = CASES.claim(length, ReviewCase.item_id == item_id)
    session.execute(claim.values(holder=person.id, claimed_at=func.now()))


def _take(session: Session, person: Person, item_id: int, seconds: float) -> QueuedCase:
    """Claim a locked case that is free."""
    _hold(session, person, item_id, timedelta(seconds=seconds))
    case = case_in(session, item_id)
    assert case is not None, "its row is locked"
    ledger.append(session, [_entry(Event.CLAIMED, person, case)])
    return case


def _extend(session: Session, person: Person, item_id: int, seconds: float) -> bool:
    """Also shortens a lease: that of a page which is being closed, or of a case handed over."""
    own = (
        ReviewCase.item_id == item_id,
        ReviewCase.holder == person.id,
        ReviewCase.review_id.is_(None),
    )
    extended = CASES.hold(timedelta(seconds=seconds), *own).returning(ReviewCase.item_id)
    return session.execute(extended).one_or_none() is not None


def _lock_own(session: Session, person: Person, item_id: int) -> LockedCase:
    locked = lock(session, item_id)
    if locked is None or locked.holder_id != person.id or locked.review_id is not None:
        raise _not_held(session, item_id)
    return locked


def _not_held(session: Session, item_id: int) -> Exception:
    case = case_in(session, item_id)
    if case is None:
        return _not_waiting(session, item_id)
    if case.pending:
        return Conflict(f"Item {item_id} has been decided: undo it or go on to the next.")
    if case.holder is None:
        return Conflict(f"Nobody works on item {item_id}: claim it first.")
    return Conflict(f"{case.holder} works on item {item_id} now: take another.")


def _not_waiting(session: Session, item_id: int) -> Exception:
    if session.scalar(select(exists().where(Item.id == item_id))):
        return Conflict(
            f"Item {item_id} does not wait for review: it was decided, or never had to."
        )
    return UnknownItem(f"There is no item {item_id}: check the id.")


def _entry(event: Event, person: Person, case: QueuedCase, **details: str) -> Entry:
    about = {"stage": case.stage, **details}
    return Entry(event, f"person {person.login}", case.item_id, case.batch_id, about)
