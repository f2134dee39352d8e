"""Commands of the operator: demo, console, worker, chores, up, db."""

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from filter_service.cli.context import Queue, lasting, workplace
from filter_service.cli.parameters import MOST_WORKERS
from filter_service.cli.supervision import everything, supervised

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen

    from filter_service.settings import Settings

database = typer.Typer(help="Look after the database.", no_args_is_help=True)


def demo(context: typer.Context) -> None:
    """Judge the bundled sample images with a real worker, and show what was flagged."""
    from filter_service.cli.demo import show

    show(context.obj)


def console(context: typer.Context) -> None:
    """The demo's flagged samples in the moderators' console, with everything that it needs."""
    from filter_service.cli.demo_console import console

    console(context.obj)


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


@database.command()
def upgrade(context: typer.Context) -> None:
    """Bring the database's tables up to this version."""
    from filter_service.db import schema

    with workplace(context.obj) as place:
        assert place.settings.database_url is not None
        schema.upgrade(place.settings.database_url)
    typer.echo(f"The database is at {schema.head()}.")


def add_to(app: typer.Typer) -> None:
    for command in (demo, console, worker, chores, up):
        app.command()(command)
    app.add_typer(database, name="db")


def _stay_with(name: str, start: "Callable[[Settings], Popen[bytes]]", queue: Queue) -> None:
    """Run one process until somebody interrupts."""
    with suppress(KeyboardInterrupt), lasting(queue) as place:
        started = {name: partial(start, place.settings)}
        with supervised(started) as parts:
            parts.stay()
