"""The Celery task that runs one background job, in the process without a model."""

from functools import cache

from filter_service.schedule import Chores
from filter_service.settings import Settings
from tasks.celery import app
from tasks.work import notify_workers, stopping


@app.task(name="tasks.chore")  # type: ignore[untyped-decorator]
def chore(name: str) -> None:
    """Do one chore."""
    chores().do(name)


@cache
def chores() -> Chores:
    """This process's chores, made by its first task."""
    return Chores(Settings.load(), notify_workers, stopping)
