"""Signing in at an identity provider: over real HTTP, with tokens that are really signed."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry
from filter_service.storage import Storage
from filter_service.web.console import accounts as people_pages
from filter_service.web.console import login
from tests.support.identity_provider import ANOTHER, CLIENT, SECRET, Faking, provider, shared_secret
from tests.support.web_clients import app_of, open_logins, somebody, web_service

PAGE = {"Accept": "text/html"}


@pytest.fixture
def faking() -> Iterator[Faking]:
    """A provider that does nothing wrong yet."""
    with provider() as found:
        yield found


@pytest.fixture
def app(sessions: Sessions, storage: Storage, faking: Faking) -> FastAPI:
    service = web_service(
        sessions,
        storage,
        oidc_issuer=faking.address,
        oidc_client_id=CLIENT,
        oidc_client_secret=SECRET,
    )
    return app_of(service, login, people_pages)


@pytest.fixture
def browser(app: FastAPI) -> TestClient:
    return TestClient(app, headers=PAGE, follow_redirects=False)


def at_provider(browser: TestClient, then: str = "/people") -> str:
    """Go there and sign in; the address that the provider sends the browser back to."""
    left = browser.get("/login/provider", params={"next": then})
    assert left.status_code == 303, left.text
    return httpx2.get(left.headers["location"]).headers["location"]


def back(browser: TestClient, address: str) -> Any:
    """The browser comes back."""
    parts = urlsplit(address)
    return browser.get(f"{parts.path}?{parts.query}")


def test_somebody_comes_in_by_their_subject(browser: TestClient, sessions: Sessions) -> None:
    somebody(sessions, Role.ADMIN, "ada", subject="sub-1")
    assert 'href="/login/provider?next=%2Fpeople"' in browser.get("/login?next=/people").text
    answer = back(browser, at_provider(browser))
    assert (answer.status_code, answer.headers["location"]) == (303, "/people")
    assert "ada" in browser.get("/people").text
    assert not browser.cookies.get("filter_service_attempt")


def test_a_verified_address_comes_in_and_is_known_by_its_subject(
    browser: TestClient, sessions: Sessions, faking: Faking
) -> None:
    somebody(sessions, Role.ADMIN, "ada@example.org")
    faking.wrong = {"claims": {"email": "Ada@Example.org", "email_verified": True}}
    assert back(browser, at_provider(browser)).headers["location"] == "/people"
    assert accounts.person_named(sessions, "ada@example.org").subject == "sub-1"
    verified = {"email": "ada@example.org", "email_verified": True}
    faking.wrong = {"claims": {"sub": "sub-2", **verified}}
    assert back(browser, at_provider(browser)).status_code == 403
    with sessions.begin() as session:
        events = session.scalars(select(LedgerEntry.event).order_by(LedgerEntry.id)).all()
    assert list(events) == ["person added", "person changed", "signed in"]


UNKNOWN: list[dict[str, Any]] = [
    {},
    {"email": "ada@example.org"},
    {"email": "ada@example.org", "email_verified": False},
    {"email": "ada@example.org", "email_verified": "true"},
    {"sub": "sub-2", "email": "eve@example.org", "email_verified": True},
]


def test_only_people_whom_an_admin_added_come_in(
    browser: TestClient, sessions: Sessions, faking: Faking
) -> None:
    somebody(sessions, Role.ADMIN, "ada@example.org")
    for claims in UNKNOWN:
        faking.wrong = {"claims": claims}
        answer = back(browser, at_provider(browser))
        assert answer.status_code == 403, claims
        assert "ask an admin to add you" in answer.text
    assert open_logins(sessions) == 0


def test_disabled_people_stay_out(browser: TestClient, sessions: Sessions) -> None:
    accounts.add_person(sessions, "ada", Profile(Role.SENIOR, subject="sub-1"), None, "service")
    accounts.disable_person(sessions, "ada", "service")
    assert back(browser, at_provider(browser)).status_code == 403


WRONG: list[dict[str, Any]] = [
    {"claims": {"nonce": "another"}},
    {"claims": {"nonce": None}},
    {"claims": {"aud": "another"}},
    {"claims": {"aud": [CLIENT, "another"], "azp": "another"}},
    {"claims": {"iss": "https://evil.example"}},
    {"claims": {"exp": int(time.time()) - 3600}},
    {"claims": {"exp": None}},
    {"claims": {"iat": int(time.time()) + 3600}},
    {"claims": {"sub": None}},
    {"claims": {"sub": ""}},
    {"key": ANOTHER},
    {"algorithm": "none"},
    {"algorithm": "HS256", "key": shared_secret()},
    {"issuer": "https://evil.example"},
]


def test_a_token_with_anything_wrong_signs_nobody_in(
    browser: TestClient, sessions: Sessions, faking: Faking
) -> None:
    somebody(sessions, Role.ADMIN, "ada", subject="sub-1")
    for fault in WRONG:
        faking.wrong = {}
        address = at_provider(browser)
        faking.wrong = fault
        answer = back(browser, address)
        assert answer.status_code == 401, fault
        assert "did not vouch" in answer.text or "calls itself" in answer.text
    assert open_logins(sessions) == 0


def test_a_log_in_belongs_to_the_browser_that_began_it(
    app: FastAPI, browser: TestClient, sessions: Sessions
) -> None:
    somebody(sessions, Role.ADMIN, "ada", subject="sub-1")
    address = at_provider(browser)
    other = TestClient(app, headers=PAGE, follow_redirects=False)
    assert back(other, address).status_code == 401
    at_provider(other)
    assert back(other, address).status_code == 401
    assert back(browser, address.replace("state=", "state=x")).status_code == 401
    for kept in ("nonsense", "bm9uc2Vuc2U=", "W10=", "bnVsbA==", "WyJcdWQ4MDAiLDEsMiwzXQ=="):
        other.cookies.clear()
        other.cookies.set("filter_service_attempt", kept)
        assert back(other, address).status_code == 401
    assert back(browser, address).status_code == 303


def test_a_code_is_good_once(browser: TestClient, sessions: Sessions) -> None:
    somebody(sessions, Role.ADMIN, "ada", subject="sub-1")
    address = at_provider(browser)
    attempt = browser.cookies["filter_service_attempt"]
    assert back(browser, address).status_code == 303
    browser.cookies.set("filter_service_attempt", attempt, domain="testserver.local")
    assert back(browser, address).status_code == 401


def test_what_the_provider_refuses_is_said(browser: TestClient) -> None:
    address = at_provider(browser).replace("code=", "error=access_denied&was=")
    answer = back(browser, address)
    assert answer.status_code == 401
    assert "access_denied" in answer.text


def test_a_provider_that_is_gone_is_said(sessions: Sessions, storage: Storage) -> None:
    gone = "http://127.0.0.1:9"
    service = web_service(sessions, storage, oidc_issuer=gone, oidc_client_id=CLIENT)
    app = app_of(service, login)
    answer = TestClient(app).get("/login/provider")
    assert answer.status_code == 503
    assert "does not answer" in answer.json()["detail"]


def test_nobody_is_led_elsewhere_after_it(browser: TestClient, sessions: Sessions) -> None:
    somebody(sessions, Role.ADMIN, "ada", subject="sub-1")
    answer = back(browser, at_provider(browser, "//evil.example/"))
    assert answer.headers["location"] == "/"
