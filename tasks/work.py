"""The Celery tasks of a worker: draining the queue and building search indexes."""

import logging
from ctypes import c_bool
from functools import cache
from multiprocessing.sharedctypes import RawValue

from celery.signals import worker_shutting_down
from kombu.exceptions import OperationalError

from filter_service.moderation.worker import Worker
from filter_service.settings import Settings
from tasks.celery import app

STALE = 60.0  # seconds after which a message says nothing; the sweep has sent another by then

logger = logging.getLogger(__name__)

# The parent is told to shut down, the child does the work: one byte that both see, without a lock,
# since either may be killed while it holds one.
_stopping = RawValue(c_bool, False)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def stop(**_: object) -> None:
    """Let the drain at hand end after its batch, and give back the one claimed ahead."""
    _stopping.value = True


def stopping() -> bool:
    """Whether this worker was told to shut down."""
    return bool(_stopping.value)


@app.task(name="tasks.drain")  # type: ignore[untyped-decorator]
def drain() -> None:
    """Judge what is queued."""
    worker().drain(stop=stopping, notify_workers=notify_workers)


@app.task(name="tasks.index")  # type: ignore[untyped-decorator]
def index() -> None:
    """Build search indexes that have come to pay."""
    worker().index()


def notify_workers() -> None:
    """Tell some worker that there is work. Nothing is lost with it: the sweep will come by."""
    try:
        drain.apply_async(expires=STALE)
    except OperationalError as error:
        logger.warning("The broker does not answer; the next sweep will do. %s", error)


@cache
def worker() -> Worker:
    """This process's worker, made by its first task.

    Not at import, or the parent would hold the model before it forks; not in worker_process_init,
    where Celery kills whoever takes more than four seconds.
    """
    return Worker(Settings.load())
