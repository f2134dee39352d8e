"""Statements say who reported a picture, where somebody did before it was decided."""

import pytest

from filter_service.db.session import Sessions
from filter_service.db.tables import Person
from filter_service.reviews.report_input import ReportInput, ReportSource
from filter_service.reviews.reports import report
from filter_service.reviews.settlement import Decision
from filter_service.statements.issuance import issue_due
from tests.support.review_cases import Wanted, cases_of, colleague, same_picture
from tests.support.statements import decided, items_of, policy, statements

REASON = "My neighbour Maximilian Mustermann sells this very gun."
NOBODY = "Nobody had reported the picture to us."


@pytest.fixture
def ada(sessions: Sessions) -> Person:
    return colleague(sessions, "ada")


def reported(sessions: Sessions, item: int, source: str) -> None:
    said = ReportInput(source=ReportSource(source), reason=REASON)
    report(sessions, item, said, "key platform", cap=9)


def missed(sessions: Sessions) -> int:
    """A clear item that nobody was to look at."""
    return cases_of(sessions, [Wanted("gun", -1.0, sampled=True)], policy(), review=False)[0]


@pytest.mark.parametrize(
    ("source", "code", "notice", "facts"),
    [
        ("user", "SOURCE_ARTICLE_16", "Somebody had reported", "Somebody had reported"),
        ("trusted_flagger", "SOURCE_TRUSTED_FLAGGER", "A trusted flagger", "Somebody had reported"),
        (
            *("authority", "SOURCE_TYPE_OTHER_NOTIFICATION"),
            *("We had been told of the picture.", "Somebody had reported"),
        ),
        ("own", "SOURCE_VOLUNTARY", NOBODY, "A person who works on the platform"),
    ],
)
def test_a_missed_picture_is_stated_with_whoever_reported_it(
    sessions: Sessions, ada: Person, source: str, code: str, notice: str, facts: str
) -> None:
    item = missed(sessions)
    reported(sessions, item, source)
    decided(sessions, ada, item, Decision.OVERTURNED)
    issue_due(sessions)
    [stated] = statements(sessions, item)
    assert stated.document["source_type"] == code
    assert notice in stated.notice
    assert facts in stated.document["decision_facts"]
    assert stated.document["automated_detection"] == "No"
    assert "Mustermann" not in stated.notice


def test_what_nobody_reported_is_stated_as_before(sessions: Sessions, ada: Person) -> None:
    [item] = items_of(sessions, "gun")
    decided(sessions, ada, item)
    reported(sessions, item, "user")  # when it was decided already
    issue_due(sessions)
    [stated] = statements(sessions, item)
    assert stated.document["source_type"] == "SOURCE_VOLUNTARY"
    assert NOBODY in stated.notice


def test_each_reported_item_of_one_picture_has_its_own_statement(
    sessions: Sessions, ada: Person
) -> None:
    items = cases_of(sessions, [Wanted("gun", -1.0, sampled=True)] * 2, policy(), review=False)
    same_picture(sessions, *items)
    for item in items:
        reported(sessions, item, "user")
    decided(sessions, ada, items[0], Decision.OVERTURNED)
    issue_due(sessions)
    assert len({s.puid for s in statements(sessions, *items)}) == 2
