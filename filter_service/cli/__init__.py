"""The command line: `filter-service …`; it knows no Celery, and loads torch only to judge."""

import sys

import typer

from filter_service.cli import (
    auditing,
    doctor,
    explaining,
    exporting,
    judging,
    keeping,
    operating,
    people,
    queueing,
    recording,
    replaying,
    serving,
    stating,
    versions,
)
from filter_service.cli.interrupting import interruptible
from filter_service.cli.place import Queue
from filter_service.errors import FilterServiceError

app = typer.Typer(
    name="filter-service",
    help="Batch content-filtering moderation of images, with explanations that have been tested.",
    no_args_is_help=True,
    add_completion=False,
)
queueing.add_to(app)
judging.add_to(app)
versions.add_to(judging.policies)
explaining.add_to(app)
operating.add_to(app)
serving.add_to(app)
doctor.add_to(app)
people.add_to(app)
auditing.add_to(app)
keeping.add_to(app)
stating.add_to(app)
exporting.add_to(app)
replaying.add_to(auditing.audits)
recording.add_to(auditing.audits)


def run(queue: Queue) -> None:
    """Run one command; an error of ours is a sentence on stderr and exit code 1."""
    try:
        with interruptible():
            app(obj=queue)
    except FilterServiceError as error:
        typer.echo(f"Error: {error}", err=True)
        for note in getattr(error, "__notes__", ()):
            typer.echo(note, err=True)
        sys.exit(1)
