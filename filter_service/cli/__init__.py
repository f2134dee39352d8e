"""The command line `filter-service`: knows all commands, and reports their errors."""

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from filter_service.cli.command_table import COMMANDS, GROUPS
from filter_service.cli.deferred_commands import application
from filter_service.cli.interruption import interruptible
from filter_service.errors import FilterServiceError, InvalidRequest

if TYPE_CHECKING:
    from filter_service.cli.context import Queue

ABOUT = "Batch content-filtering moderation of images, with explanations that have been tested."

app = application("filter-service", ABOUT, GROUPS, COMMANDS)


def run(queue: "Queue") -> None:
    """Run one command; an error is a sentence on stderr and exit code 1, or 2 for a bad value."""
    try:
        with interruptible():
            app(obj=queue)
    except InvalidRequest as error:
        _end(str(error), 2)
    except FilterServiceError as error:
        _end("\n".join([str(error), *getattr(error, "__notes__", ())]), 1)
    except UnicodeEncodeError as error:  # what the command line holds need not be text
        _end(f"{error.object[:80]!r} is no UTF-8 text: give words that are.", 2)
    except OSError as error:  # what is to be read or written, and the system does not let us
        if error.filename is None:
            raise
        _end(f"{error.filename!r} cannot be used ({error.strerror}): give another file.", 1)


def _end(sentence: str, code: int) -> NoReturn:
    text = sentence.encode(errors="backslashreplace").decode()  # a file's name may be no text
    typer.echo(f"Error: {text}", err=True)
    sys.exit(code)
