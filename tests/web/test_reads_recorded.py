"""Nobody is sent an image, an export or what a search found before the ledger says so."""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import Engine, Text, cast, exists, func, or_, select
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from filter_service.accounts import Role
from filter_service.accounts.callers import Caller
from filter_service.db.query_encoder import QueryVector
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    LedgerEntry,
    LedgerPayload,
    StoredExplanation,
    StoredImage,
)
from filter_service.local import Services
from filter_service.storage import Storage
from filter_service.web.api.routes import RESOURCES
from filter_service.web.app import create_app
from filter_service.web.console.routes import PAGES
from filter_service.web.console.search import vector_of
from tests.support.console_world import World, world_over
from tests.support.web_clients import NullSeeker, client_of, key_client

pytest_plugins = ["tests.support.console_fixtures"]


@dataclass
class Fixed(NullSeeker):
    """Whatever is looked for, it is here."""

    sought: QueryVector

    def text(self, text: str) -> QueryVector:
        return self.sought

    def image(self, data: bytes) -> QueryVector:
        return self.sought


class Watched(Storage):
    """Notes of every image that is read whether the ledger knew of it by then."""

    def __init__(self, url: str, sessions: Sessions) -> None:
        super().__init__(url)
        self.sessions = sessions
        self.reads: list[tuple[str, bool]] = []  # digest, and whether it was told

    def get(self, digest: str) -> bytes:
        # Blurred pictures are made of so few points that nothing can be recognised.
        if not any(frame.name == "points" for frame in traceback.extract_stack()):
            self.reads.append((digest, self._is_told(digest)))
        return super().get(digest)

    def _is_told(self, digest: str) -> bool:
        of_item = exists().where(
            Item.id == LedgerEntry.item_id,
            Item.image_id == StoredImage.id,
            StoredImage.digest == digest,
        )
        beside = cast(LedgerPayload.details, Text).contains(digest)
        told = select(LedgerEntry.id).where(LedgerEntry.event == "revealed", or_(of_item, beside))
        with self.sessions.begin() as session:
            return session.scalar(told.limit(1)) is not None


@dataclass
class Watch:
    """An app, with what the ledger held of an event whenever an answer began."""

    app: FastAPI
    sessions: Sessions
    event: str
    before: list[int] = field(default_factory=list)

    @property
    def state(self) -> object:
        return self.app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.before.append(await run_in_threadpool(self._count))
            await send(message)

        await self.app(scope, receive, noted)

    def _count(self) -> int:
        query = select(func.count()).where(LedgerEntry.event == self.event)
        with self.sessions.begin() as session:
            return session.scalar(query) or 0


@dataclass(frozen=True)
class Watching:
    """A console whose images are watched, and an item with an explanation."""

    world: World
    app: FastAPI
    storage: Watched
    item: int
    named: dict[str, object]  # what stands for the parameters of paths


@pytest.fixture
def watching(admin: Engine, servers: Services, judged: Path) -> Iterator[Watching]:
    with world_over(admin, servers, judged) as world:
        sessions = world.sessions
        storage = Watched(world.service.storage.url, sessions)
        with sessions.begin() as session:
            # One whose card shows another image beside it.
            item, name = session.execute(
                select(
                    StoredExplanation.item_id, StoredExplanation.record["class_name"].as_string()
                )
                .where(StoredExplanation.record["images", 0, "digest"].as_string().is_not(None))
                .where(StoredExplanation.faithful)
                .order_by(StoredExplanation.item_id)
            ).first() or (0, "")
            digest = session.scalar(
                select(StoredImage.digest)
                .join(Item, Item.image_id == StoredImage.id)
                .where(Item.id == item)
            )
        sought, _ = vector_of(world.service.sessions, Caller("service", Role.SERVICE, None), item)
        service = replace(world.service, storage=storage, seeker=Fixed(sought))
        named = {"item": item, "item_id": item, "digest": digest, "class_name": name, "n": 0}
        yield Watching(world, create_app(service), storage, item, named)


def addresses(watching: Watching) -> list[str]:
    """Everything that can be fetched, with the item for whatever a path names."""
    routes = [r for room in (*RESOURCES, *PAGES) for r in room.router.routes]
    found = []
    for route in routes:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            names = {n: watching.named.get(n, "1") for n in route.param_convertors}
            found.append(route.path_format.format(**names))
    return found


def clients(watching: Watching) -> list[TestClient]:
    sessions = watching.world.sessions
    roles = (Role.ADMIN, Role.AUDITOR, Role.MODERATOR)
    return [
        *(client_of(watching.app, sessions, role) for role in roles),
        key_client(watching.app, sessions),
    ]


def test_no_address_gives_an_image_that_is_not_written_down(watching: Watching) -> None:
    paths = addresses(watching)
    assert f"/pictures/{watching.item}/original" in paths
    for client in clients(watching):
        for path in paths:
            assert client.get(path).status_code < 500, path
    assert [digest for digest, told in watching.storage.reads if not told] == []
    beside = {digest for digest, _ in watching.storage.reads} - {watching.named["digest"]}
    assert beside, "a platform's card shows another image, too"


def test_who_revealed_an_image_is_sent_it(watching: Watching) -> None:
    client = client_of(watching.app, watching.world.sessions, Role.MODERATOR)
    original = f"/pictures/{watching.item}/original"
    assert client.get(original).status_code == 403
    assert watching.storage.reads == []
    assert client.post(f"/items/{watching.item}/reveal").status_code == 200
    assert client.get(original).status_code == 200
    assert watching.storage.reads == [(watching.named["digest"], True)]


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("/search?q=a+knife", "searched"),
        ("/search?like={item}", "searched"),
        ("/v1/search?text=a+knife", "searched"),
        ("/exports/items.csv", "exported"),
        ("/exports/items.jsonl?verdict=flagged", "exported"),
        ("/exports/items.parquet", "exported"),
        ("/items/{item}/record", "record read"),
        ("/items/{item}/record.html", "record read"),
        ("/audit?event=judged", "searched"),
    ],
)
def test_the_ledger_knows_before_the_answer_begins(
    watching: Watching, path: str, event: str
) -> None:
    watch = Watch(watching.app, watching.world.sessions, event)
    client = client_of(watch, watching.world.sessions, Role.AUDITOR)  # type: ignore[arg-type]
    answer = client.get(path.format(item=watching.item))
    assert answer.status_code == 200
    assert watch.before == [1]
