"""A console over the demo's judged samples, copied for every test.

The fixtures are in `tests.support.console_fixtures`.
"""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import PIL.Image
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import BrowserContext
from sqlalchemy import Engine, select
from starlette.types import Message, Receive, Scope, Send

from filter_service.accounts import Role
from filter_service.accounts.logins import open_session
from filter_service.db.query_encoder import LazyQueryEncoder
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import Item, Person
from filter_service.demo import SAMPLES
from filter_service.intake.submissions import Submission
from filter_service.local import Services
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.web.app import create_app
from filter_service.web.http.access import cookie_name
from filter_service.web.http.service import Service
from tests.conftest import database_from
from tests.support.web_clients import somebody, web_service

JUDGED = "judged_demo"  # the database that `tests.support.console_fixtures` fills once


@dataclass(frozen=True)
class World:
    """A console over judged samples, which nobody has reviewed."""

    app: FastAPI
    service: Service
    sent: list[tuple[str, bytes]] = field(default_factory=list)  # path and body of every answer

    @property
    def sessions(self) -> Sessions:
        return self.service.sessions

    def sign_in(self, context: BrowserContext, address: str, role: Role, login: str = "") -> Person:
        """Give a browser the session of somebody, as if they had logged in."""
        person = somebody(self.sessions, role, login)
        with self.sessions.begin() as session:
            token = open_session(session, person, "browser", "test", hours=1)
        context.add_cookies(
            [{"name": cookie_name(self.service.settings), "value": token, "url": address}]
        )
        return person

    def item(self, source: str) -> int:
        """The item of a sample file."""
        with self.sessions.begin() as session:
            return session.scalars(select(Item.id).where(Item.source == source)).one()

    async def _recorded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The console, with everything that it sends written down."""
        parts: list[bytes] = []

        async def noted(message: Message) -> None:
            parts.append(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, noted)
        self.sent.append((scope["path"], b"".join(parts)))

    @contextmanager
    def served(self) -> Iterator[str]:
        """The console on a port of its own; -> its address."""
        config = uvicorn.Config(
            self._recorded,
            port=0,
            log_level="warning",
            ws="none",
            lifespan="off",
            interface="asgi3",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@contextmanager
def world_over(
    admin: Engine, servers: Services, judged: Path, **settings: object
) -> Iterator[World]:
    """A console over a copy of what was judged, with the model to search with."""
    for url in database_from(admin, servers, JUDGED):
        engine = connect(url)
        sessions = sessions_of(engine)
        storage = Storage(str(judged / "images"))
        seeker = LazyQueryEncoder(Settings(data_dir=judged, device="cpu"), sessions)
        settings["data_dir"] = judged
        service = web_service(sessions, storage, lambda: None, seeker, **settings)
        try:
            yield World(create_app(service), service)
        finally:
            engine.dispose()


def labelled(forbidden: bool) -> list[str]:
    """The samples that show something forbidden, or those that do not."""
    lines = (SAMPLES / "labels.jsonl").read_text().splitlines()
    labels = [json.loads(line) for line in lines]
    return [label["file"] for label in labels if bool(label["classes"]) == forbidden]


def copies(name: str, count: int) -> list[Submission]:
    """The same picture, compressed again."""
    found = []
    for i in range(count):
        file = io.BytesIO()
        PIL.Image.open(SAMPLES / name).save(file, "JPEG", quality=80 - 7 * i)
        found.append(Submission(f"{Path(name).stem}-copy-{i}.jpg", file.getvalue()))
    return found
