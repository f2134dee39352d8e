"""The decisions about an item, as far as a colleague may know them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from filter_service.accounts import Ability, may
from filter_service.db.session import Sessions
from filter_service.db.tables import Person, Review
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.queue import case_of
from filter_service.reviews.settlement import Decision


@dataclass(frozen=True, slots=True)
class DecisionSummary:
    """A decision as colleagues may read it."""

    review_id: int
    stage: Stage
    login: str
    decision: Decision
    reason: str | None
    note: str | None
    decided_at: datetime
    effective: bool


def visible_decisions(sessions: Sessions, person: Person, item_id: int) -> list[DecisionSummary]:
    """What was decided about an item, oldest first, as far as this person may know.

    Whoever might give the second look learns nothing before they have given it.
    """
    case = case_of(sessions, item_id)
    query = (
        select(Review, Person.login)
        .join(Person, Person.id == Review.person_id)
        .where(Review.item_id == item_id, Review.undone_at.is_(None))
        .order_by(Review.id)
    )
    with sessions.begin() as session:
        decided = [(review, login) for review, login in session.execute(query)]
    blind = case is not None and case.stage is Stage.SECOND and may(person, Ability.REVIEW)
    if blind and person.id not in {r.person_id for r, _ in decided if r.decision != "skipped"}:
        return []
    return [
        DecisionSummary(
            r.id,
            Stage(r.stage),
            login,
            Decision(r.decision),
            r.reason,
            r.note,
            r.decided_at,
            r.settled_at is not None,
        )
        for r, login in decided
    ]
