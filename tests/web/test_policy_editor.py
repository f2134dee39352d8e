"""The policy editor over HTTP: filled from any version, checked, nothing typed is lost."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from fastapi.testclient import TestClient

from filter_service import rollout
from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.policy import Policy, parse_policy
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.policy_forms import sent_fields
from tests.support.policy_versions import MILD, STRICT
from tests.support.web_clients import client_of, key_client, web_service

FORM, CHECK = "/policies/editor/form", "/policies/editor/check"
POSTS = (FORM, CHECK, "/policies/editor/file", "/policies/editor/read")


@pytest.fixture
def clients(sessions: Sessions, storage: Storage) -> Iterator[dict[Role, TestClient]]:
    app = create_app(web_service(sessions, storage, four_eyes=True))
    roles = (Role.POLICY_EDITOR, Role.AUDITOR, Role.MODERATOR)
    yield {role: client_of(app, sessions, role) for role in roles}


@pytest.fixture
def editor(clients: dict[Role, TestClient]) -> TestClient:
    return clients[Role.POLICY_EDITOR]


def store(sessions: Sessions, policy: Policy) -> None:
    rollout.propose(
        sessions, policy, rollout.Flags.KEEP, "as we said", "person ada", four_eyes=False
    )


def test_the_form_is_filled_from_any_version_and_from_none(
    editor: TestClient, sessions: Sessions
) -> None:
    for version in (STRICT, MILD):
        store(sessions, version)
    assert f"{FORM}?from={STRICT.digest}" in editor.get("/policies/shop").text
    page = editor.get(FORM, params={"from": STRICT.digest}).text
    assert re.search(r'id="c0-threshold"[^>]* value="0.1"', page)
    assert "Beside version 2" in page
    assert 'name="c0-name" value=""' in editor.get(FORM).text
    assert editor.get(FORM, params={"from": "0" * 64}).status_code == 404


def test_what_is_sent_back_untouched_is_the_same_version(editor: TestClient) -> None:
    file = editor.post("/policies/editor/file", data=sent_fields(STRICT))
    assert parse_policy(file.text).digest == STRICT.digest
    assert file.headers["content-disposition"] == 'attachment; filename="shop.yaml"'


BAD = {
    "name": ("Shop!", "name", "String should match pattern"),
    "neutral": (" \n ", "neutral", "Field required"),
    "c0-threshold": ("much", "c0-threshold", "Input should be a valid number"),
    "c1-threshold": ("1.5", "c1-threshold", "Input should be less than 1"),
    "c0-prompts": ("a gun\n" + "x" * 301, "c0-prompts", "Line 2: String should have at most 300"),
    "c1-name": ("knife", "rest", "two classes are called knife"),
    "c0-severity": ("fatal", "c0-severity", "Input should be 'low', 'medium'"),
    "templates": ("a photo", "templates", "Line 1: Value error, a template holds {} exactly once"),
    "c0-clause": ("nothing\0 here", "c0-clause", "String should match pattern"),
}


@pytest.mark.parametrize("field", BAD)
def test_what_is_wrong_is_a_sentence_at_its_field_and_stays_typed(
    editor: TestClient, field: str
) -> None:
    typed, place, sentence = BAD[field]
    sent = sent_fields(STRICT) | {field: typed, "c1-clause": "typed with care"}
    found = editor.post(CHECK, data=sent).json()
    assert sentence in found["said"][place][0]["sentence"]
    assert found["said"][place][0]["fatal"] and not found["valid"]
    for answer in (
        editor.post(FORM, data=sent | {"action": "compare"}),
        editor.post("/policies/editor/file", data=sent),
    ):
        assert answer.status_code == 422
        assert "typed with care" in answer.text


def test_what_policy_check_says_stands_at_the_field(editor: TestClient) -> None:
    sent = sent_fields(STRICT) | {"c1-prompts": "a pistol\n\na knife\na pistol"}
    said = editor.post(CHECK, data=sent).json()
    assert "1 neutral prompts hardly stand" in said["said"]["neutral"][0]["sentence"]
    lines = [s["sentence"] for s in said["said"]["c1-prompts"]]
    assert any(s.startswith("Line 4: 'a pistol' says what 'a pistol' says") for s in lines)
    assert any(s.startswith("Line 3: 'a knife' stands in knife, too") for s in lines)
    assert "by their letters only" in said["note"]


def test_the_draft_says_what_policy_check_says(editor: TestClient) -> None:
    draft = editor.post(FORM, data=sent_fields(STRICT) | {"action": "compare"}).text
    assert "What the check says" in draft
    assert "hardly stand for all that is ordinary" in draft
    assert "compared by their letters only" in draft


def test_classes_come_and_go_and_nothing_else_does(editor: TestClient) -> None:
    sent = sent_fields(STRICT) | {"neutral": "a street\r\nNOT YET"}
    more = editor.post(FORM, data=sent | {"action": "add"}).text
    assert 'name="c2-name"' in more and "NOT YET" in more
    less = editor.post(FORM, data=sent | {"action": "remove-0"}).text
    assert 'name="c0-name"' not in less and 'name="c1-name"' in less and "NOT YET" in less
    assert editor.post(FORM, data=sent | {"action": "burn"}).status_code == 422


def test_it_ends_in_a_proposal_for_somebody_else(editor: TestClient, sessions: Sessions) -> None:
    sent = sent_fields(STRICT) | {"c0-threshold": "0,25", "action": "compare"}
    draft = editor.post(FORM, data=sent).text
    text = re.search(r'<textarea name="text" hidden>(.*?)</textarea>', draft, re.DOTALL)
    assert text is not None
    asked = {"text": text[1].replace("&#39;", "'"), "flags": "keep", "reason": "fewer flags"}
    assert "somebody else has to" in editor.post("/policies/propose", data=asked).text
    waiting = rollout.waiting_of(sessions, "shop")
    assert waiting is not None
    assert (waiting[1].policy.classes[0].threshold, waiting[1].note) == (0.25, "fewer flags")
    assert rollout.meant_version(sessions, "shop") is None


def test_yaml_is_read_into_the_form_and_a_fault_keeps_the_text(editor: TestClient) -> None:
    text = yaml.safe_dump(STRICT.model_dump(mode="json"))
    page = editor.post("/policies/editor/read", data={"text": text})
    assert re.search(r'id="c0-threshold"[^>]* value="0.1"', page.text)
    file = {"file": ("mine.yaml", text.encode())}
    assert 'value="knife"' in editor.post("/policies/editor/read", files=file).text
    broken = editor.post("/policies/editor/read", data={"text": f"{text}\nodd: 1"})
    assert (broken.status_code, "odd: 1" in broken.text) == (422, True)


def test_only_editors_of_the_house_get_in(
    clients: dict[Role, TestClient], sessions: Sessions, storage: Storage
) -> None:
    platform = key_client(create_app(web_service(sessions, storage)), sessions)
    for stranger in (clients[Role.AUDITOR], clients[Role.MODERATOR], platform):
        assert stranger.get(FORM).status_code == 403
        for path in POSTS:
            assert stranger.post(path, data=sent_fields(STRICT)).status_code == 403


def test_a_form_without_its_token_is_refused(editor: TestClient) -> None:
    del editor.headers["X-CSRF-Token"]
    for path in POSTS:
        answer = editor.post(path, data=sent_fields(STRICT))
        assert (answer.status_code, "CSRF" in answer.text) == (403, True)


def test_a_form_that_was_tampered_with_is_a_sentence(editor: TestClient) -> None:
    for base in ("[", json.dumps({"classes": [1]})):
        answer = editor.post(CHECK, data=sent_fields(STRICT) | {"base": base})
        assert (answer.status_code, "open the editor again" in answer.text) == (422, True)
