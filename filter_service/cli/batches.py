"""Commands for batches: submit, status, items, cancel, retry."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from filter_service.accounts.clients import client_named
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.parameters import LARGEST_ID, LARGEST_PAGE, LONGEST_LABEL, URGENT, shown
from filter_service.cli.plain_cells import cells
from filter_service.db.scope import OPERATOR, Scope, only
from filter_service.db.unjudged import reasons
from filter_service.errors import ImageError
from filter_service.images import Limits, read
from filter_service.images.views import is_partial
from filter_service.intake import batches, item_lists, retries, submissions
from filter_service.intake.batches import Status
from filter_service.intake.submissions import Submission
from filter_service.policy import read_policy
from filter_service.verdicts import Verdict

ALWAYS = ("clear", "flagged", "undetermined", "waiting")  # said of a batch
STATES = (*ALWAYS, "cancelled", "erased", "stranded")  # the last ones only if there are any

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
BatchId = Annotated[uuid.UUID, typer.Argument(help="The id that `submit` printed.")]


def submit(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders taken whole.")],
    policy: Annotated[Path, typer.Option(help="Policy file (YAML).")],
    label: Annotated[str, typer.Option(help="A name for people.")] = "",
    client: Annotated[
        str | None, typer.Option(help="Whose batch it is, and whose policy by its name.")
    ] = None,
    priority: Annotated[
        int, typer.Option(min=-URGENT, max=URGENT, help="Higher is judged sooner.")
    ] = 0,
    json_: Json = False,
) -> None:
    """Submit images to be judged; prints the batch's id.

    Where no path holds a file nothing is submitted. Where some do, the others are named, and a
    file that is not there is submitted as one that could not be read.
    """
    if len(label) > LONGEST_LABEL:
        raise typer.BadParameter(f"The label has {len(label):,} letters: give {LONGEST_LABEL}.")
    rules = read_policy(policy)
    found = _found(paths)
    with workplace(context.obj) as place:
        files = _files(place, found)
        try:
            batch = submissions.accept(
                place.sessions,
                place.storage,
                place.notify_workers,
                files,
                rules,
                label=label,
                priority=priority,
                scope=_scope(place, client),
            )
        except KeyboardInterrupt as interrupted:
            typer.echo("\n".join(getattr(interrupted, "__notes__", ())), err=True)
            raise
    typer.echo(json.dumps({"batch": str(batch)}) if json_ else batch)


def _scope(place: Workplace, client: str | None) -> Scope:
    """As the operator, unless told to submit for a client."""
    return OPERATOR if client is None else only(client_named(place.sessions, client).id)


def status(
    context: typer.Context,
    batch: BatchId,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until it is finished.")] = False,
    json_: Json = False,
) -> None:
    """How far a batch has come."""
    with workplace(context.obj) as place:
        found = watched(place, batch) if watch else batches.status(place.sessions, batch)
    counts = {k: getattr(found, k) for k in STATES}
    if json_:
        typer.echo(json.dumps({"batch": str(batch), "total": found.total, **counts}))
    else:
        shown = {k: n for k, n in counts.items() if n or k in ALWAYS}
        typer.echo(", ".join(f"{n} {name}" for name, n in shown.items()))


def watched(
    place: Workplace, batch: uuid.UUID, look: Callable[[], object] = lambda: None
) -> Status:
    """Show a progress bar until the batch is finished, with a look at the processes meanwhile."""
    with Progress() as progress:
        task = progress.add_task("judged", total=None)
        while True:
            found = batches.status(place.sessions, batch)
            done = None if found.total is None else found.total - found.waiting
            progress.update(task, total=found.total, completed=done)
            if found.finished:
                return found
            look()
            time.sleep(0.5)


def items(
    context: typer.Context,
    batch: Annotated[uuid.UUID | None, typer.Option(help="Of this batch only.")] = None,
    verdict: Annotated[str | None, typer.Option(help="clear, flagged or undetermined.")] = None,
    after: Annotated[int, typer.Option(min=0, max=LARGEST_ID, help="Items after this id.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=LARGEST_PAGE, help="At most so many.")] = 100,
    json_: Json = False,
) -> None:
    """List items with their verdicts, in the order of their ids."""
    if verdict is not None and verdict not in list(Verdict):
        raise typer.BadParameter(f"{verdict!r} is none of {', '.join(Verdict)}.")
    wanted = None if verdict is None else Verdict(verdict)
    with workplace(context.obj) as place:
        found = item_lists.items_with_classes(place.sessions, batch, wanted, after, limit)
        with place.sessions.begin() as session:
            why = reasons(session, [item.id for item, _ in found])
    rows = [
        {
            "item": item.id,
            "file": item.source,
            "verdict": item.verdict,
            "unjudged": why.get(item.id),
            "class": class_name,
            "probability": item.probability,
            "reason": item.reason,
            "seen_pixels_share": item.seen_pixels,
            "seen_time_share": item.seen_time,
            "seen_pixels": item.seen_pixels,
            "seen_time": item.seen_time,
            "partial": is_partial(item.seen_pixels, item.seen_time),
        }
        for item, class_name in found
    ]
    if json_:
        typer.echo("\n".join(json.dumps(row) for row in rows))
    else:
        _print_items(rows)


def cancel(context: typer.Context, batch: BatchId) -> None:
    """Take back the items of a batch that have no verdict yet."""
    with workplace(context.obj) as place:
        typer.echo(f"{batches.cancel(place.sessions, batch)} items cancelled")


def retry(context: typer.Context, batch: BatchId) -> None:
    """Queue the undetermined items of a batch again."""
    with workplace(context.obj) as place:
        again = retries.retry(place.sessions, place.notify_workers, batch)
    typer.echo(f"{again} items queued again")


def _files(place: Workplace, paths: Iterable[Path]) -> Iterator[Submission]:
    """Every file, read when it is its turn; one that cannot be read is submitted as such."""
    limits = Limits.of(place.settings)
    for path in paths:
        source = os.fsencode(path).decode(errors="backslashreplace")  # a name may be no text
        try:
            yield Submission(source, read(path, limits))
        except ImageError as error:
            yield Submission(source, error=str(error))


def _found(paths: Iterable[Path]) -> list[Path]:
    """The files at and below some paths; BadParameter where there is none at all."""
    files = {path: below(path) for path in paths}
    without = [path for path, found in files.items() if not any(map(os.path.lexists, found))]
    sentences = [
        f"there is no file in the folder {shown(path)!r}"
        if path.is_dir()
        else f"there is no file or folder {shown(path)!r}"
        for path in without
    ]
    if len(without) == len(files):
        raise typer.BadParameter(f"Nothing was submitted: {'; '.join(sentences)}.")
    for sentence in sentences:
        typer.echo(f"Warning: {sentence}.", err=True)
    return [file for found in files.values() for file in found]


def below(path: Path) -> list[Path]:
    """A folder's files, hidden ones apart; anything else is itself."""
    if not path.is_dir():
        return [path]
    found = (p for p in sorted(path.rglob("*")) if not p.is_dir() or p.is_symlink())
    return [p for p in found if not p.name.startswith(".")]


def _print_items(rows: list[dict[str, Any]]) -> None:

    table = Table("item", "file", "verdict", "class", "probability", "reason")
    for row in rows:
        p = row["probability"]
        verdict, probability = row["verdict"] or row["unjudged"], "" if p is None else f"{p:.3f}"
        told = (str(row["item"]), row["file"], verdict, row["class"] or "", probability)
        said = row["reason"] or ("only a part was seen" if row["partial"] else "")
        table.add_row(*cells(*told, said))
    Console().print(table)
