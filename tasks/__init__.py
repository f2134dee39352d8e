"""Celery's app, tasks and schedule; no other package imports Celery.

A worker that judges is `celery -A tasks worker`, one for everything else `celery -A tasks worker
-Q chores --pool threads`, the schedule `celery -A tasks beat`. Who submits items calls
`tasks.notify_workers`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.celery import app as app
    from tasks.work import drain as drain
    from tasks.work import notify_workers as notify_workers

__all__ = ["app", "drain", "notify_workers"]

_ROOMS = {"app": "tasks.celery", "drain": "tasks.work", "notify_workers": "tasks.work"}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (a module's attributes are of every type)
    """Import Celery when it is first asked for: the command line's --help does not ask."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)
