"""Configures the Celery app and its schedule from the settings, on first use."""

from typing import Any

from celery import Celery

from filter_service.errors import InvalidSettings
from filter_service.schedule import CHORES
from filter_service.settings import Settings

HANGING = 600  # seconds that a task may run on after its time before it is killed
LATE = 10  # seconds that the clocks of schedule and chores may be apart

# A process without a model, of threads that mostly wait: for databases and other people's servers.
CHORES_WORKER = ("-Q", "chores", "--pool", "threads", "--concurrency", str(len(CHORES)))

app = Celery("filter_service", include=["tasks.work", "tasks.chores"])


def configuration(settings: Settings) -> dict[str, Any]:
    """How Celery serves us: messages are knocks, which may get lost and may come twice.

    Each worker is one process: it keeps one model, on all cores or on one GPU. It is forked, so
    that the parent sees it die, hands its knock to another, and can kill it when it hangs.
    """
    if settings.broker_url is None:
        raise InvalidSettings(
            "FILTER_SERVICE_BROKER_URL is not set: set it, or use `filter-service up`, which "
            "brings its own broker."
        )
    limit = settings.drain_seconds + HANGING
    return {
        "broker_url": settings.broker_url,
        "broker_connection_retry_on_startup": True,
        # A message that is not acknowledged within this time is given to somebody else.
        "broker_transport_options": {"visibility_timeout": int(limit) + HANGING},
        "worker_pool": "prefork",
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": 1,
        "task_default_queue": "filter_service",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Hard, not soft: an exception raised in the midst of judging would be laid at the door of
        # the image at hand.
        "task_time_limit": limit,
        "task_ignore_result": True,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0.1},
        "beat_scheduler": "celery.beat:Scheduler",  # intervals need no file
        "beat_schedule": schedule(settings),
    }


def schedule(settings: Settings) -> dict[str, Any]:
    """What happens by itself: a lost knock is made up for, indexes are built, chores are done.

    A message that nobody took before the next one came is stale.
    """
    sweep = settings.sweep_seconds
    return {
        "sweep": {
            "task": "tasks.drain",
            "schedule": sweep,
            "options": {"expires": sweep},
        },
        "index": {
            "task": "tasks.index",
            "schedule": 60.0,
            "options": {"expires": 60.0},
        },
        **{
            name: {
                "task": "tasks.chore",
                "args": [name],
                "schedule": float(chore.seconds),
                "options": {"queue": "chores", "expires": chore.seconds + LATE},
            }
            for name, chore in CHORES.items()
        },
    }


app.add_defaults(lambda: configuration(Settings.load()))
