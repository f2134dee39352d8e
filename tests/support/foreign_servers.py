"""Stand-ins for the Internet: a local HTTP server, a resolver, a network monitor."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

from filter_service.db.session import connect, sessions_of
from filter_service.egress.client import Internet
from filter_service.intake.fetch_queue import fetch_due
from filter_service.settings import Settings
from filter_service.storage import Storage

HERE = (ip_network("127.0.0.1/32"),)

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Foreign:
    """A server: what it answers by path, and what it was asked."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    connections: list[tuple[str, int]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def uri(self, path: str, host: str = "images.example.org", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What an operator allows who wants everything from here."""
        return (f"*.example.org:{self.port}",)


@contextlib.contextmanager
def serving(
    address: str = "127.0.0.1", port: int = 0, wrap: Callable[[Any], Any] = lambda s: s
) -> Iterator[Foreign]:
    """A server that runs meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            foreign.paths.append(self.path)
            foreign.headers.append({k.lower(): v for k, v in self.headers.items()})
            with contextlib.suppress(ConnectionError, TimeoutError):
                foreign.answers[self.path](self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

        def get_request(self) -> tuple[Any, Any]:
            connection, client = super().get_request()
            foreign.connections.append(client)
            return connection, client

        def handle_error(self, *_: object) -> None:
            pass

    server = Server((address, port), Handler)
    foreign = Foreign(server.server_address[1])
    server.socket = wrap(server.socket)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield foreign
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def body(data: bytes, status: int = 200, **headers: str) -> Answer:
    """An honest answer, unless a header says otherwise."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    return body(b"", status, Location=location)


def raw(*pieces: bytes, pause: float = 0.0) -> Answer:
    """Whatever bytes, with a pause after each piece."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        for piece in pieces:
            handler.wfile.write(piece)
            time.sleep(pause)

    return answer


@dataclass
class Names:
    """A resolver: one list of addresses after another for each name, the last one for ever."""

    known: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.known.get(host, [["127.0.0.1"]])
        return answers[min(self.asked.count(host), len(answers)) - 1]


def nearby(**names: list[list[str]]) -> Internet:
    """An Internet of which only 127.0.0.1 may be connected to, where every name is by default."""
    known = {f"{name.replace('_', '-')}.example.org": found for name, found in names.items()}
    return Internet(Names(known), also=HERE)


class Wire:
    """What this process does on the network while it is watched."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.watched = False
        sys.addaudithook(self._note)  # for ever: there is no way to take one off

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watched and event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            about = arguments[0] if event == "socket.getaddrinfo" else arguments[-1]
            self.events.append((event, about))

    @contextlib.contextmanager
    def watching(self) -> Iterator[list[tuple[str, Any]]]:
        self.events, self.watched = [], True
        try:
            yield self.events
        finally:
            self.watched = False


WIRE = Wire()


def fetch_all(database_url: str, images: str, hosts: Sequence[str]) -> None:
    """What a process of its own does: fetch from 127.0.0.1 whatever is due."""
    engine = connect(database_url)
    settings = Settings(fetch_hosts=tuple(hosts), fetch_seconds=10)
    while fetch_due(sessions_of(engine), Storage(images), settings, internet=nearby()):
        pass
    engine.dispose()
