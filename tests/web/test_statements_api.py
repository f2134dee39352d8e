"""What a platform has to send: the statement over HTTP, and with the decision."""

import pytest
from fastapi.testclient import TestClient

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Person
from filter_service.reviews.settlement import Decision
from filter_service.statements.issuance import issue_due
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.review_cases import colleague, listening, told_to_platforms
from tests.support.statements import decided, explained, explanation, items_of
from tests.support.web_clients import client_of, key_client, web_service


@pytest.fixture
def ada(sessions: Sessions) -> Person:
    return colleague(sessions, "ada")


@pytest.fixture
def platform(sessions: Sessions, storage: Storage) -> TestClient:
    return key_client(create_app(web_service(sessions, storage)), sessions)


def test_a_decision_comes_with_the_statement_that_is_issued(
    sessions: Sessions, ada: Person, platform: TestClient
) -> None:
    [item] = items_of(sessions, "gun")
    listening(sessions)
    decided(sessions, ada, item)
    told = told_to_platforms(sessions)[0].payload["statement"]
    assert platform.get(f"/v1/items/{item}/statement").status_code == 404  # not yet
    issue_due(sessions)
    answer = platform.get(f"/v1/items/{item}/statement").json()
    assert {name: answer[name] for name in told} == told
    assert answer["document"]["puid"] == answer["puid"]
    assert answer["notice"].startswith("About your picture on Marketplace")
    assert answer["page"].startswith("<!doctype html>")
    assert answer["withdrawn_at"] is None


def test_what_is_not_restricted_has_no_statement(
    sessions: Sessions, ada: Person, platform: TestClient
) -> None:
    [item] = items_of(sessions, "gun")
    listening(sessions)
    decided(sessions, ada, item, Decision.OVERTURNED)
    assert told_to_platforms(sessions)[0].payload["statement"] is None
    answer = platform.get(f"/v1/items/{item}/statement")
    assert answer.status_code == 404
    assert "One is when it is restricted" in answer.json()["detail"]


def test_a_statement_that_breaks_a_rule_says_so_and_holds_up_no_decision(
    sessions: Sessions, ada: Person, platform: TestClient
) -> None:
    [item] = items_of(sessions, "gun")
    words = explanation().words[0].model_copy(update={"prompt": "a gun of ada@example.org"})
    explained(sessions, item, words=[words.model_dump(mode="json")])
    listening(sessions)
    decided(sessions, ada, item)
    assert told_to_platforms(sessions)[0].payload["statement"] is None
    issue_due(sessions)
    answer = platform.get(f"/v1/items/{item}/statement")
    assert answer.status_code == 404
    assert "something is wrong with it" in answer.json()["detail"]


def test_moderators_read_no_statements(sessions: Sessions, storage: Storage, ada: Person) -> None:
    [item] = items_of(sessions, "gun")
    app = create_app(web_service(sessions, storage))
    answer = client_of(app, sessions, Role.MODERATOR).get(f"/v1/items/{item}/statement")
    assert answer.status_code == 403
