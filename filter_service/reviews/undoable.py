"""The last decision of somebody that can still be taken back."""

from dataclasses import dataclass

from sqlalchemy import func, select

from filter_service.db.session import Sessions
from filter_service.db.tables import Person, Review, ReviewCase


@dataclass(frozen=True, slots=True)
class Undoable:
    """What somebody decided last and can still take back."""

    item_id: int
    decision: str
    class_name: str
    review_ids: tuple[int, ...]
    seconds: float  # left


def undoable(sessions: Sessions, person: Person) -> Undoable | None:
    """The last decision of this person that has not taken effect."""
    mine = (
        select(Review)
        .where(
            Review.person_id == person.id,
            Review.effective_at > func.now(),
            Review.undone_at.is_(None),
            Review.settled_at.is_(None),
        )
        .order_by(Review.id.desc())
    )
    left = func.extract("epoch", Review.effective_at - func.now())
    with sessions.begin() as session:
        last = session.scalar(mine.limit(1))
        if last is None:
            return None
        together = Review.id == last.id
        if last.group_id is not None:
            together = Review.group_id == last.group_id
        found = session.execute(mine.with_only_columns(Review.id, left).where(together)).all()
        name = select(ReviewCase.class_name).where(ReviewCase.item_id == last.item_id)
        return Undoable(
            item_id=last.item_id,
            decision=last.decision,
            class_name=session.scalar(name) or "",
            review_ids=tuple(i for i, _ in found),
            seconds=float(min((s for _, s in found), default=0.0)),
        )
