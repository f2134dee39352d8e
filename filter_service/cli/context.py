"""Opens what commands need: settings, servers, database, image store and job queue."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.local import kept_up, services
from filter_service.settings import Settings
from filter_service.storage import Storage


class Queue(Protocol):
    """The job queue and its processes; in production Celery stands behind it."""

    def notify_workers(self, broker_url: str) -> None:
        """Tell some worker that there is work."""

    def workers(self, broker_url: str) -> int:
        """How many workers answer; BrokerUnavailable when the broker does not."""

    def worker(self, settings: Settings, log: Path | None = None) -> "Popen[bytes]":
        """Start a worker process; the settings name database and broker."""

    def chores(self, settings: Settings, log: Path | None = None) -> "Popen[bytes]":
        """Start the process for everything but judging, which needs no model."""

    def web(self, settings: Settings, log: Path | None = None) -> "Popen[bytes]":
        """Start the web process; it prints its address."""

    def schedule(self, settings: Settings, log: Path | None = None) -> "Popen[bytes]":
        """Start the process that sweeps for items left behind."""


@dataclass(frozen=True)
class Workplace:
    """An open database and image store."""

    settings: Settings  # with the addresses of the services in use
    sessions: Sessions
    storage: Storage
    queue: Queue

    def notify_workers(self) -> None:
        assert self.settings.broker_url is not None
        self.queue.notify_workers(self.settings.broker_url)


@contextmanager
def workplace(queue: Queue) -> Iterator[Workplace]:
    """Services up (embedded ones if none are named), the schema current, sessions and storage."""
    # sqlalchemy and pydantic take a second: not for --help

    settings = Settings.load()
    with services(settings) as found:
        if settings.database_url is None:
            upgrade(found.database_url)  # embedded: nobody else looks after it
        located = settings.model_copy(
            update={"database_url": found.database_url, "broker_url": found.broker_url}
        )
        engine = connect(found.database_url)
        try:
            yield Workplace(located, sessions_of(engine), Storage(settings.images_at), queue)
        finally:
            engine.dispose()


@contextmanager
def lasting(queue: Queue) -> Iterator[Workplace]:
    """The same for a command that stays: an embedded server that ends is started again."""
    with workplace(queue) as place, kept_up(Settings.load()):
        yield place
