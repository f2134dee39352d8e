"""Settles decisions: moves the case to its next stage, or records the final outcome."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import Appeal, Review, ReviewCase, ReviewOutcome
from filter_service.errors import DatabaseUnavailable
from filter_service.ledger import Entry, Event
from filter_service.reviews import report_decisions, tallies
from filter_service.reviews.case_claims import free, lock
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.decided_labels import draw_of, label
from filter_service.reviews.queue import QueuedCase
from filter_service.reviews.review_rules import SamplingRule, active_rules, asks_second_look
from filter_service.statements import issue_queue as statements
from filter_service.statements.issuance import stated
from filter_service.verdicts import Verdict
from filter_service.webhooks import EventType, announce

ACTOR = "service"

logger = logging.getLogger(__name__)


class Decision(StrEnum):
    """What somebody can say about a case; it is about the verdict.

    So of a flagged item, overturned clears it; of a clear item that was drawn as a sample,
    confirmed means rightly clear, and overturned that the model missed it.
    """

    CONFIRMED = "confirmed"  # the verdict stands
    OVERTURNED = "overturned"  # the verdict was wrong
    ESCALATED = "escalated"  # a senior is to decide
    SKIPPED = "skipped"  # somebody else is to decide


VERDICTS = (Decision.CONFIRMED, Decision.OVERTURNED)


def settle(sessions: Sessions, limit: int = 500) -> int:
    """Let decisions take effect that can no longer be undone; how many.

    Each in a transaction of its own, so that this may be killed anywhere and run several times at
    once: whoever locks a decision first is the one who lets it take effect.
    """
    due = (
        select(Review.id)
        .where(
            Review.settled_at.is_(None),
            Review.undone_at.is_(None),
            Review.effective_at <= func.now(),
        )
        .order_by(Review.effective_at)
        .limit(limit)
    )
    with sessions.begin() as session:
        ids = list(session.scalars(due))
        rules = active_rules(session) if ids else []
    return sum(_attempt(sessions, review_id, rules) for review_id in ids)


def _attempt(sessions: Sessions, review_id: int, rules: Sequence[SamplingRule]) -> bool:
    """A decision that cannot take effect, through a fault of ours, must not stop those behind."""
    try:
        return _take_effect(sessions, review_id, rules)
    except DatabaseUnavailable:
        raise
    except Exception:
        logger.exception("Decision %d could not take effect; it is tried again.", review_id)
        return False


@dataclass(frozen=True, slots=True)
class _Due:
    """A decision that takes effect now."""

    review: Review
    decision: Decision
    case: QueuedCase
    appeal: Appeal | None  # that is open

    @property
    def heard(self) -> bool:
        """The appeal was there when this person took the case, so that they could read it."""
        if self.appeal is None or self.review.stage == Stage.APPEAL:
            return self.appeal is not None
        if self.review.seconds is None:
            return False
        taken_at = self.review.decided_at - timedelta(seconds=self.review.seconds)
        return self.appeal.opened_at <= taken_at


def _take_effect(sessions: Sessions, review_id: int, rules: Sequence[SamplingRule]) -> bool:
    with sessions.begin() as session:
        due = _lock_due(session, review_id)
        if due is None:
            return False
        stage = _next_stage(session, due, rules)
        if stage is None:
            _finish(session, due)
        else:
            free(session, [due.case.item_id], stage)
        if due.decision in VERDICTS and due.review.seconds is not None:
            tallies.count_seconds(session, due.case.class_name, due.review.seconds)
        details = {
            "review": review_id,
            "decision": due.decision,
            "stage": due.case.stage,
            "next": stage or "final",
        }
        ledger.append(session, [_entry(Event.SETTLED, due.case, details)])
        return True


def _lock_due(session: Session, review_id: int) -> _Due | None:
    """The decision, unless somebody else is letting it take effect or has just undone it."""
    review = session.scalar(
        select(Review)
        .where(Review.id == review_id, Review.settled_at.is_(None), Review.undone_at.is_(None))
        .with_for_update(skip_locked=True)
    )
    if review is None:
        return None
    session.execute(update(Review).where(Review.id == review_id).values(settled_at=func.now()))
    locked = lock(session, review.item_id)
    if locked is None or locked.review_id != review_id:
        return None  # the case was closed without this decision
    # Read after the case was locked: an appeal is opened under the same lock.
    appeal = session.scalar(
        select(Appeal).where(Appeal.item_id == review.item_id, Appeal.closed_at.is_(None))
    )
    return _Due(review, Decision(review.decision), locked.case, appeal)


def _next_stage(session: Session, due: _Due, rules: Sequence[SamplingRule]) -> Stage | None:
    """Whose decision is needed after this one; None: it is final."""
    case = due.case
    if due.decision is Decision.SKIPPED:
        return case.stage
    if due.decision is Decision.ESCALATED:
        return Stage.SENIOR
    if due.appeal is not None:
        # Somebody appealed while this was being decided: it is as if it had been decided before.
        return None if due.heard else Stage.APPEAL
    if case.stage is Stage.FIRST and asks_second_look(rules, case):
        return Stage.SECOND
    if case.stage is Stage.SECOND and _first(session, case) != due.decision:
        return Stage.SENIOR
    return None


def _first(session: Session, case: QueuedCase) -> str | None:
    """What the first decision said."""
    return session.scalar(
        select(Review.decision)
        .where(
            Review.item_id == case.item_id,
            Review.stage == Stage.FIRST,
            Review.decision.in_(VERDICTS),
            Review.undone_at.is_(None),
        )
        .order_by(Review.id.desc())
        .limit(1)
    )


def _finish(session: Session, due: _Due) -> None:
    """Write the outcome, close the case and the appeal, and tell the platform."""
    case = due.case
    _count(session, due)
    draw = draw_of(session, case.item_id)
    outcome = {
        "item_id": case.item_id,
        "image_id": case.image_id,
        "class_name": case.class_name,
        "decision": due.decision,
        "sampled": case.sampled,
        "review_id": due.review.id,
        "at": func.now(),
    }
    drawn = {"chance": draw.chance, "evenly": draw.evenly}
    # What is decided again, as on appeal, came to be known as it did before.
    session.execute(
        upsert(ReviewOutcome)
        .values(outcome | drawn)
        .on_conflict_do_update(
            index_elements=["item_id"], set_=outcome if draw.chance is None else outcome | drawn
        )
    )
    label(session, case, due.decision is Decision.CONFIRMED, due.review.id, draw)
    session.execute(delete(ReviewCase).where(ReviewCase.item_id == case.item_id))
    statements.note(session, [case.item_id])
    message = _decision_message(due)
    statement = stated(session, case.item_id)
    _announce(session, EventType.REVIEW_DECIDED, case, {**message, "statement": statement})
    if due.appeal is not None:
        _close(session, due, due.appeal, message)
    report_decisions.decided(session, case, due.review, Verdict(message["final"]), ACTOR)


def _close(session: Session, due: _Due, appeal: Appeal, message: dict[str, Any]) -> None:
    """Upheld: the image stays forbidden. For a clear item that was drawn, this is overturned."""
    upheld = message["final"] == Verdict.FLAGGED
    session.execute(
        update(Appeal)
        .where(Appeal.id == appeal.id)
        .values(closed_at=func.now(), upheld=upheld, review_id=due.review.id)
    )
    about = {"appeal": str(appeal.id), "upheld": upheld}
    ledger.append(session, [_entry(Event.APPEAL_CLOSED, due.case, about)])
    _announce(session, EventType.APPEAL_CLOSED, due.case, {**message, **about})


def _count(session: Session, due: _Due) -> None:
    """Count an item once, as its outcome stands now; samples by themselves."""
    before = session.scalar(
        select(ReviewOutcome.decision).where(
            ReviewOutcome.item_id == due.case.item_id,
            ReviewOutcome.review_id.is_not(None),  # what a list decided was not counted
        )
    )
    if before == due.decision:
        return
    prefix = _counted_as(session, due.case)
    tallies.count(session, f"{prefix}{due.decision}", due.case.class_name)
    if before is not None:
        tallies.count(session, f"{prefix}{before}", due.case.class_name, -1)


def _counted_as(session: Session, case: QueuedCase) -> str:
    """Clear items that were drawn by themselves, and those that somebody pointed at likewise."""
    if not case.sampled:
        return ""
    drawn = draw_of(session, case.item_id)
    known = session.get(ReviewOutcome, case.item_id)
    at_random = drawn.evenly or drawn.chance is not None
    before = known is not None and (known.evenly or known.chance is not None)
    return tallies.SAMPLED if at_random or before else tallies.REPORTED


def _decision_message(due: _Due) -> dict[str, Any]:
    """What a platform learns; `final` is how it should treat the image."""
    verdict = Verdict.CLEAR if due.case.sampled else Verdict.FLAGGED
    other = Verdict.FLAGGED if due.case.sampled else Verdict.CLEAR
    return {
        "item": due.case.item_id,
        "batch": str(due.case.batch_id),
        "source": due.case.source,
        "class": due.case.class_name,
        "verdict": verdict,
        "decision": due.decision,
        "final": verdict if due.decision is Decision.CONFIRMED else other,
    }


def _announce(session: Session, type: EventType, case: QueuedCase, told: dict[str, Any]) -> None:
    announce(session, type, f"item {case.item_id}", told, case.item_id, case.batch_id)


def _entry(event: Event, case: QueuedCase, details: dict[str, Any]) -> Entry:
    return Entry(event, ACTOR, case.item_id, case.batch_id, details)
