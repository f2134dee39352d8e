"""Statements of reasons that were changed behind the ledger's back are named by verifying."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from filter_service import ledger
from filter_service.accounts import Role
from filter_service.ledger import Entry, Event
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.settlement import Decision
from filter_service.statements.issuance import issue_due
from tests.support.review_cases import colleague
from tests.support.sealed_ledger import Ledger, opened
from tests.support.statements import decided, items_of, statements

STANDS, WITHDRAWN = 0, 1  # of the fixture's items, in the order of their numbers


@pytest.fixture
def stated(database_url: str, tmp_path: Path) -> Iterator[Ledger]:
    """Two items with a statement each, of which the later one's was withdrawn."""
    with opened(database_url, tmp_path) as made:
        anna, sue = (colleague(made.sessions, n, Role.SENIOR) for n in ("anna", "sue"))
        first, second = items_of(made.sessions, "gun", "gun")
        for item in (first, second):
            decided(made.sessions, anna, item)
        issue_due(made.sessions)
        open_appeal(made.sessions, second, "It is a toy.", "person anna")
        decided(made.sessions, sue, second, Decision.OVERTURNED)
        issue_due(made.sessions)
        made.seal()
        yield made


def test_untouched_ones_are_counted(stated: Ledger) -> None:
    kept = statements(stated.sessions)
    assert [s.withdrawn_at is not None for s in kept] == [False, True]
    report = stated.verify()
    assert (report.faults, report.statements) == ((), 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE statements SET notice = notice || '!' WHERE {stands}", "is not the one that"),
        (
            "UPDATE statements SET document = replace(document::text, 'weapon', 'toy')::json "
            "WHERE {stands}",
            "is not the one that",
        ),
        ("UPDATE statements SET review_id = NULL WHERE {stands}", "is not the one that"),
        ("UPDATE statements SET withdrawn_at = NULL WHERE NOT {stands}", "but stands"),
        ("UPDATE statements SET withdrawn_at = now() WHERE {stands}", "was withdrawn, and no"),
        ("DELETE FROM statements WHERE {stands}", "is gone: somebody deleted it"),
        (
            "UPDATE statements SET item_id = (SELECT max(id) FROM items) WHERE {stands}",
            "is gone: somebody deleted it",
        ),
        (
            "INSERT INTO statements (puid, item_id, language, document, notice) "
            "SELECT gen_random_uuid(), item_id, language, document, notice FROM statements "
            "WHERE NOT {stands}",
            "was issued, and no entry tells",
        ),
    ],
)
def test_a_change_is_named(stated: Ledger, change: str, said: str) -> None:
    stated.harm(change.format(stands="withdrawn_at IS NULL"))
    assert said in "\n".join(stated.verify().faults)


def test_what_an_erased_entry_told_is_not_missed(stated: Ledger) -> None:
    item = statements(stated.sessions)[STANDS].item_id
    with stated.sessions.begin() as session:
        ledger.append(session, [Entry(Event.ERASED, "person anna", item)])
        session.execute(text("SELECT erase_payloads(:item)"), {"item": item})
    stated.seal()
    report = stated.verify()
    assert (report.faults, report.statements) == ((), 1)
