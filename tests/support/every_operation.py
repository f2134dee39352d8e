"""Calls every operation of the API, with two clients and fitting parameters."""

import string
import uuid
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from filter_service.db.policies import store_policy
from filter_service.db.scope import DEFAULT
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredStatement
from filter_service.images import digest
from filter_service.storage import Storage
from tests.support.explained_items import noisy
from tests.support.furnished import furnished
from tests.support.review_cases import POLICY
from tests.support.web_clients import key_client

# What is sent where there is a body; an operation that wants another one has to be added here.
SENT: dict[str, dict[str, Any]] = {
    "POST /v1/batches": {
        "files": [("files", ("mine.png", noisy(1)))],  # the same picture as the other's
        "data": {"policy": POLICY.name},
    },
    "POST /v1/search": {"files": [("image", ("any.png", noisy(3)))]},
    "POST /v1/webhooks": {"json": {"url": "https://b.example.org/hook"}},
    "POST /v1/items/{item}/appeals": {"json": {"statement": "not mine"}},
    "POST /v1/items/{item}/reports": {"json": {"source": "user", "reason": "not mine"}},
}
SENT["POST /v1/policies/{policy}/proposals"] = {
    "json": {"policy": POLICY.model_dump(mode="json"), "reason": "mine now"}
}
ASKED = {"GET /v1/search": {"text": "anything"}}
URL = "https://a.example.org/hook"


@dataclass
class Two:
    """Two clients, one with everything and one with nothing, and the first one's ids."""

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


def two_clients(sessions: Sessions, storage: Storage) -> Two:
    """Two clients of one service, of which the first has a batch, a webhook and an appeal."""
    app, batch = furnished(sessions, storage)
    a, b = key_client(app, sessions, "a"), key_client(app, sessions, "b", client=None)
    webhook = a.post("/v1/webhooks", json={"url": URL}).json()["id"]
    message = a.post(f"/v1/webhooks/{webhook}/ping").json()["message_id"]
    appeal = a.post("/v1/items/1/appeals", json={"statement": "no"}).json()["id"]
    said = {"source": "user", "reason": "It is a gun.", "reference": "a-4711"}
    report = a.post("/v1/items/1/reports", json=said).json()["id"]
    puid = uuid.uuid4()
    with sessions.begin() as session:
        stated = {"document": {"puid": str(puid)}, "notice": "About your picture"}
        session.add(StoredStatement(puid=puid, item_id=1, language="en", **stated))
    with sessions.begin() as session:
        store_policy(session, POLICY.model_copy(update={"name": "own-of-a"}), DEFAULT)
    erasure = a.delete("/v1/items/2").json()["erasure"]
    known = {
        "batch": str(batch),
        "item": "1",
        "class_name": "gun",
        "webhook": str(webhook),
        "message_id": message,
        "appeal": appeal,
        "report": report,
        "policy": "own-of-a",
        "proposal": "1",
        "erasure": erasure,
    }
    ids = {known[name] for name in ("batch", "message_id", "appeal", "report", "erasure")}
    return Two(app, a, b, known, ids | {str(puid), "own-of-a", URL, "a-4711", digest(noisy(2))})


def named_in(path: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(path) if name}
