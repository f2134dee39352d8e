"""Errors as problems and pages, headers, the description, and what is watched."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from filter_service import errors
from filter_service.accounts import Role
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.screening_checks import keep_pairs
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.encoder.screening_check import MarginPairs
from filter_service.errors import FilterServiceError
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.storage import Storage
from filter_service.web.app import create_app
from filter_service.web.http import problems
from filter_service.web.http.access import caller
from tests.support.served import picture
from tests.support.simple_classifier import POLICY
from tests.support.web_clients import client_of, key_client, web_service

PAGE = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    app = create_app(web_service(sessions, storage))

    @app.get("/raise/{name}", include_in_schema=False)
    @app.get("/v1/raise/{name}", include_in_schema=False)
    def raise_(name: str) -> None:
        if name == "ZeroDivisionError":
            _ = 1 / 0
        raise getattr(errors, name)(f"The sentence of {name}.")

    @app.get("/mine", dependencies=[Depends(caller)], include_in_schema=False)
    @app.post("/mine", dependencies=[Depends(caller)], include_in_schema=False)
    def mine() -> None:
        """For those who are signed in."""

    return app


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


EXPECTED = {
    "UnknownItem": 404,
    "UnknownEntry": 404,
    "InvalidRequest": 422,
    "InvalidPolicy": 422,
    "UnsafeAddress": 422,
    "UnreadableImage": 422,
    "ImageTooLarge": 413,
    "Conflict": 409,
    "NotSignedIn": 401,
    "NotAllowed": 403,
    "TooManyTries": 429,
    "DatabaseUnavailable": 503,
    "StorageUnavailable": 503,
    "InvalidSettings": 500,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_error_has_its_status_and_sentence(client: TestClient, name: str) -> None:
    answer = client.get(f"/v1/raise/{name}")
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, told["status"]) == (EXPECTED[name], EXPECTED[name])
    assert told["detail"] == (getattr(errors, name).public or f"The sentence of {name}.")
    assert set(told) == {"type", "title", "status", "detail"}


def test_every_error_of_ours_has_a_status() -> None:
    kinds = [FilterServiceError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    operators = {"InvalidSettings", "DatabaseOutdated", "UnknownModel", "ProcessFailed"}
    unknown = {k.__name__ for k in kinds[1:] if problems.status_of(k("")) == 500}
    assert unknown - {"Permanent"} == operators


def test_a_fault_of_ours_tells_nothing_of_its_cause(client: TestClient) -> None:
    answer = client.get("/v1/raise/ZeroDivisionError")
    assert (answer.status_code, answer.json()["detail"]) == (500, problems.INTERNAL)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [("GET", "/v1/nothing", 404), ("PUT", "/v1/batches", 405), ("DELETE", "/docs", 405)],
)
def test_what_is_not_there_is_a_problem_too(
    client: TestClient, method: str, address: str, status: int
) -> None:
    answer = client.request(method, address)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert address in answer.json()["detail"]


def test_an_invalid_request_lists_each_fault(app: FastAPI, sessions: Sessions) -> None:
    answer = key_client(app, sessions).get("/v1/batches/no-uuid/items?limit=0&verdict=fine")
    assert answer.status_code == 422
    pointers = {e["pointer"] for e in answer.json()["errors"]}
    assert pointers == {"#/path/batch", "#/query/limit", "#/query/verdict"}


def test_people_read_a_page(client: TestClient) -> None:
    answer = client.get("/raise/NotAllowed", headers=PAGE)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "The sentence of NotAllowed." in answer.text


def test_programs_read_no_page(client: TestClient) -> None:
    answer = client.get("/v1/raise/NotAllowed", headers=PAGE)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_page_says_nothing_that_is_not_escaped(client: TestClient) -> None:
    answer = client.get("/<script>alert(1)</script>", headers=PAGE)
    assert answer.status_code == 404
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    ("method", "to"), [("GET", "/login?next=%2Fmine%3Fa%3D1"), ("POST", "/login")]
)
def test_a_browser_is_led_to_the_log_in(client: TestClient, method: str, to: str) -> None:
    answer = client.request(method, "/mine?a=1", headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, to)


def test_a_program_is_told_how_to_sign_in(client: TestClient) -> None:
    answer = client.get("/v1/batches")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("address", ["/docs", "/live", "/v1/batches", "/nothing", "/static/x"])
def test_every_answer_is_shielded(client: TestClient, address: str) -> None:
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"unsafe|\*|data:|http", policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if "static" in address else "no-store")
    assert "strict-transport-security" not in headers


@pytest.mark.parametrize("path", ["/login", "/mine"])
def test_a_form_of_strangers_comes_to_an_end(client: TestClient, path: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"a" * 2**16

    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://testserver"}
    answer = client.post(path, content=endless(), headers=kind)
    assert answer.status_code == 413
    assert "1,048,576 bytes" in answer.json()["detail"]
    assert "default-src" in answer.headers["Content-Security-Policy"]


def test_https_is_remembered(sessions: Sessions, storage: Storage) -> None:
    service = web_service(sessions, storage, public_url="https://moderation.example.org")
    headers = TestClient(create_app(service)).get("/live").headers
    assert headers["strict-transport-security"].startswith("max-age=")


def test_the_description_is_a_page_with_no_script_but_our_own(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "POST /v1/batches" in page
    assert re.findall(r"<script[^>]*>", page) == [
        '<script src="/static/documentation.js" type="module">'
    ]
    assert "<code>undetermined</code>" in page and "`" not in page
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_every_problem_type_leads_to_its_description(client: TestClient) -> None:
    page = client.get("/docs").text
    for status in problems.TITLES:
        assert f'id="problem-{status}"' in page


def test_every_operation_says_how_to_sign_in(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    schemes = set(description["components"]["securitySchemes"])
    for path, methods in description["paths"].items():
        for told in methods.values():
            assert {name for s in told["security"] for name in s} == schemes, path
            assert told["summary"] and told["description"], path


def test_it_lives_and_is_ready(client: TestClient) -> None:
    assert client.get("/live").json() == {"status": "live"}
    assert client.get("/ready").json() == {"status": "ready"}


def test_it_lives_but_is_not_ready_without_a_database(storage: Storage) -> None:
    nowhere = connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    client = TestClient(create_app(web_service(sessions_of(nowhere), storage)))
    assert client.get("/live").status_code == 200
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, 503)


def test_no_client_is_shown_where_the_database_is(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = connect("postgresql+psycopg://somebody@127.0.0.1:1/nothing")
    client = TestClient(create_app(web_service(sessions_of(nowhere), storage)))
    answers = [client.get(page) for page in ("/ready", "/v1/batches", "/login")]
    bearer = {"Authorization": "Bearer fs_1_x"}
    answers.append(client.get("/v1/batches", headers=bearer))
    told = "".join(answer.text for answer in answers)
    assert 503 in {answer.status_code for answer in answers[1:]}
    assert [secret for secret in ("127.0.0.1", "somebody", "nothing") if secret in told] == []
    assert "127.0.0.1" in caplog.text


def test_no_client_is_shown_where_the_images_are(
    sessions: Sessions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").write_bytes(b"no folder")
    broken = Storage(str(tmp_path / "images"))
    client = key_client(create_app(web_service(sessions, broken)), sessions)
    with sessions.begin() as session:
        store_policy(session, POLICY)
    order = {"policy": POLICY.name}
    answer = client.post("/v1/batches", files=[("f", ("a.png", picture(1)))], data=order)
    assert (answer.status_code, str(tmp_path) in answer.text) == (503, False)
    assert str(tmp_path) in caplog.text


def test_metrics_ask_for_a_key(client: TestClient) -> None:
    assert client.get("/metrics").status_code == 401


def test_metrics_say_what_waits(app: FastAPI, sessions: Sessions, storage: Storage) -> None:
    files = [Submission("a", b"1"), Submission("b", b"2"), Submission("c", error="gone")]
    submissions.accept(sessions, storage, lambda: None, files, POLICY)
    client = key_client(app, sessions, all_clients=True)
    client.get("/v1/items/1")
    text = client.get("/metrics").text
    assert 'filter_service_items_waiting{stage="queued"} 2.0' in text
    assert "filter_service_deliveries_waiting 0.0" in text
    counted = {'method="GET"', 'route="/v1/items/{item}"', 'status="200"'}
    line = next(x for x in text.splitlines() if x.startswith("filter_service_http_requests_total{"))
    assert all(label in line for label in counted)


def test_requests_are_counted_by_route_and_never_by_address(
    app: FastAPI, sessions: Sessions
) -> None:
    client = key_client(app, sessions, all_clients=True)
    for address in ("/nowhere/1", "/v1/items/1/", "/v1/items/1"):
        client.get(address, follow_redirects=False)
    lines = client.get("/metrics").text.splitlines()
    counted = [x for x in lines if x.startswith("filter_service_http_requests_total{")]
    routes = {re.search('route="([^"]*)"', line)[1] for line in counted}  # type: ignore[index]
    assert routes == {"none", "/v1/items/{item}"}


def test_metrics_say_what_the_check_of_the_fast_pass_saw(app: FastAPI, sessions: Sessions) -> None:
    with sessions.begin() as session:
        encoder = register_encoder(session, "ab" * 32, "vit", 8, {})
    keep_pairs(sessions, encoder, MarginPairs(9, 1, 2.5, 4.0, 1), 5.0)
    text = key_client(app, sessions, all_clients=True).get("/metrics").text
    label = '{encoder="vit abababababab"}'
    assert f"filter_service_screening_pairs_total{label} 9.0" in text
    assert f"filter_service_screening_outside_total{label} 1.0" in text
    assert f"filter_service_screening_alarms_total{label} 1.0" in text
    assert f"filter_service_screening_furthest{label} 2.5" in text


def test_the_metrics_of_all_are_not_for_the_key_of_one_client(
    app: FastAPI, sessions: Sessions
) -> None:
    answer = key_client(app, sessions).get("/metrics")
    assert (answer.status_code, "--all-clients" in answer.json()["detail"]) == (403, True)


def test_an_auditor_reads_metrics_too(app: FastAPI, sessions: Sessions) -> None:
    assert client_of(app, sessions, Role.AUDITOR).get("/metrics").status_code == 200


def test_problems_are_described_as_they_are(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["Problem"]
    told = client.get("/v1/raise/Conflict").json()
    assert set(told) <= set(schema["properties"])
    assert json.dumps(told)
