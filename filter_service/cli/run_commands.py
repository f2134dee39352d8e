"""Commands that run processes until they are interrupted: worker, chores, up; and db upgrade."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from subprocess import Popen
from typing import Annotated

import typer

from filter_service.cli.context import Queue, lasting, workplace
from filter_service.cli.parameters import MOST_WORKERS
from filter_service.cli.supervision import everything, supervised
from filter_service.db import schema
from filter_service.settings import Settings


def worker(context: typer.Context) -> None:
    """Run one worker until it is interrupted; a batch at hand is finished first."""
    _stay_with("worker", context.obj.worker, context.obj)


def chores(context: typer.Context) -> None:
    """Run the process for everything but judging, until it is interrupted."""
    _stay_with("chores", context.obj.chores, context.obj)


def up(
    context: typer.Context,
    workers: Annotated[int, typer.Option(min=1, max=MOST_WORKERS, help="Worker processes.")] = 1,
) -> None:
    """Everything on one machine: embedded services, workers, chores, schedule and web page."""
    with suppress(KeyboardInterrupt), lasting(context.obj) as place:
        typer.echo(f"Up, with everything in {place.settings.data_dir}; Ctrl-C stops it.")
        with supervised(everything(place.queue, place.settings, workers)) as parts:
            parts.stay()


def upgrade(context: typer.Context) -> None:
    """Bring the database's tables up to this version."""
    with workplace(context.obj) as place:
        assert place.settings.database_url is not None
        schema.upgrade(place.settings.database_url)
    typer.echo(f"The database is at {schema.head()}.")


def _stay_with(name: str, start: Callable[[Settings], Popen[bytes]], queue: Queue) -> None:
    """Run one process until somebody interrupts."""
    with suppress(KeyboardInterrupt), lasting(queue) as place:
        started = {name: partial(start, place.settings)}
        with supervised(started) as parts:
            parts.stay()
