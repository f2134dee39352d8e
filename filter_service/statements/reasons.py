"""Collects the facts of a statement of reasons from the record, without personal data."""

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from filter_service.db.policies import load_policy
from filter_service.db.tables import (
    Appeal,
    Batch,
    Item,
    ListEntry,
    Person,
    PolicyClass,
    Report,
    Review,
    ReviewOutcome,
    StoredExplanation,
    StoredStatement,
)
from filter_service.errors import UnknownItem
from filter_service.policy import ForbiddenClass, Policy
from filter_service.policy.statement_grounds import Automation, NoticeSource
from filter_service.policy.statement_mapping import ClassStatement, Notices
from filter_service.statements.explanation_summary import ExplanationSummary
from filter_service.verdicts import Verdict, threshold_margin
from filter_service.verdicts.explanation import Explanation


class DecisionMaker(StrEnum):
    """Who found a picture, or decided about it."""

    MODEL = "model"
    LIST = "list"  # of known pictures
    PERSON = "person"


# Who reported a picture, and how the database calls that; the first one is named of several.
_SOURCES = {
    "trusted_flagger": NoticeSource.SOURCE_TRUSTED_FLAGGER,
    "authority": NoticeSource.SOURCE_TYPE_OTHER_NOTIFICATION,
    "user": NoticeSource.SOURCE_ARTICLE_16,
    "own": NoticeSource.SOURCE_VOLUNTARY,
}


@dataclass(frozen=True, slots=True)
class Strength:
    """How strongly the model saw it."""

    probability: float
    threshold: float
    above: float  # the threshold, logits
    calibrated: bool


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why a picture is restricted, as far as anybody outside may know."""

    item_id: int
    batch_id: uuid.UUID
    policy: Policy
    forbidden: ForbiddenClass
    found_by: DecisionMaker
    decided_by: DecisionMaker
    decided_at: datetime
    content_date: date
    review_id: int | None
    entry_id: int | None  # of the list that decided
    match: str | None  # how that list knew the picture
    strength: Strength | None  # None: it did not reach the limit, or that was deleted
    evidence: ExplanationSummary | None
    looks: int  # people who decided so
    revealed: bool  # and saw the picture unblurred
    reported_as: str | None = None  # by whom, before the decision; None: by nobody

    @property
    def source(self) -> NoticeSource:
        """Who pointed at the picture: what the policy says, unless it was reported."""
        return self.notices.source if self.reported_as is None else _SOURCES[self.reported_as]

    @property
    def stated(self) -> ClassStatement:
        assert self.forbidden.statement is not None
        return self.forbidden.statement

    @property
    def notices(self) -> Notices:
        assert self.policy.notices is not None
        return self.policy.notices

    @property
    def automation(self) -> Automation:
        """How much of the decision, not of the search, was a machine's."""
        if self.decided_by is not DecisionMaker.PERSON:
            return Automation.FULLY
        known = self.found_by is DecisionMaker.PERSON
        return Automation.NOT_AUTOMATED if known else Automation.PARTIALLY

    @property
    def puid(self) -> uuid.UUID:
        """Of the decision: the same each time, and of no other, here or in another database."""
        decision = f"item {self.item_id} flag"
        if self.decided_by is DecisionMaker.PERSON:
            decision = f"review {self.review_id}"
        elif self.decided_by is DecisionMaker.LIST:
            decision = f"item {self.item_id} list {self.entry_id}"
        return uuid.uuid5(self.batch_id, decision)  # a batch's id is random


_Row = Any  # what `_row` selects: an item with its batch, policy and outcome


@dataclass(frozen=True, slots=True)
class ProtectedDetails:
    """What the record knows of people, which no statement may repeat."""

    names: tuple[str, ...]
    texts: tuple[str, ...]  # of users


def reasons_of(session: Session, item_id: int) -> Reasons | None:
    """None: nothing is restricted, or the item's policy sends no statements for it."""
    row = _row(session, item_id)
    policy = load_policy(session, row.policy_id).policy
    notices = policy.notices
    if notices is None or not _restricted(row, notices):
        return None
    acted = _acts(row, notices)
    by_list = row.decision is not None and row.review_id is None
    if acted and not by_list and not _stated_before(session, item_id):
        decided_by, name = (
            DecisionMaker.MODEL,
            row.worst,
        )  # what people say later restricts nothing more
    else:
        decided_by, name = DecisionMaker.LIST if by_list else DecisionMaker.PERSON, row.class_name
    forbidden = next((c for c in policy.classes if c.name == name), None)
    if forbidden is None or forbidden.statement is None:
        return None
    return _reasons(session, row, policy, forbidden, decided_by)


def hidden_in(session: Session, item_id: int) -> ProtectedDetails:
    """The file's name, the people who decided, and what users wrote."""
    source = session.scalars(select(Item.source).where(Item.id == item_id)).one()
    people = select(Person.login, Person.name).where(
        Person.id.in_(select(Review.person_id).where(Review.item_id == item_id))
    )
    names = [n for row in session.execute(people) for n in row]
    file = source.rstrip("/").rpartition("/")[2]
    appeals = select(Appeal.statement).where(Appeal.item_id == item_id)
    reports = select(Report.reason).where(Report.item_id == item_id)
    return ProtectedDetails(
        (source, file, file.rpartition(".")[0], *names),
        tuple(session.scalars(appeals.union(reports))),
    )


def _row(session: Session, item_id: int) -> _Row:
    query = (
        select(
            Item.id,
            Item.batch_id,
            Item.verdict,
            Item.judged_at,
            Item.encoder_id,
            Item.margin,
            Item.probability,
            Item.list_entry_id,
            Item.fully_automated,
            Item.content_date,
            Batch.policy_id,
            Batch.submitted_at,
            PolicyClass.name.label("worst"),
            ListEntry.match,
            ReviewOutcome.class_name,
            ReviewOutcome.decision,
            ReviewOutcome.sampled,
            ReviewOutcome.review_id,
            ReviewOutcome.at,
        )
        .join(Batch, Batch.id == Item.batch_id)
        .outerjoin(PolicyClass, PolicyClass.id == Item.class_id)
        .outerjoin(ListEntry, ListEntry.id == Item.list_entry_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == Item.id)
        .where(Item.id == item_id)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise UnknownItem(f"There is no item {item_id}: check the id.")
    return row


def _restricted(row: _Row, notices: Notices) -> bool:
    """Whether the platform keeps the picture restricted, as things stand."""
    if row.decision is None:
        return _acts(row, notices)
    # Of a clear item that was drawn as a sample, overturned says that it is forbidden.
    return bool((row.decision == "overturned") == row.sampled)


def _acts(row: _Row, notices: Notices) -> bool:
    """Whether the flag restricted the picture before anybody decided about it."""
    at_once = row.fully_automated or notices.acts_on == "flag"
    return bool(at_once and row.verdict is Verdict.FLAGGED)


def _stated_before(session: Session, item_id: int) -> bool:
    return bool(session.scalar(select(exists().where(StoredStatement.item_id == item_id))))


def _reasons(
    session: Session, row: _Row, policy: Policy, forbidden: ForbiddenClass, by: DecisionMaker
) -> Reasons:
    record = _record(session, row, forbidden.name)
    strength = _strength(row, forbidden, record)
    reached = strength is not None and strength.above >= 0
    looks, revealed = _looks(session, row) if by is DecisionMaker.PERSON else (0, False)
    decided_at = row.judged_at if by is DecisionMaker.MODEL else row.at
    return Reasons(
        item_id=row.id,
        batch_id=row.batch_id,
        policy=policy,
        forbidden=forbidden,
        found_by=_found_by(row, reached),
        decided_by=by,
        decided_at=decided_at,
        content_date=row.content_date or row.submitted_at.date(),
        review_id=row.review_id if by is DecisionMaker.PERSON else None,
        entry_id=row.list_entry_id if by is DecisionMaker.LIST else None,
        match=row.match if by is DecisionMaker.LIST else None,
        strength=strength if reached else None,
        evidence=ExplanationSummary.of(record) if record and reached else None,
        looks=looks,
        revealed=revealed,
        reported_as=_reported_as(session, row.id, decided_at),
    )


def _reported_as(session: Session, item_id: int, decided_at: datetime) -> str | None:
    """Who had reported the picture before it was decided."""
    query = select(Report.source).where(Report.item_id == item_id, Report.reported_at <= decided_at)
    found = set(session.scalars(query))
    return next((source for source in _SOURCES if source in found), None)


def _found_by(row: _Row, reached: bool) -> DecisionMaker:
    """By what stays when margins and explanations are deleted; the model comes before the list."""
    if row.sampled or row.verdict is not Verdict.FLAGGED:
        return DecisionMaker.PERSON
    return (
        DecisionMaker.LIST if row.list_entry_id is not None and not reached else DecisionMaker.MODEL
    )


def _record(session: Session, row: _Row, name: str) -> Explanation | None:
    """What explains the flag; it may have been deleted when its time was over."""
    query = (
        select(StoredExplanation.record)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(
            StoredExplanation.item_id == row.id,
            StoredExplanation.encoder_id == row.encoder_id,
            PolicyClass.name == name,
        )
    )
    stored = session.scalar(query)
    return None if stored is None else Explanation.model_validate(stored)


def _strength(row: _Row, forbidden: ForbiddenClass, record: Explanation | None) -> Strength | None:
    if record is not None:
        margin, probability = record.margin, record.probability
    elif row.worst == forbidden.name and row.margin is not None and row.probability is not None:
        margin, probability = row.margin, row.probability
    else:
        return None
    above = margin - threshold_margin(forbidden)
    return Strength(probability, forbidden.threshold, above, forbidden.calibration is not None)


def _looks(session: Session, row: _Row) -> tuple[int, bool]:
    """How many people decided as it was decided, and whether one saw the picture unblurred."""
    query = select(func.count(Review.person_id.distinct()), func.bool_or(Review.revealed)).where(
        Review.item_id == row.id,
        Review.decision == row.decision,
        Review.undone_at.is_(None),
        Review.settled_at.is_not(None),
    )
    looks, revealed = session.execute(query).one()
    return looks, bool(revealed)
