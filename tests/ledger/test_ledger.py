"""The ledger: what is written stays, whoever asks."""

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.ledger import Entry, Event

CHANGES = [
    "UPDATE ledger SET event = 'another'",
    "DELETE FROM ledger",
    "TRUNCATE ledger CASCADE",
]


def append(sessions: Sessions, *entries: Entry) -> None:
    with sessions.begin() as session:
        ledger.append(session, entries)


def test_entries_are_read_in_the_order_of_events(sessions: Sessions) -> None:
    append(sessions, Entry(Event.SUBMITTED, "platform", item_id=1))
    append(sessions, Entry(Event.JUDGED, "worker", item_id=1, details={"verdict": "clear"}))
    with sessions.begin() as session:
        entries = [(e.event, e.details) for e in ledger.of_item(session, 1)]
    assert entries == [("submitted", {}), ("judged", {"verdict": "clear"})]


def test_an_entry_falls_with_the_transaction_that_wrote_it(sessions: Sessions) -> None:
    with pytest.raises(ZeroDivisionError), sessions.begin() as session:
        ledger.append(session, [Entry(Event.JUDGED, "worker", item_id=1)])
        raise ZeroDivisionError
    with sessions.begin() as session:
        assert ledger.of_item(session, 1) == []


@pytest.mark.parametrize("change", CHANGES)
def test_the_service_may_not_change_the_ledger(sessions: Sessions, change: str) -> None:
    append(sessions, Entry(Event.SUBMITTED, "platform", item_id=1))
    with pytest.raises(ProgrammingError, match="permission denied"), sessions.begin() as session:
        session.execute(text(change))


@pytest.mark.parametrize("change", CHANGES)
def test_not_even_the_owner_changes_the_ledger_in_passing(
    sessions: Sessions, owner: Engine, change: str
) -> None:
    append(sessions, Entry(Event.SUBMITTED, "platform", item_id=1))
    with pytest.raises(ProgrammingError, match="append-only"), owner.begin() as connection:
        connection.execute(text(change))
