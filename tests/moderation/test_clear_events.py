"""The event of clear items: told to those alone who ask for it by its name."""

from sqlalchemy import select

from filter_service.db.session import Sessions
from filter_service.db.tables import Delivery, OutboxEvent, WebhookEndpoint
from filter_service.webhooks import EventType
from tests.support.listed_items import desk_of
from tests.support.review_cases import told_to_platforms
from tests.support.simple_classifier import POLICY

CLEAR, FLAG = (-5.0, -5.0), (2.0, -5.0)  # logits


def asks(sessions: Sessions, events: list[str] | None) -> None:
    endpoint = WebhookEndpoint(
        url="https://example.org", secret="s", created_by="key a", events=events
    )
    with sessions.begin() as session:
        session.add(endpoint)


def test_clear_items_are_told_to_whoever_asks(sessions: Sessions) -> None:
    asks(sessions, ["item.clear"])
    clear, _ = desk_of(sessions, POLICY).judge(CLEAR, FLAG)
    [told] = told_to_platforms(sessions)
    assert (told.type, told.item_id) == ("item.clear", clear)
    assert (told.payload["verdict"], told.payload["final"]) == ("clear", "clear")


def test_all_events_are_all_but_those_of_clear_items(sessions: Sessions) -> None:
    asks(sessions, None)
    asks(sessions, ["item.clear"])
    desk_of(sessions, POLICY).judge(CLEAR, FLAG)
    wanted = select(Delivery.endpoint_id, OutboxEvent.type).join(
        OutboxEvent, OutboxEvent.id == Delivery.event_id
    )
    with sessions.begin() as session:
        told = {(endpoint, kind) for endpoint, kind in session.execute(wanted)}
    assert told == {(1, EventType.ITEM_FLAGGED), (2, EventType.ITEM_CLEAR)}
