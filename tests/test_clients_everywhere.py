"""Every operation of the interface, asked about what is another client's."""

import string
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from filter_service.db.session import Sessions
from filter_service.images import digest
from filter_service.storage import Storage
from tests.signed_in import key_client
from tests.some_cases import POLICY
from tests.some_pictures import noisy
from tests.test_api_schema import furnished

# What is sent where there is a body; an operation that wants another one has to be added here.
SENT: dict[str, dict[str, Any]] = {
    "POST /v1/batches": {
        "files": [("files", ("mine.png", noisy(1)))],  # the same picture as the other's
        "data": {"policy": POLICY.name},
    },
    "POST /v1/search": {"files": [("image", ("any.png", noisy(3)))]},
    "POST /v1/webhooks": {"json": {"url": "https://b.example.org/hook"}},
    "POST /v1/items/{item}/appeals": {"json": {"statement": "not mine"}},
}
ASKED = {"GET /v1/search": {"text": "anything"}}
URL = "https://a.example.org/hook"


@dataclass
class Two:
    """One who has everything, one who has nothing, and by which names the first one's are known."""

    app: FastAPI
    a: TestClient
    b: TestClient
    known: dict[str, str]  # parameter of a path -> what fits it
    secrets: set[str]  # what no answer to the second one may hold

    def operations(self) -> list[tuple[str, str]]:
        paths = self.app.openapi()["paths"]
        return [(method.upper(), path) for path in paths for method in paths[path]]

    def ask(self, client: TestClient, method: str, path: str) -> Any:
        name = f"{method} {path}"
        told = SENT.get(name, {}) | {"params": ASKED.get(name)}
        return client.request(method, path.format(**self.known), **told)


@pytest.fixture
def two(sessions: Sessions, storage: Storage) -> Two:
    app, batch = furnished(sessions, storage)
    a, b = key_client(app, sessions, "a"), key_client(app, sessions, "b", client=None)
    webhook = a.post("/v1/webhooks", json={"url": URL}).json()["id"]
    message = a.post(f"/v1/webhooks/{webhook}/ping").json()["message_id"]
    appeal = a.post("/v1/items/1/appeals", json={"statement": "no"}).json()["id"]
    erasure = a.delete("/v1/items/2").json()["erasure"]
    known = {
        "batch": str(batch),
        "item": "1",
        "class_name": "gun",
        "webhook": str(webhook),
        "message_id": message,
        "appeal": appeal,
        "erasure": erasure,
    }
    ids = {known[name] for name in ("batch", "message_id", "appeal", "erasure")}
    return Two(app, a, b, known, ids | {URL, digest(noisy(2))})


def parameters(path: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(path) if name}


def test_every_operation_is_one_that_is_asked_here(two: Two) -> None:
    for method, path in two.operations():
        assert parameters(path) <= set(two.known), f"{path}: say what of the other client fits"
        described = two.app.openapi()["paths"][path][method.lower()]
        if "requestBody" in described:
            assert f"{method} {path}" in SENT, f"{method} {path}: say what is sent"


def test_what_is_filled_in_is_there_for_its_own_client(two: Two) -> None:
    for method, path in two.operations():
        if method == "GET":
            assert two.ask(two.a, method, path).status_code == 200, path


def test_no_operation_gives_or_changes_what_is_anothers(two: Two) -> None:
    read = [path for method, path in two.operations() if method == "GET" and parameters(path)]
    pictures = ("overlay", "card")
    before = {p: two.ask(two.a, "GET", p).content for p in read if not p.endswith(pictures)}
    for method, path in two.operations():
        answer = two.ask(two.b, method, path)
        if parameters(path):
            assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
        else:
            assert answer.status_code < 300, f"{method} {path}: {answer.text}"
            assert not [s for s in two.secrets if s in answer.text], f"{method} {path}"
    assert {p: two.ask(two.a, "GET", p).content for p in before} == before
