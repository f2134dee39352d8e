"""Every operation with words that it does not know, and with values that nothing could be."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.storage import Storage
from filter_service.web.console.routes import PAGES
from tests.support.every_operation import ASKED, SENT, Two, two_clients
from tests.support.furnished import furnished
from tests.support.web_clients import app_of, client_of

HUGE = "1" + "0" * 22  # 23 digits
NO_NUMBERS = ("", "-1", HUGE, "1.5", "one", "NaN", "\x00", "1" * 5_000)
ODD_TEXTS = ("", " ", "x" * 10_000, "é\u202e[/x]%s{}", "%", "\x00")
NO_OBJECTS = (b"{", b"", b"[]", b"null", b'"x"', b"1e999", b"NaN", b"[" * 100_000, b"\xff\xfe")
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**22,
    1e308,
    [],
    {},
    [None],
    {"x": 1},
    "\ud800",
    *ODD_TEXTS,
)
UNKNOWN = "limitt"
JSON = "application/json"


@dataclass
class Operation:
    """One operation as it is described, asked by a client that may do everything."""

    two: Two
    method: str
    path: str
    described: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[dict[str, Any]]:
        return list(self.described.get("parameters", ()))

    @property
    def bodies(self) -> dict[str, Any]:
        """Content type -> schema."""
        content = self.described.get("requestBody", {"content": {}})["content"]
        return {kind: body["schema"] for kind, body in content.items()}

    def ask(self, query: dict[str, Any] | None = None, **sent: Any) -> Any:
        told = {"params": query or ASKED.get(self.name)} | (sent or SENT.get(self.name, {}))
        return self.two.a.request(self.method, self.path.format(**self.two.known), **told)

    def with_value(self, parameter: dict[str, Any], value: str) -> Any:
        name = parameter["name"]
        if parameter["in"] == "query":
            return self.ask((ASKED.get(self.name) or {}) | {name: value})
        if parameter["in"] == "header":
            return self.ask(headers={name: value.encode()}, **SENT.get(self.name, {}))
        known = self.two.known | {name: quote(value, safe="")}
        return self.two.a.request(self.method, self.path.format(**known), **SENT.get(self.name, {}))

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema that stands by itself, with what it refers to."""
        return {"components": self.two.app.openapi()["components"], **schema}

    def properties(self, kind: str) -> dict[str, Any]:
        schema = self.bodies[kind]
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            schema = self.two.app.openapi()["components"]["schemas"][name]
        found: dict[str, Any] = schema.get("properties", {})
        return found


@pytest.fixture
def operations(sessions: Sessions, storage: Storage) -> list[Operation]:
    """All of them; those that only read come first, and those that delete last."""
    two = two_clients(sessions, storage)
    paths = two.app.openapi()["paths"]
    found = [Operation(two, m.upper(), p, paths[p][m]) for p in paths for m in paths[p]]
    return sorted(found, key=lambda o: (o.method != "GET", o.method == "DELETE"))


def refused(answer: Any, *named: str) -> str | None:
    """Why an answer is no refusal in a sentence that names these; None if it is one."""
    if answer.status_code not in (400, 404, 413, 415, 422):
        return f"{answer.status_code} {answer.text[:200]}"
    told = json.dumps(answer.json(), ensure_ascii=False)
    missing = [n for n in named if n not in told]
    return f"{missing} not in {told[:300]}" if missing else None


def broken(answer: Any) -> str | None:
    """What is wrong with an answer to something odd that may be right."""
    if answer.status_code >= 500:
        return f"{answer.status_code} {answer.text[:200]}"
    said = answer.status_code < 400 or answer.json()["detail"]
    return None if said else f"{answer.status_code} without a sentence"


def faults(found: Iterator[tuple[str, str | None]]) -> str:
    return "\n".join(f"{where}: {wrong}" for where, wrong in found if wrong)


def test_an_unknown_parameter_is_named_and_so_are_the_known_ones(
    operations: list[Operation],
) -> None:
    def found() -> Iterator[tuple[str, str | None]]:
        for o in operations:
            known = [p["name"] for p in o.parameters if p["in"] == "query"]
            answer = o.ask((ASKED.get(o.name) or {}) | {UNKNOWN: "1"})
            yield o.name, refused(answer, UNKNOWN, *known)

    assert not faults(found())


def test_a_parameter_that_stands_twice_is_refused(operations: list[Operation]) -> None:
    def found() -> Iterator[tuple[str, str | None]]:
        for o in operations:
            for p in (p for p in o.parameters if p["in"] == "query"):
                given = {**(ASKED.get(o.name) or {}), p["name"]: ["1", "1"]}
                yield f"{o.name} {p['name']}", refused(o.ask(given), p["name"])

    assert not faults(found())


def test_an_unknown_field_of_a_body_is_named_and_so_are_the_known_ones(
    operations: list[Operation],
) -> None:
    def found() -> Iterator[tuple[str, str | None]]:
        for o in (o for o in operations if o.method != "GET"):
            kinds = o.bodies or {JSON: {}, "multipart/form-data": {}}
            for kind in (k for k in kinds if k in (JSON, "multipart/form-data")):
                known = o.properties(kind) if o.bodies else {}
                sent = {"json": {UNKNOWN: 1}} if kind == JSON else {"files": {UNKNOWN: (None, "1")}}
                yield f"{o.name} {kind}", refused(o.ask(**sent), UNKNOWN, *known)

    assert not faults(found())


def test_no_value_of_a_parameter_is_too_odd_for_a_sentence(operations: list[Operation]) -> None:
    def found() -> Iterator[tuple[str, str | None]]:
        for o in operations:
            for p in (p for p in o.parameters if p["in"] != "header"):
                number = p["schema"].get("type") == "integer"
                closed = number or p["schema"].get("format") == "uuid" or p["in"] == "path"
                values = NO_NUMBERS if number else ODD_TEXTS
                for value in values if p["in"] == "query" else filter(None, values):
                    answer = o.with_value(p, value)
                    must = closed or value == "\x00"
                    wrong = refused(answer) if must else broken(answer)
                    yield f"{o.name} {p['name']}={value[:30]!r}", wrong

    assert not faults(found())


def test_a_body_that_is_no_object_or_says_a_thing_twice_is_refused(
    operations: list[Operation],
) -> None:
    def found() -> Iterator[tuple[str, str | None]]:
        for o in (o for o in operations if JSON in o.bodies):
            for body in (*NO_OBJECTS, b" " * (5 * 2**20)):
                answer = o.ask(content=body, headers={"Content-Type": JSON})
                yield f"{o.name} {body[:20]!r}", refused(answer)
            name = next(iter(o.properties(JSON)))
            twice = o.ask(
                content=f'{{"{name}": "x", "{name}": "y"}}', headers={"Content-Type": JSON}
            )
            yield f"{o.name} twice {name}", refused(twice, name, "more than once")

    assert not faults(found())


def test_no_value_in_a_body_is_too_odd_for_a_sentence(operations: list[Operation]) -> None:
    def found() -> Iterator[tuple[str, str | None]]:
        for o in (o for o in operations if JSON in o.bodies):
            check = Draft202012Validator(o.resolved(o.bodies[JSON]))
            for name in o.properties(JSON):
                for value in WRONG:
                    body = {name: value}
                    allowed = all(list(e.path) != [name] for e in check.iter_errors(body))
                    text = json.dumps(body)
                    answer = o.ask(content=text, headers={"Content-Type": JSON})
                    wrong = refused(answer) if "\x00" in str(value) else broken(answer)
                    if not allowed:
                        wrong = refused(answer, name)
                    yield f"{o.name} {text[:60]}", wrong

    assert not faults(found())


def test_an_export_is_not_wider_than_what_was_meant(sessions: Sessions, storage: Storage) -> None:
    app, _ = furnished(sessions, storage)
    client = client_of(app, sessions, Role.AUDITOR)
    for address, near in (
        ("/exports/items.csv?verdit=clear", "verdict"),
        ("/figures.json?fro=", "from"),
    ):
        assert not refused(client.get(address), f"nearest is '{near}'")
    assert client.get("/exports/items.csv?verdict=clear").status_code == 200


FORM = "application/x-www-form-urlencoded"
TYPED = (HUGE, "é\u202e[/x]%s{}", "\x00")  # into an address or a form


def test_no_page_of_the_console_fails_for_what_is_typed(
    sessions: Sessions, storage: Storage
) -> None:
    app, batch = furnished(sessions, storage)
    described = app_of(app.state.service, *PAGES).openapi()
    clients = {
        role: TestClient(
            app,
            raise_server_exceptions=False,
            follow_redirects=False,
            headers=dict(client.headers),
            cookies=client.cookies,
        )
        for role in (Role.ADMIN, Role.CUSTODIAN)
        for client in [client_of(app, sessions, role)]
    }
    ids = {"item_id": "1", "batch": str(batch), "form": "csv", "kind": "json"}

    def found() -> Iterator[tuple[str, str | None]]:
        for path, method, operation in operations_in(described):
            names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
            sound = {name: ids.get(name, "1") for name in names}
            client = clients[Role.CUSTODIAN if path.startswith("/sealed") else Role.ADMIN]
            for (where, fields), value in product(asked_for(described, operation), TYPED):
                told = dict.fromkeys(fields, value)
                quoted = {name: quote(value, safe="") for name in fields if where == "path"}
                answer = client.request(
                    method,
                    path.format(**sound | quoted),
                    params=told if where == "query" else None,
                    data=told if where == "form" else None,
                )
                wrong = answer.status_code == 500 or not (answer.content or answer.is_redirect)
                said = f"{answer.status_code} {answer.text[:100]}"
                yield f"{method} {path} {fields}={value!r}", said if wrong else None

    assert not faults(found())


def operations_in(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """All but those that end the session with which the others are asked."""
    for path, methods in described["paths"].items():
        if path not in ("/logout", "/account"):
            yield from ((path, method, operation) for method, operation in methods.items())


def asked_for(
    described: dict[str, Any], operation: dict[str, Any]
) -> Iterator[tuple[str, list[str]]]:
    """Where values go, and what they are called: each parameter alone, a form as a whole."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "header":
            yield parameter["in"], [parameter["name"]]
    schema = operation.get("requestBody", {}).get("content", {}).get(FORM, {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    schema = described["components"]["schemas"].get(name, schema)
    if schema.get("properties"):
        yield "form", list(schema["properties"])
