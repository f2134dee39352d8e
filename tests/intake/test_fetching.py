"""Fetching: one download within its limits, and the queue of those that wait."""

import contextlib
import datetime
import gzip
import hashlib
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from sqlalchemy import Engine, delete, func, select, text

from filter_service import ledger, retention
from filter_service.db.arrivals import enqueue
from filter_service.db.session import Sessions
from filter_service.db.tables import Fetch, Item, LedgerEntry, QueueEntry, StoredImage
from filter_service.egress.client import Internet
from filter_service.errors import (
    AddressUnavailable,
    ImageTooLarge,
    StorageUnavailable,
    UnreadableImage,
    UnsafeAddress,
)
from filter_service.images import digest
from filter_service.intake import batches, retries, submissions
from filter_service.intake.download import get
from filter_service.intake.fetch_queue import ATTEMPTS, fetch_due
from filter_service.intake.submissions import Submission
from filter_service.policy import ForbiddenClass, Policy
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.foreign_servers import (
    HERE,
    WIRE,
    Foreign,
    Names,
    body,
    nearby,
    raw,
    redirect,
    serving,
)

ROOT = Path(__file__).parents[2]
KNIFE = ForbiddenClass(name="knife", prompts=("a knife",), threshold=0.5)
POLICY = Policy(name="shop", neutral=("a photo",), classes=(KNIFE,))

Submit = Callable[..., uuid.UUID]
Turn = Callable[..., int]


@pytest.fixture
def server() -> Iterator[Foreign]:
    with serving() as found:
        found.answers["/a.jpg"] = body(b"bytes")
        yield found


def fetched(
    server: Foreign, path: str = "/a.jpg", seconds: float = 5, most: int = 1_000_000
) -> bytes:
    return get(server.uri(path), server.hosts, seconds, most, nearby())


# One download


def test_the_bytes_come_as_they_are(server: Foreign) -> None:
    assert fetched(server) == b"bytes"


def test_a_request_is_sober(server: Foreign) -> None:
    fetched(server)
    (headers,) = server.headers
    assert headers.pop("user-agent").startswith("filter-service/")
    assert headers == {
        "host": f"images.example.org:{server.port}",
        "accept": "image/*, */*;q=0.1",
        "accept-encoding": "identity",
        "connection": "close",
    }


def test_path_and_query_are_sent_as_they_were_given(server: Foreign) -> None:
    path = "/a%2Fb/../c;d?x=%41&y=/:@+%20"
    server.answers[path] = body(b"odd")
    assert fetched(server, f"{path}#part") == b"odd"


def test_a_proxy_of_the_environment_is_not_asked(
    server: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert fetched(server) == b"bytes"
    assert proxy.connections == []


def test_a_name_is_resolved_once_and_its_address_held_to(server: Foreign) -> None:
    internet = nearby(images=[["127.0.0.1"], ["127.0.0.2"]])
    with serving("127.0.0.2", server.port) as inside, WIRE.watching() as seen:
        assert get(server.uri("/a.jpg"), server.hosts, 5, 1_000, internet) == b"bytes"
    there = [("socket.getaddrinfo", "127.0.0.1"), ("socket.connect", ("127.0.0.1", server.port))]
    assert seen == there
    assert inside.connections == []


def test_a_name_that_changes_before_a_redirect_is_checked_anew(server: Foreign) -> None:
    server.answers["/a.jpg"] = redirect("/b.jpg")
    internet = nearby(images=[["127.0.0.1"], ["127.0.0.2"]])
    with serving("127.0.0.2", server.port) as inside, pytest.raises(UnsafeAddress):
        get(server.uri("/a.jpg"), server.hosts, 5, 1_000, internet)
    assert (server.paths, inside.connections) == (["/a.jpg"], [])


def test_an_address_that_is_down_gives_way_to_the_next(server: Foreign) -> None:
    internet = Internet(Names({"images.example.org": [["127.0.0.3", "127.0.0.1"]]}), nets(8))
    assert get(server.uri("/a.jpg"), server.hosts, 5, 1_000, internet) == b"bytes"


def nets(bits: int) -> tuple[Any, ...]:
    return (HERE[0].supernet(new_prefix=bits),)


def test_a_name_without_an_address_may_have_one_later() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    with pytest.raises(AddressUnavailable, match=r"images\.example\.org"):
        get("http://images.example.org/", ["images.example.org"], 5, 9, Internet(unknown))


def test_a_server_that_is_down_may_come_up_again(server: Foreign) -> None:
    with serving() as gone:
        uri = gone.uri("/a.jpg")
    with pytest.raises(AddressUnavailable, match="could not be fetched"):
        get(uri, gone.hosts, 5, 1_000, nearby())


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Foreign, status: int) -> None:
    server.answers["/old"] = redirect("/a.jpg", status)
    assert fetched(server, "/old") == b"bytes"


def test_a_redirect_to_another_allowed_host_is_followed(server: Foreign) -> None:
    server.answers["/old"] = redirect(server.uri("/a.jpg", "cdn.example.org"))
    assert fetched(server, "/old") == b"bytes"
    assert server.headers[1]["host"] == f"cdn.example.org:{server.port}"


def test_no_cookie_goes_along(server: Foreign) -> None:
    server.answers["/old"] = body(b"", 302, Location="/a.jpg", Set_Cookie="seen=1")
    fetched(server, "/old")
    assert "cookie" not in server.headers[1]


def test_a_redirect_to_a_name_inside_reaches_nobody(server: Foreign) -> None:
    server.answers["/old"] = redirect(server.uri("/a.jpg", "inside.example.org"))
    internet = nearby(inside=[["127.0.0.2"]])
    with serving("127.0.0.2", server.port) as inside, pytest.raises(UnsafeAddress):
        get(server.uri("/old"), server.hosts, 5, 1_000, internet)
    assert inside.connections == []


def test_a_redirect_to_the_metadata_by_name_reaches_nobody(server: Foreign) -> None:
    server.answers["/old"] = redirect(server.uri("/latest/", "cloud.example.org"))
    internet = nearby(cloud=[["169.254.169.254"]])
    with WIRE.watching() as seen, pytest.raises(UnsafeAddress, match=r"169\.254"):
        get(server.uri("/old"), server.hosts, 5, 1_000, internet)
    assert [to for event, to in seen if event == "socket.connect"] == [("127.0.0.1", server.port)]


def test_three_redirects_are_enough(server: Foreign) -> None:
    for number in range(3):
        server.answers[f"/{number}"] = redirect(f"/{number + 1}")
    server.answers["/3"] = body(b"at last")
    assert fetched(server, "/0") == b"at last"


def test_redirects_without_end_are_given_up(server: Foreign) -> None:
    server.answers["/loop"] = redirect("/loop")
    with pytest.raises(UnsafeAddress, match="more than 3 times"):
        fetched(server, "/loop")
    assert server.paths == ["/loop"] * 4


# Sizes, encodings, statuses


def test_a_body_of_the_very_limit_is_taken(server: Foreign) -> None:
    server.answers["/a.jpg"] = body(b"x" * 1_000)
    assert len(fetched(server, most=1_000)) == 1_000


def test_a_length_over_the_limit_is_refused_before_the_body(server: Foreign) -> None:
    server.answers["/a.jpg"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", pause=0.3)
    begun = time.monotonic()
    with pytest.raises(ImageTooLarge, match="1,000 bytes"):
        fetched(server, most=1_000)
    assert time.monotonic() - begun < 0.3


@pytest.mark.parametrize("head", [b"", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_without_a_length_is_cut_at_the_limit(server: Foreign, head: bytes) -> None:
    sent: list[int] = []

    def endless(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        while True:
            block = b"x" * 65_536
            handler.wfile.write(b"10000\r\n" + block + b"\r\n" if head else block)
            sent.append(len(block))

    server.answers["/a.jpg"] = endless
    with pytest.raises(ImageTooLarge):
        fetched(server, most=200_000)
    assert sum(sent) < 20_000_000  # what the buffers of two sockets hold


def test_a_length_that_promises_too_much_is_no_image(server: Foreign) -> None:
    server.answers["/a.jpg"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nshort")
    with pytest.raises(AddressUnavailable, match="could not be fetched"):
        fetched(server)


def test_what_exceeds_its_own_length_is_not_read(server: Foreign) -> None:
    server.answers["/a.jpg"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes and more")
    assert fetched(server) == b"bytes"


@pytest.mark.parametrize("length", ["-1", "0x10", "5, 6", "²", "9" * 5_000])
def test_a_length_that_is_no_number_is_refused(server: Foreign, length: str) -> None:
    server.answers["/a.jpg"] = raw(
        f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nbytes".encode()
    )
    with pytest.raises((AddressUnavailable, ImageTooLarge)):
        fetched(server)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
def test_what_is_compressed_is_never_unpacked(server: Foreign, encoding: str) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    server.answers["/a.jpg"] = body(bomb, Content_Encoding=encoding)
    with pytest.raises(UnreadableImage, match="encoding"):
        fetched(server)


def test_a_bomb_that_does_not_say_so_stays_as_small_as_it_came(server: Foreign) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    server.answers["/a.jpg"] = body(bomb, Content_Type="application/gzip")
    assert fetched(server) == bomb


def test_a_transfer_that_is_compressed_is_refused(server: Foreign) -> None:
    server.answers["/a.jpg"] = body(gzip.compress(b"x"), Transfer_Encoding="gzip, chunked")
    with pytest.raises(AddressUnavailable):
        fetched(server)


def test_an_empty_body_is_no_image(server: Foreign) -> None:
    server.answers["/a.jpg"] = body(b"")
    with pytest.raises(UnreadableImage, match="empty"):
        fetched(server)


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 401, 403, 404, 410])
def test_another_status_than_200_is_no_image(server: Foreign, status: int) -> None:
    server.answers["/a.jpg"] = body(b"", status)
    with pytest.raises(UnreadableImage, match=str(status)):
        fetched(server)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(server: Foreign, status: int) -> None:
    server.answers["/a.jpg"] = body(b"", status)
    with pytest.raises(AddressUnavailable, match=str(status)):
        fetched(server)


# Time


@pytest.mark.parametrize(
    "drip",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 100],
        [b"HTTP/1.1 200 OK\r\n", *[b"X-More: 1\r\n"] * 100],
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 100,
        [bytes([c]) for c in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + b"bytes" * 20],
    ],
    ids=["body", "headers", "continue", "everything"],
)
def test_a_server_that_drips_has_no_more_time_than_others(
    server: Foreign, drip: list[bytes]
) -> None:
    server.answers["/a.jpg"] = raw(*drip, pause=0.1)
    begun = time.monotonic()
    with pytest.raises(AddressUnavailable, match=r"within 0\.4 seconds"):
        fetched(server, seconds=0.4)
    assert time.monotonic() - begun < 1.0


def test_the_time_is_for_all_redirects_together(server: Foreign) -> None:
    def slow(handler: Any) -> None:
        time.sleep(0.3)
        redirect("/loop")(handler)

    server.answers["/loop"] = slow
    with pytest.raises(AddressUnavailable, match=r"within 0\.5 seconds"):
        fetched(server, "/loop", seconds=0.5)
    assert len(server.paths) == 2


# TLS


def certified(name: str, folder: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate of its own making in `folder`/cert.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    about = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(about)
        .issuer_name(about)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def secretly(name: str, folder: Path) -> tuple[bytes | str, list[str | None]]:
    """Fetch by https from a server that is certified as `name`; what came, and whom it was told."""
    told: list[str | None] = []
    context = certified(name, folder)
    context.sni_callback = lambda _socket, asked, _context: told.append(asked)
    trusted = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    internet = Internet(Names({}), HERE, lambda: trusted)
    with serving(wrap=lambda s: context.wrap_socket(s, server_side=True)) as server:
        server.answers["/a.jpg"] = body(b"secret")
        uri = server.uri("/a.jpg", scheme="https")
        try:
            return get(uri, server.hosts, 5, 1_000, internet), told
        except AddressUnavailable as error:
            return str(error), told


def test_tls_is_spoken_to_the_name_and_not_to_the_address(tmp_path: Path) -> None:
    assert secretly("images.example.org", tmp_path) == (b"secret", ["images.example.org"])


def test_a_certificate_of_another_name_is_not_taken(tmp_path: Path) -> None:
    said, _ = secretly("other.example.org", tmp_path)
    assert "CERTIFICATE_VERIFY_FAILED" in str(said)


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path, server: Foreign) -> None:
    context = certified("images.example.org", tmp_path)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    internet = Internet(Names({}), HERE, lambda: trusted)
    with serving(wrap=lambda s: context.wrap_socket(s, server_side=True)) as secret:
        secret.answers["/a.jpg"] = redirect(server.uri("/a.jpg"))
        hosts = (*server.hosts, *secret.hosts)
        with pytest.raises(UnsafeAddress, match="scheme"):
            get(secret.uri("/a.jpg", scheme="https"), hosts, 5, 1_000, internet)
    assert server.connections == []


# Buckets


class Buckets(MemoryFileSystem):  # type: ignore[misc]  # (fsspec has no types)
    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012  (as fsspec has it)
    pseudo_dirs = [""]  # noqa: RUF012


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fsspec takes for S3."""
    monkeypatch.setitem(_registry, "s3", Buckets)
    Buckets().pipe_file("bucket/a key (ä).jpg", b"from the bucket")


@pytest.mark.usefixtures("buckets")
def test_an_object_of_an_allowed_bucket_is_read() -> None:
    found = get("s3://bucket/a key (ä).jpg", ["s3://bucket"], 5, 1_000)
    assert found == b"from the bucket"


@pytest.mark.usefixtures("buckets")
def test_an_object_of_another_bucket_is_not_read() -> None:
    with pytest.raises(UnsafeAddress, match=r"s3://bucket is not among"):
        get("s3://bucket/a key (ä).jpg", ["s3://other", "bucket.example.org"], 5, 1_000)


@pytest.mark.usefixtures("buckets")
def test_an_object_over_the_limit_is_refused() -> None:
    with pytest.raises(ImageTooLarge):
        get("s3://bucket/a key (ä).jpg", ["s3://bucket"], 5, 14)


@pytest.mark.usefixtures("buckets")
def test_an_object_that_is_not_there_is_no_image() -> None:
    with pytest.raises(UnreadableImage, match="is not there"):
        get("s3://bucket/none.jpg", ["s3://bucket"], 5, 1_000)


# The queue


@pytest.fixture
def settings(server: Foreign) -> Settings:
    return Settings(fetch_hosts=server.hosts, fetch_seconds=5, max_bytes=1_000)


@pytest.fixture
def submit(sessions: Sessions, storage: Storage) -> Submit:
    def submit(*uris: str, **options: Any) -> uuid.UUID:
        given = [Submission(uri, uri=uri) for uri in uris]
        return submissions.accept(sessions, storage, lambda: None, given, POLICY, **options)

    return submit


@pytest.fixture
def turn(sessions: Sessions, storage: Storage, settings: Settings) -> Turn:
    def turn(**options: Any) -> int:
        return fetch_due(sessions, storage, settings, internet=nearby(), **options)

    return turn


def only(sessions: Sessions, table: type) -> Any:
    with sessions.begin() as session:
        return session.scalars(select(table)).one()


def rows(sessions: Sessions, table: type) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def events(sessions: Sessions, item: int) -> list[str]:
    with sessions.begin() as session:
        return [e.event for e in ledger.of_item(session, item)]


def later(owner: Engine) -> None:
    """Time passes: leases lapse, pauses end."""
    with owner.begin() as connection:
        connection.execute(text("UPDATE fetches SET due_at = now() WHERE due_at IS NOT NULL"))


def test_a_submitted_uri_waits_to_be_fetched(
    sessions: Sessions, server: Foreign, submit: Submit
) -> None:
    batch = submit(server.uri("/a.jpg"))
    status = batches.status(sessions, batch)
    assert (status.total, status.waiting, status.finished) == (1, 1, False)
    assert (rows(sessions, Fetch), rows(sessions, QueueEntry)) == (1, 0)


def test_what_was_fetched_is_queued_with_its_image(
    sessions: Sessions, storage: Storage, server: Foreign, submit: Submit, turn: Turn
) -> None:
    submit(server.uri("/a.jpg"), priority=7)
    knocks: list[None] = []
    assert turn(notify_workers=lambda: knocks.append(None)) == 1
    name = hashlib.sha256(b"bytes").hexdigest()
    item, image = only(sessions, Item), only(sessions, StoredImage)
    with sessions.begin() as session:
        queued = session.execute(select(QueueEntry.item_id, QueueEntry.priority)).one()
    assert (item.image_id, image.digest, image.bytes) == (image.id, name, 5)
    assert (*queued, knocks) == (item.id, 7, [None])
    assert (storage.get(name), rows(sessions, Fetch)) == (b"bytes", 0)
    assert events(sessions, item.id) == ["submitted", "fetched"]


def test_the_ledger_says_what_came_but_not_the_query(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn
) -> None:
    server.answers["/a.jpg?token=secret"] = body(b"bytes")
    submit(server.uri("/a.jpg?token=secret"))
    turn()
    with sessions.begin() as session:
        found = select(LedgerEntry).where(LedgerEntry.event == "fetched")
        entry = session.scalars(found).one()
    name = hashlib.sha256(b"bytes").hexdigest()
    assert entry.details == {"digest": name, "bytes": 5, "uri": server.uri("/a.jpg")}


def test_the_bytes_are_kept_before_the_rows(
    sessions: Sessions, tmp_path: Path, settings: Settings, server: Foreign, submit: Submit
) -> None:
    class Broken(Storage):
        def put(self, digest: str, data: bytes) -> None:
            assert rows(sessions, StoredImage) == 0
            raise StorageUnavailable("The store is full.")

    submit(server.uri("/a.jpg"))
    fetch_due(sessions, Broken(str(tmp_path)), settings, internet=nearby())
    waiting = only(sessions, Fetch)
    assert (waiting.problem, waiting.attempts) == (StorageUnavailable.public, 1)
    assert rows(sessions, StoredImage) == 0


def test_the_same_bytes_from_two_addresses_are_one_image(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn
) -> None:
    server.answers["/b.jpg"] = body(b"bytes")
    submit(server.uri("/a.jpg"), server.uri("/b.jpg"), server.uri("/a.jpg"))
    turn()
    assert [rows(sessions, t) for t in (StoredImage, Item, QueueEntry, Fetch)] == [1, 3, 3, 0]


@pytest.mark.parametrize("path", ["/gone", "/large"])
def test_what_will_fail_again_is_undetermined_at_once(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn, path: str
) -> None:
    server.answers.update({"/gone": body(b"", 404), "/large": body(b"x" * 1_001)})
    batch = submit(server.uri(path))
    turn()
    item = only(sessions, Item)
    assert item.verdict is Verdict.UNDETERMINED
    assert path in item.reason
    assert events(sessions, item.id) == ["submitted", "failed"]
    assert batches.status(sessions, batch).finished
    assert turn() == 0


def test_a_host_allowed_no_more_is_not_fetched_from(
    sessions: Sessions, storage: Storage, server: Foreign, submit: Submit
) -> None:
    submit(server.uri("/a.jpg"))
    fetch_due(sessions, storage, Settings(), internet=nearby())
    assert "FILTER_SERVICE_FETCH_HOSTS" in only(sessions, Item).reason
    assert server.connections == []


def test_what_may_pass_is_tried_again_later_and_later(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn, owner: Engine
) -> None:
    server.answers["/a.jpg"] = body(b"", 503)
    submit(server.uri("/a.jpg"))
    pauses = []
    for _ in range(4):
        assert (turn(), turn()) == (1, 0)
        with sessions.begin() as session:
            wait = select(func.extract("epoch", Fetch.due_at - func.now()))
            pauses.append(round(float(session.scalar(wait) or 0), -1))
        later(owner)
    server.answers["/a.jpg"] = body(b"bytes")
    turn()
    assert pauses == [10, 30, 90, 270]
    assert only(sessions, Item).image_id is not None


def test_what_never_comes_is_undetermined_in_the_end(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn, owner: Engine
) -> None:
    server.answers["/a.jpg"] = body(b"", 503)
    submit(server.uri("/a.jpg"))
    while turn():
        later(owner)
    assert only(sessions, Item).reason.startswith(f"given up after {ATTEMPTS} attempts: http://")
    assert len(server.paths) == ATTEMPTS


def test_what_kills_its_fetchers_is_undetermined_in_the_end(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn, owner: Engine
) -> None:
    submit(server.uri("/a.jpg"))
    with owner.begin() as connection:
        connection.execute(text("UPDATE fetches SET attempts = :n"), {"n": ATTEMPTS})
    turn()
    assert "killed" in only(sessions, Item).reason
    assert server.connections == []


def test_a_retry_fetches_anew(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn
) -> None:
    server.answers["/b.jpg"] = body(b"", 404)
    batch = submit(server.uri("/b.jpg"))
    turn()
    assert retries.retry(sessions, lambda: None, batch) == 1
    server.answers["/b.jpg"] = body(b"bytes")
    assert turn() == 1
    item = only(sessions, Item)
    assert (item.verdict, item.reason) == (None, None)
    assert rows(sessions, QueueEntry) == 1
    assert events(sessions, item.id) == ["submitted", "failed", "retried", "fetched"]


def test_a_retry_leaves_what_has_no_address(sessions: Sessions, storage: Storage) -> None:
    given = [Submission("gone.jpg", error="permission denied")]
    batch = submissions.accept(sessions, storage, lambda: None, given, POLICY)
    assert retries.retry(sessions, lambda: None, batch) == 0


def test_a_cancelled_batch_is_not_fetched(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn
) -> None:
    batch = submit(server.uri("/a.jpg"), server.uri("/a.jpg"))
    assert batches.cancel(sessions, batch) == 2
    assert (turn(), server.connections, rows(sessions, Fetch)) == (0, [], 0)
    assert batches.status(sessions, batch).finished


def test_what_is_cancelled_while_it_comes_is_not_queued(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn
) -> None:
    def meanwhile(handler: Any) -> None:
        batches.cancel(sessions, batch)
        body(b"bytes")(handler)

    server.answers["/a.jpg"] = meanwhile
    batch = submit(server.uri("/a.jpg"))
    turn()
    assert (rows(sessions, QueueEntry), only(sessions, Item).image_id) == (0, None)


def test_what_came_for_nobody_is_deleted_soon(
    sessions: Sessions, storage: Storage, server: Foreign, submit: Submit, turn: Turn
) -> None:
    def meanwhile(handler: Any) -> None:
        item = only(sessions, Item).id
        retention.erase(sessions, storage, item, "somebody asked for it", "service")
        body(b"bytes")(handler)

    server.answers["/a.jpg"] = meanwhile
    submit(server.uri("/a.jpg"))
    turn()
    assert storage.has(digest(b"bytes"))
    assert retention.sweep(sessions, storage) == 1
    assert not storage.has(digest(b"bytes"))


def test_what_is_cancelled_just_as_it_is_queued_is_not(
    sessions: Sessions, server: Foreign, submit: Submit
) -> None:
    batch = submit(server.uri("/a.jpg"))
    with ThreadPoolExecutor() as threads:
        with sessions.begin() as session:  # as an arrival does, at the wrong moment
            item = session.scalars(delete(Fetch).returning(Fetch.item_id)).one()
            enqueue(session, [item], 0)
            session.flush()
            cancelled = threads.submit(batches.cancel, sessions, batch)
            time.sleep(0.3)
        assert cancelled.result() == 1
    assert rows(sessions, QueueEntry) == 0


def test_who_lost_the_lease_overrules_nobody(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn, owner: Engine
) -> None:
    def slow(handler: Any) -> None:
        server.answers["/a.jpg"] = body(b"quick")
        later(owner)
        turn()
        body(b"", 404)(handler)

    server.answers["/a.jpg"] = slow
    submit(server.uri("/a.jpg"))
    turn()
    item = only(sessions, Item)
    assert (item.verdict, rows(sessions, QueueEntry)) == (None, 1)
    assert events(sessions, item.id) == ["submitted", "fetched"]


def test_who_lost_the_lease_gives_nothing_up(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn, owner: Engine
) -> None:
    asked_again = threading.Event()

    def second(handler: Any) -> None:
        asked_again.set()
        time.sleep(0.5)  # the first is told meanwhile that there is nothing
        body(b"bytes")(handler)

    def first(handler: Any) -> None:
        server.answers["/a.jpg"] = second
        later(owner)
        others.append(threads.submit(turn))
        assert asked_again.wait(10)
        body(b"", 404)(handler)

    others: list[Future[int]] = []
    server.answers["/a.jpg"] = first
    submit(server.uri("/a.jpg"))
    with ThreadPoolExecutor() as threads:
        done = turn()
    assert done + others[0].result() == 2  # a thread of the first turn may take the second try, too
    assert (only(sessions, Item).verdict, rows(sessions, QueueEntry)) == (None, 1)


def test_late_bytes_of_what_was_given_up_change_nothing(
    sessions: Sessions, server: Foreign, submit: Submit, turn: Turn, owner: Engine
) -> None:
    def slow(handler: Any) -> None:
        server.answers["/a.jpg"] = body(b"", 404)
        later(owner)
        turn()
        body(b"late")(handler)

    server.answers["/a.jpg"] = slow
    submit(server.uri("/a.jpg"))
    turn()
    assert only(sessions, Item).verdict is Verdict.UNDETERMINED
    assert rows(sessions, QueueEntry) == 0


def test_some_are_fetched_at_once(server: Foreign, submit: Submit, turn: Turn) -> None:
    together = threading.Barrier(8, timeout=10)

    def wait(handler: Any) -> None:
        together.wait()
        body(handler.path.encode())(handler)

    paths = [f"/{n}" for n in range(8)]
    server.answers.update(dict.fromkeys(paths, wait))
    submit(*map(server.uri, paths))
    assert turn() == 8


def test_when_the_time_is_over_none_is_begun(server: Foreign, submit: Submit, turn: Turn) -> None:
    submit(server.uri("/a.jpg"))
    assert turn(seconds=0) == 0


def test_killed_fetchers_lose_and_double_nothing(
    sessions: Sessions,
    storage: Storage,
    server: Foreign,
    submit: Submit,
    turn: Turn,
    owner: Engine,
    database_url: str,
) -> None:
    contents = {f"/{n}": f"picture {n}".encode() for n in range(120)}
    server.answers.update({path: slowly(data) for path, data in contents.items()})
    batch = submit(*map(server.uri, contents))
    arguments = (database_url, storage.url, server.hosts)
    with fetcher(*arguments) as one, fetcher(*arguments) as other:
        for process, moment in ((one, 20), (other, 60)):
            wait_for(sessions, moment)
            process.kill()
    assert 0 < rows(sessions, Fetch) <= 60
    later(owner)
    turn()
    kept = digests(sessions, batch)
    assert kept == [hashlib.sha256(data).hexdigest() for data in contents.values()]
    assert all(storage.get(name) for name in kept)
    assert [rows(sessions, t) for t in (QueueEntry, StoredImage, Fetch)] == [120, 120, 0]
    with sessions.begin() as session:
        told = list(session.scalars(select(LedgerEntry.item_id).filter_by(event="fetched")))
    assert len(set(told)) == len(told) == 120


def slowly(data: bytes) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        time.sleep(0.05)
        body(data)(handler)

    return answer


@contextlib.contextmanager
def fetcher(*arguments: object) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of its own that fetches what is due."""
    code = f"from tests.support.foreign_servers import fetch_all; fetch_all(*{arguments!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(sessions: Sessions, arrived: int) -> None:
    deadline = time.monotonic() + 60
    while rows(sessions, QueueEntry) < arrived:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def digests(sessions: Sessions, batch: uuid.UUID) -> list[str]:
    """Of a batch's items, in order."""
    query = select(StoredImage.digest).join(Item).where(Item.batch_id == batch).order_by(Item.id)
    with sessions.begin() as session:
        return list(session.scalars(query))
