"""Test clients of the web: a service on a real database, people signed in, API keys."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from types import ModuleType

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.accounts.logins import open_session
from filter_service.db.query_encoder import QueryEncoder, QueryVector, WordedPolicy
from filter_service.db.session import Sessions
from filter_service.db.tables import Login, Person
from filter_service.errors import ModelUnavailable, UnknownPerson
from filter_service.policy import Policy
from filter_service.scoring import PolicyVectors
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.web.http import problems, security_headers
from filter_service.web.http.access import cookie_name, csrf_token
from filter_service.web.http.service import Service


class NullSeeker:
    """There is no encoder to search with."""

    def text(self, text: str) -> QueryVector:
        raise ModelUnavailable(f"No encoder to look for {text!r} with: try again.")

    def image(self, data: bytes) -> QueryVector:
        raise ModelUnavailable(f"No encoder to look for {len(data)} bytes with: try again.")

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        raise ModelUnavailable(f"No encoder for the texts of {policy.name!r}: try again.")

    def words(self, policy: Policy) -> WordedPolicy:
        raise ModelUnavailable(f"No encoder for the texts of {policy.name!r}: try again.")


def web_service(
    sessions: Sessions,
    storage: Storage,
    notify_workers: Callable[[], object] = lambda: None,
    seeker: QueryEncoder | None = None,
    **settings: object,
) -> Service:
    """What `create_app` wants; the knock does nothing unless given."""
    known = {"data_dir": Path(gettempdir()) / "filter-service-tests", **settings}
    return Service(
        Settings.load(**known), sessions, storage, notify_workers, seeker or NullSeeker()
    )


def app_of(service: Service, *rooms: ModuleType) -> FastAPI:
    """Some rooms only, behind the same errors and headers as `create_app` puts them."""
    app = FastAPI()
    app.state.service = service
    problems.add_to(app)
    security_headers.add_to(app)
    for room in rooms:
        app.include_router(room.router)
    return app


def somebody(sessions: Sessions, role: Role, login: str = "", **profile: object) -> Person:
    """A person of a role, called like the role unless named; the one there is if called so."""
    login = login or role.value
    try:
        return accounts.person_named(sessions, login)
    except UnknownPerson:
        wanted = replace(Profile(role), **profile)  # type: ignore[arg-type]
        return accounts.add_person(sessions, login, wanted, None, "service")


def client_of(
    app: FastAPI, sessions: Sessions, role: Role, login: str = "", **profile: object
) -> TestClient:
    """A browser in which `somebody` is signed in; it sends the CSRF token as a header."""
    person = somebody(sessions, role, login, **profile)
    with sessions.begin() as session:
        token = open_session(session, person, "testclient", "test", hours=1)
    service: Service = app.state.service
    client = TestClient(app, headers={"X-CSRF-Token": csrf_token(token)})
    client.cookies.set(cookie_name(service.settings), token, domain="testserver.local")
    return client


def key_client(
    app: FastAPI,
    sessions: Sessions,
    name: str = "platform",
    client: str | None = "default",
    *,
    all_clients: bool = False,
) -> TestClient:
    """A platform with a new API key, of the client whose is what names none."""
    secret = accounts.add_key(sessions, name, "service", client, all_clients=all_clients)
    return TestClient(app, headers={"Authorization": f"Bearer {secret}"})


def open_logins(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(Login)) or 0
