"""What webhooks are told, against what the description says that they are told."""

import pytest
from sqlalchemy import update

from filter_service import webhooks
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, OutboxEvent
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.report_input import ReportInput, ReportSource
from filter_service.reviews.reports import report
from filter_service.reviews.settlement import Decision
from filter_service.web.api.webhook_messages import MESSAGES
from filter_service.webhooks import EventType
from filter_service.webhooks.endpoints import ON_REQUEST
from filter_service.webhooks.outbox import PING
from tests.support.listed_items import desk_of
from tests.support.review_cases import colleague, listening, told_to_platforms
from tests.support.simple_classifier import POLICY
from tests.support.statements import decided


def test_every_event_is_described_with_a_sound_example() -> None:
    assert set(MESSAGES) == {*EventType, PING}
    for data, example in MESSAGES.values():
        data.model_validate(example)


@pytest.fixture
def told(sessions: Sessions) -> list[OutboxEvent]:
    """Much of what can happen to items, as it was told."""
    listening(sessions)
    ada, ben, eva = (colleague(sessions, login) for login in ("ada", "ben", "eva"))
    flag, missed = desk_of(sessions, POLICY).judge((2.0, -5.0), (-5.0, -5.0))
    decided(sessions, ada, flag, Decision.CONFIRMED)
    open_appeal(sessions, flag, "A toy.", "key shop")
    decided(sessions, ben, flag, Decision.OVERTURNED)
    said = ReportInput(source=ReportSource.USER, reason="A gun.", reference="4711")
    report(sessions, missed, said, "key shop", cap=9)
    decided(sessions, eva, missed, Decision.OVERTURNED)
    with sessions.begin() as session:
        session.execute(update(Batch).values(total=2))
    webhooks.announce_finished(sessions)
    webhooks.ping(sessions, 1, "key shop")
    return told_to_platforms(sessions)


def test_what_is_told_is_as_described(told: list[OutboxEvent]) -> None:
    for event in told:
        data, _ = MESSAGES[event.type]
        data.model_validate(event.payload)
    silent = {EventType.ITEM_UNDETERMINED, EventType.CLASS_DRIFTED, *ON_REQUEST}
    assert {*EventType, PING} - {e.type for e in told} <= silent
