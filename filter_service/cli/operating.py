"""Commands of the operator: demo, console, worker, chores, up, db."""

import contextlib
import time
from subprocess import Popen
from typing import Annotated

import typer

from filter_service.cli.place import ended, workplace

database = typer.Typer(help="Look after the database.", no_args_is_help=True)


def demo(context: typer.Context) -> None:
    """Judge the bundled sample images with a real worker, and show what was flagged."""
    from filter_service.demo.show import show

    show(context.obj)


def console(context: typer.Context) -> None:
    """The demo's flagged samples in the moderators' console, with everything that it needs."""
    from filter_service.demo.console import console

    console(context.obj)


def worker(context: typer.Context) -> None:
    """Run one worker until it is interrupted; a batch at hand is finished first."""
    with workplace(context.obj) as place:
        _until_interrupted([place.queue.worker(place.settings)])


def chores(context: typer.Context) -> None:
    """Run the process for everything but judging, until it is interrupted."""
    with workplace(context.obj) as place:
        _until_interrupted([place.queue.chores(place.settings)])


def up(
    context: typer.Context,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Everything on one machine: embedded services, workers, chores, schedule and web page."""
    with workplace(context.obj) as place:
        typer.echo(f"Up, with everything in {place.settings.data_dir}; Ctrl-C stops it.")
        queue, settings = place.queue, place.settings
        processes = [queue.worker(settings) for _ in range(workers)]
        for start in (queue.chores, queue.schedule, queue.web):
            processes.append(start(settings))
        _until_interrupted(processes)


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


def _until_interrupted(processes: list["Popen[bytes]"]) -> None:
    """Wait until one process ends or somebody presses Ctrl-C; then end them all gracefully."""
    with ended(processes), contextlib.suppress(KeyboardInterrupt):
        while all(p.poll() is None for p in processes):
            time.sleep(0.2)
