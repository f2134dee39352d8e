"""Policies over HTTP: who reads which, who proposes, and that four eyes stay two people's."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from filter_service import accounts
from filter_service.accounts import Role
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.errors import InvalidRequest
from filter_service.policy import ForbiddenClass, Policy, Preservation
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.review_cases import POLICY
from tests.support.web_clients import client_of, key_client, web_service

PROPOSALS = f"/v1/policies/{POLICY.name}/proposals"
SENT: dict[str, Any] = {"policy": POLICY.model_dump(mode="json"), "reason": "To begin with."}


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


def editor(app: FastAPI, sessions: Sessions) -> TestClient:
    secret = accounts.add_key(sessions, "editor", "service", all_clients=True, policies=True)
    return TestClient(app, headers={"Authorization": f"Bearer {secret}"})


def proposed(client: TestClient, **sent: Any) -> Any:
    answer = client.post(PROPOSALS, json=SENT | sent)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_key_with_the_right_makes_a_version_active(app: FastAPI, sessions: Sessions) -> None:
    client = editor(app, sessions)
    made = proposed(client)
    assert (made["digest"], made["activated_by"]) == (POLICY.digest, "key editor")
    found = client.get(f"/v1/policies/{POLICY.name}").json()
    assert (found["digest"], found["document"]["name"]) == (POLICY.digest, POLICY.name)
    assert [c["name"] for c in found["classes"]] == ["gun", "knife"]
    assert [p["name"] for p in client.get("/v1/policies").json()["policies"]] == [POLICY.name]


def test_no_other_key_proposes(app: FastAPI, sessions: Sessions) -> None:
    proposed(editor(app, sessions))
    for client in (
        key_client(app, sessions),
        key_client(app, sessions, "dashboard", all_clients=True),
    ):
        answer = client.post(PROPOSALS, json=SENT)
        assert answer.status_code == 403
        assert "--all-clients --policies" in answer.json()["detail"]
    with pytest.raises(InvalidRequest, match="one of your own"):
        accounts.add_key(sessions, "shop", "service", policies=True)


def test_with_four_eyes_a_key_proposes_and_a_person_activates(
    sessions: Sessions, storage: Storage
) -> None:
    app = create_app(web_service(sessions, storage, four_eyes=True))
    client = editor(app, sessions)
    made = proposed(client)
    assert made["activated_at"] is None
    answer = client.post(f"{PROPOSALS}/{made['id']}/activate")
    assert answer.status_code == 403
    assert "A key cannot tell who approves" in answer.json()["detail"]
    person = client_of(app, sessions, Role.POLICY_EDITOR)
    assert person.get(f"/v1/policies/{POLICY.name}").json()["proposal"]["id"] == made["id"]
    agreed = person.post(f"{PROPOSALS}/{made['id']}/activate").json()
    assert agreed["activated_by"] == "person policy_editor"


def test_a_proposal_is_withdrawn(sessions: Sessions, storage: Storage) -> None:
    app = create_app(web_service(sessions, storage, four_eyes=True))
    client = editor(app, sessions)
    made = proposed(client)
    gone = client.delete(f"{PROPOSALS}/{made['id']}").json()
    assert gone["withdrawn_at"] is not None
    assert client.delete(f"{PROPOSALS}/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"policy": SENT["policy"] | {"name": "other"}}, "is of the policy 'other', not of"),
        ({"policy": "name: ["}, "policy:1"),
        ({"reason": " "}, "#/body/reason"),
        ({"flags": "drop"}, "'keep', 'reevaluate' or 'reopen'"),
    ],
)
def test_what_is_wrong_with_a_proposal_is_said(
    app: FastAPI, sessions: Sessions, sent: dict[str, Any], said: str
) -> None:
    answer = editor(app, sessions).post(PROPOSALS, json=SENT | sent)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_clients_read_what_names_mean_to_them_and_nothing_that_is_restricted(
    app: FastAPI, sessions: Sessions
) -> None:
    locked = ForbiddenClass(
        name="locked", prompts=("x",), threshold=0.5, sealed=Preservation(days=30)
    )
    house = Policy(name="house", neutral=("a wall",), classes=(*POLICY.classes, locked))
    own = POLICY.model_copy(update={"name": "own"})
    client = key_client(app, sessions)
    key_client(app, sessions, "another", client=None)  # which makes the client 2
    with sessions.begin() as session:
        store_policy(session, house)
        store_policy(session, own, 1)
        store_policy(session, POLICY.model_copy(update={"name": "theirs"}), 2)
    found = {p["name"]: p for p in client.get("/v1/policies").json()["policies"]}
    assert set(found) == {"house", "own"}
    assert [c["name"] for c in found["house"]["classes"]] == ["gun", "knife"]
    assert (found["house"]["document"], found["own"]["document"]["name"]) == (None, "own")
    assert client.get("/v1/policies/theirs").status_code == 404
