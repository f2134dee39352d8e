"""The entry point: runs the command line with Celery as its job queue."""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from contextlib import nullcontext
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING

from filter_service.cli import run
from filter_service.errors import BrokerUnavailable

if TYPE_CHECKING:
    from filter_service.settings import Settings


PATIENCE = 3.0  # seconds for a worker to answer
PR_SET_PDEATHSIG = 1  # of linux/prctl.h

_LIBC = ctypes.CDLL(None)  # found before any fork: other threads may hold the loader's lock

logger = logging.getLogger(__name__)


class CeleryQueue:
    """Workers and schedule as processes of their own (`cli.context.Queue`)."""

    def notify_workers(self, broker_url: str) -> None:
        from celery import Celery  # takes a while to import: not for --help
        from kombu.exceptions import OperationalError

        try:
            Celery(broker=broker_url).send_task("tasks.drain", queue="filter_service", expires=60.0)
        except OperationalError as error:
            logger.warning("The broker does not answer; the next sweep will do. %s", error)

    def workers(self, broker_url: str) -> int:
        from celery import Celery
        from kombu.exceptions import OperationalError

        try:
            with Celery(broker=broker_url).connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, timeout=PATIENCE)
                answers = Celery(broker=broker_url).control.ping(timeout=PATIENCE)
                names = (name for answer in answers for name in answer)
                return sum(not name.startswith("chores@") for name in names)
        except OperationalError as error:
            raise BrokerUnavailable(
                f"The broker does not answer ({error}): check FILTER_SERVICE_BROKER_URL and "
                "whether the server runs."
            ) from error

    def worker(self, settings: "Settings", log: Path | None = None) -> "Popen[bytes]":
        name = f"-n{uuid.uuid4()}"
        return _celery(settings, log, "worker", "--without-mingle", "--without-gossip", name)

    def chores(self, settings: "Settings", log: Path | None = None) -> "Popen[bytes]":
        from tasks.celery import CHORES_WORKER

        name = f"-nchores@{uuid.uuid4()}"
        return _celery(
            settings, log, "worker", *CHORES_WORKER, "--without-mingle", "--without-gossip", name
        )

    def web(self, settings: "Settings", log: Path | None = None) -> "Popen[bytes]":
        return _python(settings, log, "tasks", "serve")

    def schedule(self, settings: "Settings", log: Path | None = None) -> "Popen[bytes]":
        return _celery(settings, log, "beat", "--pidfile=")


def _celery(settings: "Settings", log: Path | None, *arguments: str) -> "Popen[bytes]":
    return _python(settings, log, "celery", "--quiet", "-A", "tasks", *arguments)


def _python(settings: "Settings", log: Path | None, module: str, *arguments: str) -> "Popen[bytes]":
    """Run a module in a process of its own, under these settings."""
    given = settings.model_dump(mode="json", exclude_none=True)
    environment = {f"FILTER_SERVICE_{name.upper()}": _written(v) for name, v in given.items()}
    with log.open("ab") if log else nullcontext() as out:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C reaches us, and we end them in order
            preexec_fn=_end_with_parent,  # noqa: PLW1509  (one call of libc)
        )


def _written(value: object) -> str:
    """A setting as the environment has it: text as it is, lists as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _end_with_parent() -> None:
    """Ask Linux to end this process gracefully when the one that started it is killed."""
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    run(CeleryQueue())


if __name__ == "__main__":
    main()
