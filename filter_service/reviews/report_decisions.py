"""Lets one decision answer every report of a picture, and decide its items that waited with it."""

import uuid
from typing import Any

from sqlalchemy import exists, func, insert, or_, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.tables import Item, Person, Report, Review, ReviewCase, ReviewOutcome
from filter_service.ledger import Entry, Event
from filter_service.reviews import report_cases
from filter_service.reviews.queue import QueuedCase
from filter_service.reviews.report_answers import answer
from filter_service.statements import issue_queue as statements
from filter_service.statements.issuance import stated
from filter_service.verdicts import Verdict
from filter_service.webhooks import EventType, announce

SAID = ("stage", "reason", "note", "revealed")  # of a decision, the same for all that it is about


def decided(session: Session, case: QueuedCase, review: Review, final: Verdict, actor: str) -> None:
    """The case was decided for good: whoever reported its picture is told.

    Forbidden for one class is forbidden. Clear answers those who reported it before the decision,
    for this class or for none; the others are looked at by themselves.
    """
    client = session.get_one(Item, case.item_id).client_id
    picture = report_cases.same_picture(case.image_id, client, case.policy_id)
    reported = exists().where(Report.item_id == Item.id, Report.closed_at.is_(None))
    items = session.scalars(select(Item).where(*picture, reported).order_by(Item.id)).all()
    if not items:
        return
    answered = []
    if final is Verdict.CLEAR:
        same_class = or_(Report.class_name.is_(None), Report.class_name == case.class_name)
        answered = [same_class, Report.reported_at <= review.decided_at]
    for item in items:
        _decide_with(session, item, case, review, final)
    answer(session, [*picture, *answered], final, actor, review.id)
    report_cases.follow(session, [item.id for item in items], actor)


def _decide_with(
    session: Session, item: Item, case: QueuedCase, review: Review, final: Verdict
) -> None:
    """The same decision about a reported clear item that had no case of its own."""
    apart = (
        exists().where(ReviewCase.item_id == item.id),
        exists().where(ReviewOutcome.item_id == item.id),
    )
    if item.id == case.item_id or item.verdict is not Verdict.CLEAR:
        return
    if session.scalar(select(or_(*apart))):
        return
    decision = "overturned" if final is Verdict.FLAGGED else "confirmed"
    said: dict[str, Any] = {name: getattr(review, name) for name in SAID}
    said |= {"decision": decision, "seconds": None}
    group = uuid.uuid4()
    made = session.scalars(
        insert(Review)
        .values(
            item_id=item.id,
            person_id=review.person_id,
            group_id=group,
            decided_at=review.decided_at,
            effective_at=review.effective_at,
            settled_at=func.now(),
            **said,
        )
        .returning(Review.id)
    ).one()
    session.execute(
        insert(ReviewOutcome).values(
            item_id=item.id,
            image_id=item.image_id,
            class_name=case.class_name,
            decision=decision,
            sampled=True,
            review_id=made,
            evenly=False,
        )
    )
    statements.note(session, [item.id])
    _tell(session, item, case, review, {"review": made, "group_id": str(group), **said}, final)


def _tell(
    session: Session,
    item: Item,
    case: QueuedCase,
    review: Review,
    said: dict[str, Any],
    final: Verdict,
) -> None:
    login = session.get_one(Person, review.person_id).login
    settled = {"review": said["review"], "decision": said["decision"], "next": "final"}
    about = (item.id, item.batch_id)
    ledger.append(
        session,
        [
            Entry(Event.DECIDED, f"person {login}", *about, said),
            Entry(
                Event.SETTLED,
                report_cases.ACTOR,
                *about,
                {"stage": said["stage"], "with": case.item_id, **settled},
            ),
        ],
    )
    message = {
        "item": item.id,
        "batch": str(item.batch_id),
        "source": item.source,
        "class": case.class_name,
        "verdict": Verdict.CLEAR,
        "decision": said["decision"],
        "final": final,
        "statement": stated(session, item.id),
    }
    announce(session, EventType.REVIEW_DECIDED, f"item {item.id}", message, *about)
