"""Submitting over HTTP: what comes in whole, what is refused, and what a killed server leaves."""

import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text

from filter_service import accounts
from filter_service.accounts import Role
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Fetch, IdempotencyKey, Item, QueueEntry
from filter_service.intake.item_lists import CHUNK
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from filter_service.web.http.uploads import cleaned
from tests.support.bad_files import encoded, png, still
from tests.support.serving import serving
from tests.support.simple_classifier import POLICY
from tests.support.web_clients import client_of, key_client, web_service

GOOD = encoded(still(), "png")
DOCUMENT = yaml.safe_dump(POLICY.model_dump(mode="json"))


@pytest.fixture
def knocks() -> list[None]:
    return []


@pytest.fixture
def client(sessions: Sessions, storage: Storage, knocks: list[None]) -> TestClient:
    service = web_service(
        sessions,
        storage,
        lambda: knocks.append(None),
        fetch_hosts=("images.example.org",),
        upload_files=5,
        upload_bytes=200_000,
        max_bytes=50_000,
    )
    with sessions.begin() as session:
        store_policy(session, POLICY)
    return key_client(create_app(service), sessions)


Answer = Any  # of the test client, which is built on one of two libraries
Files = list[tuple[str, tuple[str, bytes]]]


def files(*named: tuple[str, bytes]) -> Files:
    return [("files", file) for file in named]


def submit(client: TestClient, *named: tuple[str, bytes], **fields: Any) -> Answer:
    key = fields.pop("key", None)
    headers = {"Idempotency-Key": key} if key else {}
    data = {"policy": POLICY.name, **fields}
    return client.post("/v1/batches", files=files(*named), data=data, headers=headers)


def items(client: TestClient, answer: Answer) -> list[dict[str, Any]]:
    assert answer.status_code == 202, answer.text
    found: list[dict[str, Any]] = client.get(f"{answer.headers['Location']}/items").json()["items"]
    return found


def lines(*uris: str) -> bytes:
    return "".join(json.dumps({"source-ref": uri}) + "\n" for uri in uris).encode()


def count(sessions: Sessions, table: type) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_every_file_becomes_an_item(client: TestClient, knocks: list[None]) -> None:
    found = items(client, submit(client, ("a.png", GOOD), ("b/c.png", GOOD)))
    assert [i["source"] for i in found] == ["a.png", "b/c.png"]
    assert knocks


def test_a_batch_tells_its_progress(client: TestClient) -> None:
    answer = submit(client, ("a.png", GOOD), ("b.png", b"no image"), label="Tuesday", priority=3)
    told = client.get(answer.headers["Location"]).json()
    assert (told["label"], told["priority"], told["total"]) == ("Tuesday", 3, 2)
    some = {state: n for state, n in told["progress"].items() if n}
    assert some == {"undetermined": 1, "waiting": 1}
    assert told["policy"] == {"name": POLICY.name, "digest": POLICY.digest}


BAD = {
    "nothing in it": (b"", "is empty (0 bytes)"),
    "no image": (b"<!doctype html><p>Hello</p>", "is in the format HTML"),
    "a zip bomb": (b"PK\x03\x04" + bytes(99), "archives are not unpacked"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "archives are not unpacked"),
    "a decompression bomb": (png(40_000, 40_000, (b"IDAT", b"x")), "submit a smaller image"),
    "too large": (GOOD + bytes(50_000), "the limit is 50,000"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_spoils_no_good_one(client: TestClient, what: str) -> None:
    data, sentence = BAD[what]
    good, bad, other = items(client, submit(client, ("1", GOOD), ("2", data), ("3", GOOD)))
    assert (good["verdict"], other["verdict"]) == (None, None)
    assert bad["verdict"] == "undetermined"
    assert sentence in bad["reason"]


NAMES = {
    "../../etc/passwd": "etc/passwd",
    "/etc/passwd": "etc/passwd",
    "..\\..\\boot.ini": "boot.ini",
    "a\x00b.png": "a�b.png",
    "a\u202egnp.exe": "a�gnp.exe",
    "..": "unnamed",
    "": "unnamed",
    "x" * 2000: "x" * 1000,
    "fine/näme.png": "fine/näme.png",
}


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_lead_nowhere(name: str) -> None:
    assert cleaned(name) == NAMES[name]


def raw_form(filename: bytes) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    return (
        part % (b"policy", b"", POLICY.name.encode())
        + part % (b"files", b'; filename="' + filename + b'"', GOOD)
        + b"--b--\r\n"
    )


@pytest.mark.parametrize(
    "name", [b"../../x.png", b"..%2fx.png", b"\xff\xfe.png", b"a/../../x.png", b"a\0b.png"]
)
def test_hostile_names_are_kept_for_people_only(
    client: TestClient, tmp_path: Path, name: bytes
) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    (item,) = items(client, client.post("/v1/batches", content=raw_form(name), headers=kind))
    assert item["source"].isprintable()
    assert ".." not in item["source"].split("/")
    assert not list(tmp_path.rglob("*.png"))


REFUSED: dict[str, tuple[int, str, Callable[[TestClient], Answer]]] = {
    "too many bytes": (413, "200,000 bytes", lambda c: submit(c, ("a", bytes(250_000)))),
    "too many files": (413, "5 files", lambda c: submit(c, *[(str(i), GOOD) for i in range(6)])),
    "no file": (
        422,
        "holds no file",
        lambda c: c.post("/v1/batches", files={"policy": (None, "x")}),
    ),
    "no policy": (422, "#/body/policy", lambda c: c.post("/v1/batches", files=files(("a", GOOD)))),
    "unknown policy": (404, "'nothing'", lambda c: submit(c, ("a", GOOD), policy="nothing")),
    "broken policy": (422, "policy:1", lambda c: submit(c, ("a", GOOD), policy="classes: [")),
    "unfolding policy": (
        422,
        "references",
        lambda c: submit(c, ("a", GOOD), policy="a: &a [x]\nb: [*a, *a]"),
    ),
    "unknown field": (422, "surprise", lambda c: submit(c, ("a", GOOD), surprise="1")),
    "NUL in the label": (422, "#/body/label", lambda c: submit(c, ("a", GOOD), label="a\0")),
    "unpacked elsewhere": (
        415,
        "gzip",
        lambda c: c.post("/v1/batches", json={}, headers={"Content-Encoding": "gzip"}),
    ),
    "another type": (
        415,
        "text/csv",
        lambda c: c.post("/v1/batches", content=b"a", headers={"Content-Type": "text/csv"}),
    ),
    "no boundary": (
        400,
        "boundary",
        lambda c: c.post(
            "/v1/batches", content=b"a", headers={"Content-Type": "multipart/form-data"}
        ),
    ),
    "cut short": (
        400,
        "middle",
        lambda c: c.post(
            "/v1/batches",
            content=raw_form(b"a.png")[:-30],
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        ),
    ),
    "a bad key": (422, "idempotency-key", lambda c: submit(c, ("a", GOOD), key="with blank")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_request_is_refused_with_a_sentence(
    client: TestClient, sessions: Sessions, what: str
) -> None:
    status, sentence, ask = REFUSED[what]
    answer = ask(client)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    assert sentence in json.dumps(answer.json(), ensure_ascii=False)
    assert count(sessions, Item) == 0


def test_what_has_no_end_is_refused_before_it_ends(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2_000_000:
            sent += 10_000
            yield bytes(10_000)

    kind = {"Content-Type": "application/jsonl"}
    answer = client.post("/v1/batches?policy=shop", content=endless(), headers=kind)
    assert answer.status_code == 413


def test_nothing_is_read_from_strangers(client: TestClient) -> None:
    del client.headers["Authorization"]
    answer = submit(client, ("a.png", GOOD))
    assert (answer.status_code, answer.json()["status"]) == (401, 401)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.MODERATOR])
def test_readers_cannot_submit(client: TestClient, sessions: Sessions, role: Role) -> None:
    answer = submit(client_of(client.app, sessions, role), ("a.png", GOOD))  # type: ignore[arg-type]
    assert answer.status_code == 403


@pytest.mark.parametrize("policy", [POLICY.name, POLICY.digest, DOCUMENT])
def test_a_policy_is_named_or_written_out(client: TestClient, policy: str) -> None:
    answer = submit(client, ("a.png", GOOD), policy=policy)
    told = client.get(answer.headers["Location"]).json()
    assert told["policy"]["digest"] == POLICY.digest


def test_addresses_wait_to_be_fetched(client: TestClient, sessions: Sessions) -> None:
    uris = ["https://images.example.org/1.jpg", "https://169.254.169.254/x", "file:///etc/passwd"]
    asked = {"uris": uris, "policy": POLICY.model_dump(mode="json")}
    first, *others = items(client, client.post("/v1/batches", json=asked))
    assert first["verdict"] is None
    assert [i["verdict"] for i in others] == ["undetermined"] * 2
    assert (count(sessions, Fetch), count(sessions, QueueEntry)) == (1, 0)


@pytest.mark.parametrize("way", ["body", "form"])
def test_a_manifest_may_have_bad_lines(client: TestClient, way: str) -> None:
    body = lines("https://images.example.org/1.jpg") + b"nonsense\n\n" + lines("gopher://x/")
    if way == "body":
        kind = {"Content-Type": "application/jsonl"}
        answer = client.post(f"/v1/batches?policy={POLICY.name}", content=body, headers=kind)
    else:
        sent = {"manifest": ("m.jsonl", body)}
        answer = client.post("/v1/batches", files=sent, data={"policy": POLICY.name})
    assert [(i["source"], i["verdict"]) for i in items(client, answer)] == [
        ("https://images.example.org/1.jpg", None),
        ("line 2", "undetermined"),
        ("gopher://x/", "undetermined"),
    ]


def test_a_cancelled_batch_fetches_and_judges_no_more(
    client: TestClient, sessions: Sessions
) -> None:
    asked = {"uris": ["https://images.example.org/1.jpg"], "policy": POLICY.name}
    where = client.post("/v1/batches", json=asked).headers["Location"]
    assert client.post(f"{where}/cancel").json() == {"cancelled": 1}
    assert count(sessions, Fetch) == 0


def test_pages_follow_each_other(client: TestClient) -> None:
    where = submit(client, *[(str(i), GOOD) for i in range(5)]).headers["Location"]
    seen, after = [], None
    while True:
        page = client.get(
            f"{where}/items", params={"limit": 2, **({"after": after} if after else {})}
        ).json()
        seen += [i["source"] for i in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ["0", "1", "2", "3", "4"]


def test_batches_come_newest_first(client: TestClient) -> None:
    made = [submit(client, ("a", GOOD)).json()["batch"] for _ in range(3)]
    first = client.get("/v1/batches?limit=2").json()
    second = client.get("/v1/batches", params={"limit": 2, "after": first["next"]}).json()
    found = [b["id"] for page in (first, second) for b in page["batches"]]
    assert found == made[::-1]


def test_a_person_sees_no_item_of_a_closed_class(client: TestClient, sessions: Sessions) -> None:
    where = submit(client, ("a", GOOD), ("b", GOOD)).headers["Location"]
    with sessions.begin() as session:
        hidden = session.scalars(select(Item).order_by(Item.id)).first()
        assert hidden is not None
        hidden.verdict, hidden.class_id, hidden.judged_at = Verdict.FLAGGED, 1, datetime.now(UTC)
    person = client_of(client.app, sessions, Role.MODERATOR, classes=("gun",))  # type: ignore[arg-type]
    assert len(person.get(f"{where}/items").json()["items"]) == 1
    assert person.get(f"/v1/items/{hidden.id}").status_code == 403
    assert len(client.get(f"{where}/items").json()["items"]) == 2


def test_the_same_request_again_is_the_same_batch(client: TestClient, sessions: Sessions) -> None:
    answers = [submit(client, ("a", GOOD), ("b", b"x"), key="k1") for _ in range(3)]
    assert {a.status_code for a in answers} == {202}
    assert len({a.headers["Location"] for a in answers}) == 1
    assert count(sessions, Item) == 2


@pytest.mark.parametrize("other", ["file", "name", "label", "policy"])
def test_another_request_under_a_used_key_is_refused(
    client: TestClient, sessions: Sessions, other: str
) -> None:
    submit(client, ("a", GOOD), key="k1")
    changed = {
        "file": lambda: submit(client, ("a", GOOD + b"\0"), key="k1"),
        "name": lambda: submit(client, ("b", GOOD), key="k1"),
        "label": lambda: submit(client, ("a", GOOD), key="k1", label="x"),
        "policy": lambda: submit(client, ("a", GOOD), key="k1", policy=POLICY.digest),
    }[other]()
    assert (changed.status_code, count(sessions, Item)) == (422, 1)
    assert "idempotency key 'k1'" in changed.json()["detail"]


def test_a_key_belongs_to_its_platform(client: TestClient, sessions: Sessions) -> None:
    other = key_client(client.app, sessions, "another", client=None)  # type: ignore[arg-type]
    batches = {submit(c, ("a", GOOD), key="k1").json()["batch"] for c in (client, other)}
    assert len(batches) == 2


def test_the_same_request_at_once_is_one_batch(client: TestClient, sessions: Sessions) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(
                lambda _: submit(client, *[(str(i), GOOD) for i in range(5)], key="k1"), range(6)
            )
        )
    assert {a.status_code for a in answers} <= {202, 409}
    assert len({a.json()["batch"] for a in answers if a.status_code == 202}) == 1
    assert count(sessions, Item) == 5


# What a server leaves that is killed in the midst of it


PICTURES = 2 * CHUNK + 50  # three transactions and the two around them
KILLS = (0, 1, PICTURES + CHUNK)  # items after which the server dies


@pytest.fixture(scope="module")
def pictures() -> list[tuple[str, bytes]]:
    return [(f"{i}.png", png(2, 2, (b"tEXt", b"n\0%d" % i))) for i in range(PICTURES)]


def test_a_killed_server_loses_and_doubles_no_batch(
    database_url: str,
    broker_url: str,
    sessions: Sessions,
    tmp_path: Path,
    pictures: list[tuple[str, bytes]],
) -> None:
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        storage_url=(tmp_path / "images").as_uri(),
    )
    secret = accounts.add_key(sessions, "platform", "service")
    with sessions.begin() as session:
        store_policy(session, POLICY)
    keys = [str(uuid.uuid4()) for _ in range(2)]
    headers = {"Authorization": f"Bearer {secret}"}
    form = {"files": files(*pictures), "data": {"policy": POLICY.name}}
    answered: dict[str, str] = {}

    def send(base: str, key: str) -> None:
        with suppress(httpx.HTTPError):
            answer = httpx.post(
                f"{base}/v1/batches",
                headers={**headers, "Idempotency-Key": key},
                timeout=120,
                **form,  # type: ignore[arg-type]
            )
            assert answer.status_code in (202, 409), answer.text
            if answer.status_code == 202:
                batch = answer.json()["batch"]
                assert answered.setdefault(key, batch) == batch

    left = []  # batches in the middle when the server died
    for number in KILLS:
        with serving(settings, tmp_path / "serve.log") as (process, base):
            senders = [threading.Thread(target=send, args=(base, key)) for key in keys]
            for sender in senders:
                sender.start()
            while count(sessions, Item) < number:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            for sender in senders:
                sender.join()
        with sessions.begin() as session:
            begun = select(func.count()).select_from(Batch).where(Batch.total.is_(None))
            left.append(session.scalar(begun))
    assert any(left)
    with serving(settings, tmp_path / "serve.log") as (process, base):
        for key in keys:
            send(base, key)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert set(answered) == set(keys)
    with sessions.begin() as session:
        known = dict(session.execute(select(IdempotencyKey.key, IdempotencyKey.batch_id)).all())
        assert {key: str(batch) for key, batch in known.items()} == answered
        rows = session.execute(
            text(
                "SELECT batch_id, count(*), count(DISTINCT source), count(queue.item_id), "
                "max(total) FROM items JOIN batches ON batches.id = batch_id "
                "LEFT JOIN queue ON item_id = items.id GROUP BY batch_id"
            )
        ).all()
    assert {str(r[0]) for r in rows} == set(answered.values())
    assert {tuple(r[1:]) for r in rows} == {(PICTURES, PICTURES, PICTURES, PICTURES)}
