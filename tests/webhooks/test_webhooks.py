"""Webhooks: none lost, each signed, in order, and told again until the receiver takes it."""

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, func, insert, select, text, update
from standardwebhooks import Webhook, WebhookVerificationError

from filter_service import webhooks
from filter_service.accounts import Role
from filter_service.db.arrivals import enqueue
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Delivery,
    DeliveryAttempt,
    Item,
    LedgerEntry,
    OutboxEvent,
    StoredPolicy,
    WebhookEndpoint,
)
from filter_service.errors import Conflict, InvalidRequest, UnknownEntry, UnsafeAddress
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from filter_service.webhooks import DeliveryState, EventType
from filter_service.webhooks.delivery import WAITS, deliver_due, pause
from tests.support.served import ROOT, environment
from tests.support.web_clients import client_of, key_client, web_service

SETTINGS = Settings(webhook_private=True, webhook_seconds=0.5, webhook_hours=72)


@dataclass
class Receiver:
    """A real HTTP server that can misbehave; it keeps what it accepted."""

    port: int = 0
    mood: str | int = 200  # a status, or: hang, close, drip, flood
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # webhook-id of every request, accepted or not
    _server: ThreadingHTTPServer | None = None
    _patience: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused."""
        self._patience.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        headers = {k.lower(): v for k, v in request.headers.items()}
        self.seen.append(headers["webhook-id"])
        request.close_connection = True
        match self.mood:
            case "hang":
                self._patience.wait(5)
            case "close":
                return
            case "drip":
                for byte in b"HTTP/1.1 200 OK\r\nx-slow: " + b"y" * 100:
                    request.wfile.write(bytes([byte]))
                    if self._patience.wait(0.1):
                        return
            case "flood":
                self.got.append((headers, body))
                request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while not self._patience.is_set():
                    request.wfile.write(b"x" * 65536)
            case int(status):
                if status < 300:
                    self.got.append((headers, body))
                    request.close_connection = False
                request.send_response(status)
                request.send_header("location", f"http://127.0.0.1:{self.port}/elsewhere")
                request.send_header("content-length", "0")
                request.end_headers()

    @property
    def numbers(self) -> list[int]:
        return [json.loads(body)["data"]["n"] for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    found.start()
    yield found
    found.stop()


def add(sessions: Sessions, url: str, events: list[str] | None = None) -> int:
    return webhooks.add_endpoint(sessions, SETTINGS, url, events, "person ada")[0].id


def tell(sessions: Sessions, *numbers: int, subject: str = "item 7") -> None:
    for n in numbers:
        with sessions.begin() as session:
            webhooks.announce(session, EventType.ITEM_FLAGGED, subject, {"n": n}, item_id=7)


def later(owner: Engine, by: timedelta) -> None:
    """Let time pass, as the database sees it."""
    with owner.begin() as connection:
        connection.execute(update(Delivery).values(due_at=Delivery.due_at - by))
        connection.execute(update(OutboxEvent).values(at=OutboxEvent.at - by))


def deliver(sessions: Sessions, settings: Settings = SETTINGS) -> int:
    return deliver_due(sessions, settings)


def open_count(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).where(Delivery.delivered_at.is_(None))) or 0


def test_a_message_is_signed_as_the_specification_says(
    sessions: Sessions, receiver: Receiver
) -> None:
    _, secret = webhooks.add_endpoint(sessions, SETTINGS, receiver.url, None, "person ada")
    tell(sessions, 1)
    assert deliver(sessions) == 1
    [(headers, body)] = receiver.got
    message = Webhook(secret).verify(body, headers)
    assert secret.startswith("whsec_")
    assert message["type"] == "item.flagged" and message["data"] == {"n": 1}
    at = datetime.fromisoformat(message["timestamp"])
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


def test_nothing_is_written_where_nobody_wants_the_type(
    sessions: Sessions, receiver: Receiver
) -> None:
    add(sessions, receiver.url, ["batch.finished"])
    tell(sessions, 1)
    with sessions.begin() as session:
        assert session.scalars(select(OutboxEvent)).all() == []


def test_what_did_not_happen_is_not_told(sessions: Sessions, receiver: Receiver) -> None:
    add(sessions, receiver.url)
    with pytest.raises(ZeroDivisionError), sessions.begin() as session:
        webhooks.announce(session, EventType.ITEM_FLAGGED, "item 7", {"n": 1})
        1 / 0  # noqa: B018
    assert deliver(sessions) == 0
    assert receiver.seen == []


def test_a_receiver_that_fails_for_an_hour_gets_everything_in_order(
    sessions: Sessions, owner: Engine, receiver: Receiver
) -> None:
    add(sessions, receiver.url)
    tell(sessions, 0, 1, subject="item 7")
    tell(sessions, 100, 101, subject="item 8")
    moods: list[str | int] = ["refuse", "hang", "close", 500, 429, 302]
    for minute in range(0, 60, 10):
        receiver.mood = moods[minute // 10]
        receiver.stop() if receiver.mood == "refuse" else None
        assert deliver(sessions) == 0
        if receiver.mood == "refuse":
            receiver.start()
        tell(sessions, minute + 2, subject="item 7")
        later(owner, timedelta(minutes=10))
    receiver._patience.clear()
    receiver.mood = 200
    while open_count(sessions):
        later(owner, timedelta(hours=1))
        deliver(sessions)
    order = {n: i for i, n in enumerate(receiver.numbers)}
    assert [n for n in receiver.numbers if n < 100] == [0, 1, 2, 12, 22, 32, 42, 52]
    assert order[100] < order[101]
    accepted = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(set(accepted)) == len(accepted) == 10
    assert set(receiver.seen) == set(accepted)  # the same id on every retry
    assert len(receiver.seen) > len(accepted)


@pytest.mark.parametrize("mood", ["hang", "close", "drip", 500, 302, 404])
def test_what_is_not_accepted_is_logged_and_waits(
    sessions: Sessions, receiver: Receiver, mood: str | int
) -> None:
    endpoint = add(sessions, receiver.url)
    receiver.mood = mood
    tell(sessions, 1)
    started = time.monotonic()
    assert deliver(sessions) == 0
    assert time.monotonic() - started < 3
    [shown] = webhooks.deliveries(sessions, endpoint).deliveries
    [attempt] = shown.attempts
    assert shown.state is DeliveryState.WAITING and shown.due_at is not None
    assert attempt.problem and attempt.seconds < 2
    assert attempt.status == (mood if isinstance(mood, int) else None)
    assert webhooks.endpoint(sessions, endpoint).failing_since is not None
    assert len(receiver.seen) == 1  # a redirect is not followed


def test_an_answer_without_an_end_is_not_read(sessions: Sessions, receiver: Receiver) -> None:
    add(sessions, receiver.url)
    receiver.mood = "flood"
    tell(sessions, 1)
    assert deliver(sessions) == 1


def test_an_endpoint_that_recovers_fails_no_more(
    sessions: Sessions, owner: Engine, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    receiver.mood = 503
    tell(sessions, 1)
    deliver(sessions)
    receiver.mood = 200
    later(owner, timedelta(seconds=10))
    assert deliver(sessions) == 1
    assert webhooks.endpoint(sessions, endpoint).failing_since is None
    [shown] = webhooks.deliveries(sessions, endpoint).deliveries
    assert [a.status for a in shown.attempts] == [200, 503]


def test_an_endpoint_that_hangs_holds_up_nobody_else(
    sessions: Sessions, receiver: Receiver
) -> None:
    slow = Receiver(mood="hang")
    slow.start()
    add(sessions, slow.url)
    add(sessions, receiver.url)
    for n in range(30):
        tell(sessions, n, subject=f"item {n}")
    started = time.monotonic()
    deliver(sessions, SETTINGS.model_copy(update={"webhook_seconds": 2.0}))
    slow.stop()
    assert len(receiver.got) == 30
    assert len(slow.seen) < 10
    assert time.monotonic() - started < 6


def test_several_deliverers_send_each_once_and_in_order(
    sessions: Sessions, receiver: Receiver
) -> None:
    add(sessions, receiver.url)
    for n in range(60):
        tell(sessions, n, subject=f"item {n % 6}")
    threads = [threading.Thread(target=deliver, args=[sessions]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deliver(sessions)
    assert sorted(receiver.numbers) == list(range(60))
    for item in range(6):
        of_item = [n for n in receiver.numbers if n % 6 == item]
        assert of_item == sorted(of_item)


def test_a_killed_deliverer_repeats_at_most_under_the_same_id(
    database_url: str, sessions: Sessions, owner: Engine, receiver: Receiver
) -> None:
    add(sessions, receiver.url)
    for n in range(40):
        tell(sessions, n, subject=f"item {n % 2}")
    code = """
from filter_service.settings import Settings
from filter_service.db.arrivals import enqueue
from filter_service.db.session import connect, sessions_of
from filter_service.webhooks.delivery import deliver_due
settings = Settings.load()
deliver_due(sessions_of(connect(settings.database_url)), settings)
"""
    settings = SETTINGS.model_copy(update={"database_url": database_url})
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, env=environment(settings)) as killed:
        while len(receiver.got) < 5 and killed.poll() is None:
            time.sleep(0.001)
        killed.kill()
    later(owner, timedelta(minutes=5))
    while open_count(sessions):
        deliver(sessions)
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(set(ids)) == 40
    for item in range(2):
        of_item = list(dict.fromkeys(n for n in receiver.numbers if n % 2 == item))
        assert of_item == sorted(of_item)


def test_a_lapsed_lease_changes_nothing_of_what_another_has_done(
    sessions: Sessions, owner: Engine, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    receiver.mood = "hang"
    tell(sessions, 1)
    slow = threading.Thread(target=deliver, args=[sessions])
    slow.start()
    while not receiver.seen and slow.is_alive():
        time.sleep(0.01)
    later(owner, timedelta(minutes=5))
    receiver.mood = 200
    assert deliver(sessions) == 1
    slow.join()
    [shown] = webhooks.deliveries(sessions, endpoint).deliveries
    assert shown.state is DeliveryState.DELIVERED
    assert len(shown.attempts) == 2
    assert webhooks.endpoint(sessions, endpoint).failing_since is None


def test_gone_disables_and_nothing_is_lost(
    sessions: Sessions, owner: Engine, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    receiver.mood = 410
    tell(sessions, 1, 2)
    deliver(sessions)
    later(owner, timedelta(hours=1))
    deliver(sessions)
    assert len(receiver.seen) == 1
    assert webhooks.endpoint(sessions, endpoint).disabled_at is not None
    with pytest.raises(Conflict, match="410"):
        webhooks.ping(sessions, endpoint, "person ada")
    receiver.mood = 200
    webhooks.retry(sessions, endpoint, "person ada")
    deliver(sessions)
    assert receiver.numbers == [1, 2]


def test_what_fails_too_long_is_given_up_and_the_next_has_its_turn(
    sessions: Sessions, owner: Engine, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    receiver.mood = 500
    tell(sessions, 1)
    deliver(sessions)
    later(owner, timedelta(hours=73))
    tell(sessions, 2)
    deliver(sessions)
    receiver.mood = 200
    deliver(sessions)
    assert receiver.numbers == [2]
    second, first = webhooks.deliveries(sessions, endpoint).deliveries
    assert (first.state, second.state) == (DeliveryState.GIVEN_UP, DeliveryState.DELIVERED)
    [given_up] = webhooks.deliveries(sessions, endpoint, state=DeliveryState.GIVEN_UP).deliveries
    assert given_up == first


def test_a_delivery_is_tried_once_more_when_its_time_is_up(
    sessions: Sessions, owner: Engine, receiver: Receiver
) -> None:
    add(sessions, receiver.url)
    receiver.mood = 500
    tell(sessions, 1)
    with owner.begin() as connection:
        connection.execute(update(Delivery).values(attempts=8))
        connection.execute(update(OutboxEvent).values(at=func.now() - timedelta(hours=71)))
    deliver(sessions)
    with sessions.begin() as session:
        due = session.scalar(select(Delivery.due_at - func.now()))
    assert due is not None and timedelta(minutes=58) < due < timedelta(hours=1)


def test_what_was_delivered_or_given_up_can_be_sent_again(
    sessions: Sessions, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    tell(sessions, 1)
    deliver(sessions)
    [shown] = webhooks.deliveries(sessions, endpoint).deliveries
    webhooks.redeliver(sessions, endpoint, shown.message_id, "person ada")
    deliver(sessions)
    assert receiver.seen == [str(shown.message_id)] * 2
    with sessions.begin() as session:
        events = session.scalars(select(LedgerEntry.event).order_by(LedgerEntry.id)).all()
    assert events == ["webhook added", "redelivered"]
    with pytest.raises(UnknownEntry, match="webhook-id"):
        webhooks.redeliver(sessions, endpoint, uuid.uuid4(), "person ada")


def test_a_ping_goes_to_one_endpoint_only(sessions: Sessions, receiver: Receiver) -> None:
    add(sessions, receiver.url)
    mine = add(sessions, receiver.url, ["appeal.opened"])
    message = webhooks.ping(sessions, mine, "person ada")
    deliver(sessions)
    assert receiver.seen == [str(message)]


def test_a_removed_endpoint_gets_nothing_and_forgets_its_secret(
    sessions: Sessions, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    tell(sessions, 1)
    webhooks.remove(sessions, endpoint, "person ada")
    tell(sessions, 2)
    assert deliver(sessions) == 0 and receiver.seen == []
    assert webhooks.endpoints(sessions) == []
    with pytest.raises(UnknownEntry):
        webhooks.endpoint(sessions, endpoint)
    with sessions.begin() as session:
        assert session.scalars(select(WebhookEndpoint.secret)).all() == [""]


def test_the_log_has_pages(sessions: Sessions, receiver: Receiver) -> None:
    endpoint = add(sessions, receiver.url)
    tell(sessions, 1, 2, 3)
    first = webhooks.deliveries(sessions, endpoint, limit=2)
    assert [d.payload["n"] for d in first.deliveries] == [3, 2]
    rest = webhooks.deliveries(sessions, endpoint, before=first.next, limit=2)
    assert [d.payload["n"] for d in rest.deliveries] == [1] and rest.next is None


@pytest.mark.parametrize("url", ["ftp://example.org/x", "example.org", "http://", "http://a b/"])
def test_what_is_no_address_is_refused(sessions: Sessions, url: str) -> None:
    with pytest.raises(UnsafeAddress):
        add(sessions, url)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/x", "http://169.254.169.254/latest", "http://[::1]/", "http://10.1/"],
)
def test_a_private_address_is_refused_unless_allowed(sessions: Sessions, url: str) -> None:
    strict = SETTINGS.model_copy(update={"webhook_private": False})
    with pytest.raises(UnsafeAddress):
        webhooks.add_endpoint(sessions, strict, url, None, "person ada")


def test_an_address_that_became_private_is_not_sent_to(
    sessions: Sessions, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    tell(sessions, 1)
    deliver(sessions, SETTINGS.model_copy(update={"webhook_private": False}))
    assert receiver.seen == []
    [shown] = webhooks.deliveries(sessions, endpoint).deliveries
    assert "127.0.0.1" in (shown.attempts[0].problem or "")


@pytest.mark.parametrize("events", [[], ["item.judged"]])
def test_an_unknown_event_is_refused(sessions: Sessions, events: list[str]) -> None:
    with pytest.raises(InvalidRequest, match=r"batch\.finished"):
        add(sessions, "http://127.0.0.1:9/", events)


def test_waits_grow_and_vary() -> None:
    middles = [pause(n) / WAITS[n - 1] for n in range(1, len(WAITS) + 1)]
    assert all(0.9 <= m <= 1.1 for m in middles)
    assert pause(100) >= timedelta(hours=21)
    assert len({pause(1) for _ in range(5)}) > 1


@contextmanager
def batch(sessions: Sessions, verdicts: list[Verdict | None]) -> Iterator[uuid.UUID]:
    """A batch with so many items, submitted as a whole."""
    name = uuid.uuid4()
    with sessions.begin() as session:
        policy = StoredPolicy(digest=name.hex * 2, name="shop", document={})
        session.add(policy)
        session.flush()
        row = Batch(id=name, policy_id=policy.id, label="l", priority=0, total=len(verdicts))
        session.add(row)
        session.flush()
        at = datetime.now(UTC)
        rows = [
            {"batch_id": name, "source": "a", "verdict": v, "judged_at": at if v else None}
            for v in verdicts
        ]
        session.execute(insert(Item), rows)
        unjudged = select(Item.id).where(Item.batch_id == name, Item.verdict.is_(None))
        enqueue(session, list(session.scalars(unjudged)), priority=0)
    yield name


def test_a_batch_is_announced_once_when_nothing_is_left(
    sessions: Sessions, receiver: Receiver
) -> None:
    add(sessions, receiver.url)
    with batch(sessions, [Verdict.CLEAR, None]) as name:
        assert webhooks.announce_finished(sessions) == 0
        with sessions.begin() as session:
            session.execute(update(Item).values(verdict=Verdict.FLAGGED, judged_at=func.now()))
        threads = [
            threading.Thread(target=webhooks.announce_finished, args=[sessions]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert webhooks.announce_finished(sessions) == 0
    deliver(sessions)
    [(_, body)] = receiver.got
    message = json.loads(body)
    assert message["type"] == "batch.finished"
    assert message["data"] == {
        "batch": str(name), "label": "l", "total": 2, "cancelled": False,
        "clear": 0, "flagged": 2, "undetermined": 0, "erased": 0,
    }  # fmt: skip


def test_a_batch_that_still_arrives_is_not_finished(sessions: Sessions) -> None:
    with batch(sessions, [Verdict.CLEAR]), sessions.begin() as session:
        session.execute(update(Batch).values(total=None))
    assert webhooks.announce_finished(sessions) == 0


def test_a_cancelled_batch_is_announced_as_such(sessions: Sessions, receiver: Receiver) -> None:
    add(sessions, receiver.url)
    with batch(sessions, [None]), sessions.begin() as session:
        session.execute(update(Batch).values(cancelled_at=func.now()))
    assert webhooks.announce_finished(sessions) == 1
    deliver(sessions)
    assert json.loads(receiver.got[0][1])["data"]["cancelled"] is True


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage, webhook_private=True, webhook_seconds=0.5))


def test_a_platform_manages_its_webhooks_over_http(
    app: FastAPI, sessions: Sessions, receiver: Receiver
) -> None:
    client = key_client(app, sessions)
    order = {"url": receiver.url, "events": ["item.flagged"]}
    made = client.post("/v1/webhooks", json=order)
    assert made.status_code == 201 and made.headers["location"] == "/v1/webhooks/1"
    secret = made.json()["secret"]
    [listed] = client.get("/v1/webhooks").json()["webhooks"]
    assert listed["events"] == ["item.flagged"] and "secret" not in listed
    sent = client.post("/v1/webhooks/1/ping")
    assert sent.status_code == 202
    deliver(sessions)
    Webhook(secret).verify(receiver.got[0][1], receiver.got[0][0])
    message = sent.json()["message_id"]
    assert client.post(f"/v1/webhooks/1/deliveries/{message}/redeliver").status_code == 202
    deliver(sessions)
    page = client.get("/v1/webhooks/1/deliveries").json()
    assert page["next"] is None
    assert [a["status"] for a in page["deliveries"][0]["attempts"]] == [200, 200]
    assert client.delete("/v1/webhooks/1").status_code == 204
    assert client.get("/v1/webhooks/1/deliveries").status_code == 404


def test_pages_of_deliveries_follow_each_other_over_http(
    app: FastAPI, sessions: Sessions, receiver: Receiver
) -> None:
    endpoint = add(sessions, receiver.url)
    tell(sessions, 1, 2, 3)
    client, seen, after = key_client(app, sessions, all_clients=True), [], ""
    while after is not None:
        query = {"limit": "2", **({"after": after} if after else {})}
        page = client.get(f"/v1/webhooks/{endpoint}/deliveries", params=query).json()
        seen += [d["data"]["n"] for d in page["deliveries"]]
        after = page["next"]
    assert seen == [3, 2, 1]


def test_what_cannot_be_a_webhook_is_a_problem(app: FastAPI, sessions: Sessions) -> None:
    client = key_client(app, sessions)
    for order in ({"url": "gopher://x/"}, {"url": "https://x.org/", "events": ["item.judged"]}):
        answer = client.post("/v1/webhooks", json=order)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"


def test_an_admin_sees_the_log_and_sends_again(
    app: FastAPI, sessions: Sessions, receiver: Receiver
) -> None:
    browser = client_of(app, sessions, Role.ADMIN)
    made = browser.post("/webhooks", data={"url": receiver.url, "events": ["item.flagged"]})
    assert made.status_code == 200 and "whsec_" in made.text
    assert "whsec_" not in browser.get("/webhooks").text
    receiver.mood = 503
    tell(sessions, 1)
    deliver(sessions)
    log = browser.get("/webhooks/1").text
    assert "it answered 503, not 2xx" in log and "No delivery has succeeded" in log
    receiver.mood = 200
    [shown] = webhooks.deliveries(sessions, 1).deliveries
    again = browser.post(f"/webhooks/1/deliveries/{shown.message_id}/redeliver")
    assert again.status_code == 200
    deliver(sessions)
    assert "delivered" in browser.get("/webhooks/1?state=delivered").text
    assert receiver.numbers == [1]
    wrong = browser.post("/webhooks", data={"url": "nowhere", "events": ["item.flagged"]})
    assert wrong.status_code == 422 and 'role="alert"' in wrong.text


def test_webhooks_are_for_admins_and_platforms(app: FastAPI, sessions: Sessions) -> None:
    assert client_of(app, sessions, Role.MODERATOR).get("/webhooks").status_code == 403
    assert client_of(app, sessions, Role.AUDITOR).get("/v1/webhooks").status_code == 403


def test_attempts_are_kept_as_they_were(sessions: Sessions, receiver: Receiver) -> None:
    add(sessions, receiver.url)
    tell(sessions, 1)
    deliver(sessions)
    with pytest.raises(Exception, match="permission denied"), sessions.begin() as session:
        session.execute(text("UPDATE delivery_attempts SET status = 500"))
    with sessions.begin() as session:
        assert session.scalars(select(DeliveryAttempt.status)).all() == [200]
