"""A service with two clients, each with a key and items of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient

from filter_service import accounts
from filter_service.db.query_encoder import QueryVector
from filter_service.db.session import Sessions
from filter_service.moderation import drain
from filter_service.policy import Policy
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.bad_files import encoded, still
from tests.support.simple_classifier import DIM, POLICY, SimpleJudge, Subject, desk_of
from tests.support.web_clients import NullSeeker, web_service

GOOD = encoded(still(), "png")


URL = "https://shop.example.org/hook"


class AnySeeker(NullSeeker):
    """Looks for one direction, whatever the words."""

    def text(self, text: str) -> QueryVector:
        return QueryVector(1, np.eye(DIM, dtype=np.float32)[0], 1.0)

    def image(self, data: bytes) -> QueryVector:
        return self.text("")


class AnyJudge(SimpleJudge):
    """Flags whatever its bytes are."""

    def prepare(self, digest: str, load: Any, known: Any, coverage: Any = None) -> Subject:
        load()
        return Subject(digest, ["3"], known)


@dataclass
class World:
    """An app, and two clients of it who know nothing of each other."""

    app: FastAPI
    sessions: Sessions
    storage: Storage
    a: TestClient
    b: TestClient

    def key(self, name: str, **options: Any) -> TestClient:
        secret = accounts.add_key(self.sessions, name, "service", **options)
        return TestClient(self.app, headers={"Authorization": f"Bearer {secret}"})

    def work(self) -> None:
        """Judge everything that waits."""
        drain(desk_of(self.sessions, self.storage, AnyJudge()), lambda: False)


@pytest.fixture
def world(sessions: Sessions, storage: Storage) -> World:
    app = create_app(web_service(sessions, storage, seeker=AnySeeker(), webhook_private=True))
    made = World(app, sessions, storage, None, None)  # type: ignore[arg-type]
    made.a, made.b = made.key("a"), made.key("b")
    return made


def document(policy: Policy = POLICY) -> str:
    return yaml.safe_dump(policy.model_dump(mode="json"))


def submit(
    client: TestClient, *contents: bytes, policy: str = document(), key: str | None = None
) -> Any:
    files = [("files", (f"{n}.png", data)) for n, data in enumerate(contents or (GOOD,))]
    headers = {"Idempotency-Key": key} if key else {}
    answer = client.post("/v1/batches", files=files, data={"policy": policy}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def picture(seed: int) -> bytes:
    return encoded(still(seed), "png")


def items(client: TestClient, batch: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/batches/{batch}/items").json()["items"]
    return found


def hook(client: TestClient) -> int:
    made: int = client.post("/v1/webhooks", json={"url": URL}).json()["id"]
    return made
