"""Who is let in, how, and what a request that changes something must bring."""

import json
import re
from base64 import urlsafe_b64encode
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Form, UploadFile
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from filter_service import accounts
from filter_service.accounts import ABILITIES, Ability, Profile, Role, login_throttle
from filter_service.accounts.callers import Caller
from filter_service.db.session import Sessions
from filter_service.storage import Storage
from filter_service.web.console import accounts as people_pages
from filter_service.web.console import login
from filter_service.web.console.login import local
from filter_service.web.http.access import able, csrf_token
from tests.support.web_clients import (
    app_of,
    client_of,
    key_client,
    open_logins,
    somebody,
    web_service,
)

Reader = Annotated[Caller, Depends(able(Ability.READ))]

PASSWORD = "correct horse battery staple"
PAGE = {"Accept": "text/html"}
SECRET = re.compile(r'id="once" value="([^"]+)"')


def probed(app: FastAPI) -> FastAPI:
    """With three routes that tell who asked."""

    @app.get("/probe")
    def look(who: Reader) -> dict[str, str]:
        return {"actor": who.actor, "role": who.role}

    @app.post("/probe")
    def change(who: Reader, text: Annotated[str, Form()] = "") -> str:
        return text

    @app.post("/probe/file")
    def upload(who: Reader, file: UploadFile) -> int:
        return len(file.file.read())

    for ability in Ability:
        app.get(f"/able/{ability.name}", dependencies=[Depends(able(ability))])(lambda: "yes")
    return app


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return probed(app_of(web_service(sessions, storage), login, people_pages))


@pytest.fixture
def browser(app: FastAPI) -> TestClient:
    """One in which nobody is signed in."""
    return TestClient(app, headers=PAGE, follow_redirects=False)


@pytest.fixture
def boss(app: FastAPI, sessions: Sessions) -> TestClient:
    return client_of(app, sessions, Role.ADMIN)


@pytest.fixture
def ada(sessions: Sessions) -> None:
    """Somebody with a password."""
    accounts.add_person(sessions, "ada", Profile(Role.MODERATOR), PASSWORD, "service")


def test_a_person_is_known_by_their_cookie(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.MODERATOR)
    assert client.get("/probe").json() == {"actor": "person moderator", "role": "moderator"}


def test_a_platform_is_known_by_its_key(app: FastAPI, sessions: Sessions) -> None:
    client = key_client(app, sessions, "shop")
    assert client.get("/probe").json() == {"actor": "key shop", "role": "service"}
    assert client.post("/probe", data={"text": "a"}).json() == "a"
    accounts.revoke_key(sessions, accounts.keys(sessions)[0][0].id, "service")
    assert client.get("/probe").status_code == 401


STRANGERS: list[dict[str, Any]] = [
    {},
    {"Authorization": "Bearer fsk_nonsense"},
    {"Authorization": "Bearer"},
    {"Authorization": "Basic YWRhOmFkYQ=="},
    {"Cookie": "filter_service=nonsense"},
    {"Cookie": "filter_service="},
    {"Cookie": b"filter_service=\xff\xfe"},
]


def test_nobody_else_is_known(app: FastAPI) -> None:
    client = TestClient(app)
    for headers in STRANGERS:
        for answer in (
            client.get("/probe", headers=headers),
            client.post("/probe", headers=headers),
        ):
            assert answer.status_code == 401, headers
            assert answer.headers["content-type"] == "application/problem+json"


def test_a_browser_is_led_to_the_log_in_page_and_back(browser: TestClient, ada: None) -> None:
    led = browser.get("/probe?a=1&b=2")
    assert (led.status_code, led.headers["location"]) == (
        303,
        "/login?next=%2Fprobe%3Fa%3D1%26b%3D2",
    )
    page = browser.get(led.headers["location"])
    found = re.search('name="next" value="([^"]*)"', page.text)
    assert found is not None
    form = {"login": "ada", "password": PASSWORD, "next": found[1].replace("&amp;", "&")}
    answer = browser.post("/login", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/probe?a=1&b=2")
    assert browser.get("/probe").json()["actor"] == "person ada"
    assert browser.get("/login").headers["location"] == "/"


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/",
        "//example.org/",
        "/\\example.org/",
        "\\\\example.org/",
        "/\t/example.org/",
        "/\n/example.org/",
        " //example.org/",
        "javascript:alert(1)",
        "example.org",
        "",
    ],
)
def test_signing_in_leads_nowhere_else(address: str) -> None:
    assert local(address) == "/"


def test_addresses_of_ours_are_kept() -> None:
    for address in ("/", "/queue?class=a%2Fb&held=mine", "/items/7#map"):
        assert local(address) == address


def test_a_wrong_password_is_said_on_the_page(browser: TestClient, ada: None) -> None:
    answer = browser.post("/login", data={"login": "ada<", "password": "wrong"})
    assert answer.status_code == 401
    assert "do not belong together" in answer.text
    assert 'value="ada&lt;"' in answer.text
    assert not answer.cookies


def test_the_page_says_how_long_to_wait(browser: TestClient, sessions: Sessions) -> None:
    for _ in range(login_throttle.BY_NAME):
        login_throttle.count(sessions, "ada", "192.0.2.1")
    answer = browser.post("/login", data={"login": "ada", "password": PASSWORD})
    assert answer.status_code == 429
    assert "try again in 15 minutes" in answer.text


ELSEWHERE = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://testserver.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"},
]
OURS = [{"Origin": "http://testserver"}, {"Sec-Fetch-Site": "same-origin"}, {}]


def test_only_our_own_form_signs_in(browser: TestClient, ada: None) -> None:
    form = {"login": "ada", "password": PASSWORD}
    for headers in ELSEWHERE:
        assert browser.post("/login", data=form, headers=headers).status_code == 403, headers
    assert browser.get("/probe").status_code == 303
    for headers in OURS:
        assert browser.post("/login", data=form, headers=headers).status_code == 303, headers


def test_forms_of_a_session_bring_its_token(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.MODERATOR)
    token = client.headers.pop("X-CSRF-Token")
    assert client.get("/probe").status_code == 200
    assert client.post("/probe", data={"text": "a", "csrf_token": token}).json() == "a"
    form = {"csrf_token": token}
    assert client.post("/probe/file", data=form, files={"file": b"abc"}).json() == 3
    assert client.post("/probe", headers={"X-CSRF-Token": token}).status_code == 200


def test_a_request_without_the_sessions_token_changes_nothing(
    app: FastAPI, sessions: Sessions
) -> None:
    client = client_of(app, sessions, Role.MODERATOR)
    other = client_of(app, sessions, Role.SENIOR).headers["X-CSRF-Token"]
    del client.headers["X-CSRF-Token"]
    for sent in ({}, {"csrf_token": ""}, {"csrf_token": other}, {"csrf_token": "\udcff"}):
        form = {"text": "a", **sent}
        assert client.post("/probe", content=form_of(form), headers=FORM).status_code == 403
    assert client.post("/probe", json={"csrf_token": other}).status_code == 403
    assert client.post("/logout").status_code == 403
    assert client.get("/probe").status_code == 200


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def form_of(fields: dict[str, str]) -> bytes:
    return "&".join(f"{k}={v}" for k, v in fields.items()).encode(errors="surrogateescape")


def test_a_key_beside_a_cookie_is_who_asks(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.ADMIN)
    secret = accounts.add_key(sessions, "shop", "service")
    answer = client.get("/probe", headers={"Authorization": f"Bearer {secret}"})
    assert answer.json()["actor"] == "key shop"
    del client.headers["X-CSRF-Token"]
    assert client.post("/probe", headers={"Authorization": "Basic eA=="}).status_code == 403


def test_a_cookie_is_for_browsers_alone(browser: TestClient, ada: None) -> None:
    answer = browser.post("/login", data={"login": "ada", "password": PASSWORD})
    kept = answer.headers["set-cookie"]
    assert kept.startswith("filter_service=")
    assert {"HttpOnly", "SameSite=lax", "Max-Age=43200", "Path=/"} <= set(kept.split("; "))
    assert "Secure" not in kept


def test_a_cookie_stays_on_https(sessions: Sessions, storage: Storage, ada: None) -> None:
    service = web_service(sessions, storage, public_url="https://filter.example")
    app = app_of(service, login)
    client = TestClient(app, base_url="https://filter.example", follow_redirects=False)
    form = {"login": "ada", "password": PASSWORD}
    answer = client.post("/login", data=form, headers={"Origin": "https://filter.example"})
    assert answer.headers["set-cookie"].startswith("__Host-filter_service=")
    assert "Secure" in answer.headers["set-cookie"]
    assert client.get("/password").status_code == 200


def test_the_csrf_token_does_not_tell_the_session(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.ADMIN)
    token = client.cookies["filter_service"]
    page = client.get("/people").text
    assert csrf_token(token) in page
    assert token not in page


def test_signing_out_ends_the_session(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.MODERATOR)
    token = client.cookies["filter_service"]
    answer = client.post("/logout", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "filter_service" not in client.cookies
    assert accounts.person_of(sessions, token) is None


def test_a_role_opens_what_it_may(app: FastAPI, sessions: Sessions) -> None:
    for role in (role for role in Role if role is not Role.SERVICE):
        client = client_of(app, sessions, role)
        opened = {a for a in Ability if client.get(f"/able/{a.name}").status_code == 200}
        assert opened == ABILITIES[role], role


def test_only_admins_see_people_and_keys(app: FastAPI, sessions: Sessions) -> None:
    for role in (Role.MODERATOR, Role.SENIOR, Role.POLICY_EDITOR, Role.AUDITOR):
        client = client_of(app, sessions, role)
        for path in ("/people", "/keys"):
            assert client.get(path).status_code == client.post(path).status_code == 403
    assert key_client(app, sessions).get("/people").status_code == 403


def test_an_admin_adds_somebody_who_signs_in(
    boss: TestClient, browser: TestClient, sessions: Sessions
) -> None:
    form = {"login": "Eve", "name": "<b>Eve", "role": "senior", "classes": "gun, knife"}
    page = boss.post("/people", data={**form, "reveal_cap": "7"})
    found = SECRET.search(page.text)
    assert found is not None
    assert "<b>Eve" not in page.text
    eve = accounts.person_named(sessions, "eve")
    assert Profile.of(eve) == Profile(Role.SENIOR, "<b>Eve", ("gun", "knife"), 7)
    answer = browser.post("/login", data={"login": "eve", "password": found[1]})
    assert answer.status_code == 303
    assert found[1] not in boss.get("/people").text


WRONG = [
    ({"login": "admin", "role": "moderator"}, 409, "called &#39;admin&#39; already"),
    ({"login": "a b", "role": "moderator"}, 422, "must start with a letter"),
    ({"login": "eve", "role": "service"}, 422, "&#39;service&#39; is no role"),
    ({"login": "eve", "role": "senior", "reveal_cap": "-1"}, 422, "must be a count from 0"),
]


def test_a_form_that_breaks_a_rule_says_which(boss: TestClient) -> None:
    for form, status, sentence in WRONG:
        answer = boss.post("/people", data={**form, "vouched": "yes"})
        assert answer.status_code == status
        assert sentence in answer.text
        assert "shown this once" not in answer.text
        assert f'name="login" value="{form["login"]}"' in answer.text


def test_an_admin_changes_and_disables_somebody(
    app: FastAPI, boss: TestClient, sessions: Sessions
) -> None:
    eve = client_of(app, sessions, Role.MODERATOR, "eve@example.org")
    page = boss.post("/people/eve%40example.org", data={"role": "auditor", "reveal_cap": "0"})
    assert page.status_code == 200
    assert eve.get("/probe").json()["role"] == "auditor"
    boss.post("/people/eve@example.org/disable")
    assert eve.get("/probe").status_code == 401
    assert "disabled 20" in boss.get("/people").text
    boss.post("/people/eve@example.org/enable")
    assert accounts.person_named(sessions, "eve@example.org").disabled_at is None
    assert boss.post("/people/nobody/disable").status_code == 404


def test_an_admin_resets_a_password(
    boss: TestClient, browser: TestClient, ada: None, sessions: Sessions
) -> None:
    browser.post("/login", data={"login": "ada", "password": PASSWORD})
    found = SECRET.search(boss.post("/people/ada/password").text)
    assert found is not None
    assert browser.get("/probe").status_code == 303
    assert accounts.authenticate(sessions, "ada", found[1], "192.0.2.1")


def test_the_last_admin_cannot_leave_by_the_page(boss: TestClient) -> None:
    for path, form in (("disable", {}), ("", {"role": "moderator"})):
        answer = boss.post(f"/people/admin/{path}".rstrip("/"), data=form)
        assert answer.status_code == 409
        assert "is the last admin" in answer.text


def test_people_change_their_own_password(
    browser: TestClient, ada: None, sessions: Sessions
) -> None:
    browser.post("/login", data={"login": "ada", "password": PASSWORD})
    before = browser.cookies["filter_service"]
    sent = {"csrf_token": csrf_token(before), "password": PASSWORD, "new": "a longer password"}
    assert browser.post("/password", data={**sent, "again": "other"}).status_code == 422
    wrong = {**sent, "password": "wrong", "again": sent["new"]}
    assert browser.post("/password", data=wrong).status_code == 401
    assert browser.post("/password", data={**sent, "again": sent["new"]}).status_code == 303
    assert browser.get("/probe").json()["actor"] == "person ada"
    assert accounts.person_of(sessions, before) is None
    assert open_logins(sessions) == 1


def test_a_key_is_shown_once_and_revoked(app: FastAPI, boss: TestClient) -> None:
    found = SECRET.search(boss.post("/keys", data={"name": "shop"}).text)
    assert found is not None
    platform = TestClient(app, headers={"Authorization": f"Bearer {found[1]}"})
    assert platform.get("/probe").json()["actor"] == "key shop"
    page = boss.get("/keys").text
    assert found[1] not in page
    assert f"{found[1][:12]}…" in page
    assert boss.post("/keys", data={"name": "shop"}).status_code == 409
    path = re.search(r"/keys/\d+/revoke", page)
    assert path is not None
    assert "revoked 20" in boss.post(path[0]).text
    assert platform.get("/probe").status_code == 401


def test_long_lists_have_pages(boss: TestClient, sessions: Sessions) -> None:
    for n in range(51):
        somebody(sessions, Role.MODERATOR, f"m{n:02}")
        accounts.add_key(sessions, f"k{n:02}", "service")
    for path, last in (("/people", "m50"), ("/keys", "k50")):
        page = boss.get(path).text
        assert last not in page
        more = re.search(rf'href="({path}\?after=[^"]+)"', page)
        assert more is not None
        assert last in boss.get(more[1]).text


def test_a_session_is_not_prolonged_by_using_it(
    app: FastAPI, sessions: Sessions, owner: Engine
) -> None:
    client = client_of(app, sessions, Role.MODERATOR)
    with owner.begin() as connection:
        connection.execute(text("UPDATE logins SET expires_at = now()"))
    assert client.get("/probe").status_code == 401


def test_no_provider_is_offered_where_none_is_set(browser: TestClient) -> None:
    assert "/login/provider" not in browser.get("/login").text
    assert browser.get("/login/provider").status_code == 422
    kept = urlsafe_b64encode(json.dumps(["a", "b", "c", "/"]).encode()).decode()
    browser.cookies.set("filter_service_attempt", kept)
    assert browser.get("/login/callback?state=a&code=b").status_code == 422
