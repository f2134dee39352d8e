"""The only place that knows Celery: the app, its tasks and its schedule.

A worker is `celery -A tasks worker`, the schedule `celery -A tasks beat`. Who submits items calls
`tasks.knock`.
"""

from tasks.app import app
from tasks.work import drain, knock

__all__ = ["app", "drain", "knock"]
