"""Reads an item's judgement, decisions, notifications, holds and erasures from the tables."""

import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from filter_service.audit.record.stored_json import explanation_in, policy_in
from filter_service.db.tables import (
    Activation,
    Appeal,
    Batch,
    Delivery,
    DeliveryAttempt,
    Erasure,
    Item,
    LegalHold,
    OutboxEvent,
    Person,
    PolicyClass,
    Report,
    Review,
    ReviewCase,
    ReviewOutcome,
    StoredEncoder,
    StoredExplanation,
    StoredPolicy,
    StoredScore,
    StoredStatement,
    WebhookEndpoint,
)
from filter_service.images.views import View
from filter_service.policy import ForbiddenClass, Policy
from filter_service.verdicts.explanation import Explanation

DELIVERIES = 100  # of one item, the last ones, with as many attempts of each


@dataclass(frozen=True, slots=True)
class MeasurementSection:
    """What the encoder gave an image for one class of the policy."""

    class_name: str
    margin: float
    view: View
    exact: bool


@dataclass(frozen=True, slots=True)
class ExplanationSection:
    """An explanation, and the exact text that the ledger holds the digest of."""

    class_name: str
    text: str
    record: Explanation | None  # None: it cannot be read
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Judgement:
    """What judged the item: the policy's very words, the encoder, and what it measured."""

    stored: StoredPolicy
    policy: Policy | None  # None: it cannot be read
    activation: Activation | None  # that made this version the one its name means
    encoder: StoredEncoder | None
    class_name: str | None  # of the worst score
    scores: tuple[MeasurementSection, ...]
    explanations: tuple[ExplanationSection, ...]

    def forbidden(self, name: str | None) -> ForbiddenClass | None:
        """A class in the policy's words; None where they say nothing of it."""
        classes = self.policy.classes if self.policy else ()
        return next((c for c in classes if c.name == name), None)


@dataclass(frozen=True, slots=True)
class ReviewSection:
    """One person's decision."""

    review: Review
    login: str


@dataclass(frozen=True, slots=True)
class StatementSection:
    """A statement of reasons, and the exact text of its document."""

    statement: StoredStatement
    text: str


@dataclass(frozen=True, slots=True)
class People:
    """What people said of the item: reviews, outcome, appeals, statements and reports."""

    reviews: tuple[ReviewSection, ...]
    waits: str | None  # the stage of its case
    outcome: ReviewOutcome | None
    appeals: tuple[Appeal, ...]
    statements: tuple[StatementSection, ...]
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class NotificationSection:
    """Something that one platform was to be told about the item."""

    message_id: uuid.UUID
    type: str
    url: str
    at: datetime  # when it happened: that of the entries of the same transaction
    delivered_at: datetime | None
    given_up_at: datetime | None
    attempts: tuple[DeliveryAttempt, ...]


@dataclass(frozen=True, slots=True)
class Keeping:
    """Holds and erasures of the item's image, and items that supersede it."""

    holds: tuple[LegalHold, ...]
    erasures: tuple[Erasure, ...]
    later: tuple[int, ...]  # items that supersede this one


def judgement(session: Session, item: Item, batch: Batch) -> Judgement:
    """By the policy version that the batch was submitted under."""
    stored = session.get_one(StoredPolicy, batch.policy_id)
    activated = (
        select(Activation)
        .where(Activation.policy_id == stored.id, Activation.activated_at.is_not(None))
        .order_by(Activation.id.desc())
        .limit(1)
    )
    encoder = None if item.encoder_id is None else session.get(StoredEncoder, item.encoder_id)
    return Judgement(
        stored,
        policy_in(stored.document),
        session.scalar(activated),
        encoder,
        session.scalar(select(PolicyClass.name).where(PolicyClass.id == item.class_id)),
        _scores(session, item, stored),
        _explanations(session, item),
    )


def people_of(session: Session, item_id: int) -> People:
    """Reviews, whether it waits, the outcome, appeals, statements, reports; each oldest first."""
    reviews = (
        select(Review, Person.login)
        .join(Person, Person.id == Review.person_id)
        .where(Review.item_id == item_id)
        .order_by(Review.id)
    )
    appeals = select(Appeal).where(Appeal.item_id == item_id)
    reports = select(Report).where(Report.item_id == item_id)
    text = cast(StoredStatement.document, Text).label("exact")
    statements = select(StoredStatement, text).where(StoredStatement.item_id == item_id)
    return People(
        tuple(ReviewSection(review, login) for review, login in session.execute(reviews)),
        session.scalar(select(ReviewCase.stage).where(ReviewCase.item_id == item_id)),
        session.get(ReviewOutcome, item_id),
        tuple(session.scalars(appeals.order_by(Appeal.opened_at, Appeal.id))),
        tuple(
            StatementSection(*row)
            for row in session.execute(
                statements.order_by(StoredStatement.issued_at, StoredStatement.puid)
            )
        ),
        tuple(session.scalars(reports.order_by(Report.reported_at, Report.id))),
    )


def notified(session: Session, item_id: int) -> tuple[NotificationSection, ...]:
    """What platforms were told about it, oldest first."""
    query = (
        select(OutboxEvent, Delivery, WebhookEndpoint.url)
        .join(Delivery, Delivery.event_id == OutboxEvent.id)
        .join(WebhookEndpoint, WebhookEndpoint.id == Delivery.endpoint_id)
        .where(OutboxEvent.item_id == item_id)
        .order_by(OutboxEvent.id.desc(), Delivery.endpoint_id)
        .limit(DELIVERIES)
    )
    rows = session.execute(query).all()[::-1]
    tries = (
        select(DeliveryAttempt)
        .where(DeliveryAttempt.event_id.in_([event.id for event, _, _ in rows]))
        .order_by(DeliveryAttempt.id)
    )
    attempts = defaultdict(list)
    for one in session.scalars(tries):
        attempts[one.event_id, one.endpoint_id].append(one)
    return tuple(
        NotificationSection(
            event.message_id,
            event.type,
            url,
            event.at,
            delivery.delivered_at,
            delivery.given_up_at,
            tuple(attempts[event.id, delivery.endpoint_id][-DELIVERIES:]),
        )
        for event, delivery, url in rows
    )


def keeping(session: Session, item: Item) -> Keeping:
    """Holds and erasures of the image, in whichever of its items; items that supersede this."""
    same = select(Item.id).where(Item.image_id == item.image_id)
    holds = select(LegalHold).where(LegalHold.item_id == item.id).order_by(LegalHold.id)
    erasures = select(Erasure).where(Erasure.item_id.in_(same)).order_by(Erasure.requested_at)
    later = select(Item.id).where(Item.supersedes == item.id).order_by(Item.id)
    return Keeping(
        tuple(session.scalars(holds)),
        tuple(session.scalars(erasures)),
        tuple(session.scalars(later)),
    )


def _scores(session: Session, item: Item, stored: StoredPolicy) -> tuple[MeasurementSection, ...]:
    query = (
        select(
            PolicyClass.name,
            StoredScore.margin,
            StoredScore.frame,
            StoredScore.view,
            StoredScore.exact,
        )
        .join(PolicyClass, PolicyClass.id == StoredScore.class_id)
        .where(
            StoredScore.encoder_id == item.encoder_id,
            StoredScore.image_id == item.image_id,
            StoredScore.class_id.in_(
                select(PolicyClass.id).where(PolicyClass.policy_id == stored.id)
            ),
        )
        .order_by(PolicyClass.position)
    )
    return tuple(
        MeasurementSection(name, margin, View.parse(frame, view), exact)
        for name, margin, frame, view, exact in session.execute(query)
    )


def _explanations(session: Session, item: Item) -> tuple[ExplanationSection, ...]:
    """In the policy's order; their text as it is stored, which is what was committed to."""
    query = (
        select(PolicyClass.name, cast(StoredExplanation.record, Text), StoredExplanation.created_at)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(
            StoredExplanation.item_id == item.id,
            StoredExplanation.encoder_id == item.encoder_id,
        )
        .order_by(PolicyClass.position)
    )
    return tuple(
        ExplanationSection(name, text, explanation_in(text), at)
        for name, text, at in session.execute(query)
    )
