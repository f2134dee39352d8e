"""Commands for statements of reasons: issue, export, show, check."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from filter_service.cli.context import workplace
from filter_service.cli.parameters import LARGEST_ID, ItemId
from filter_service.db.tables import StoredStatement
from filter_service.policy.strict import each_once
from filter_service.statements import database_files, issuance, validation, wording
from filter_service.statements.issuance import IssuanceResult

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day, in UTC.")]


def issue(
    context: typer.Context,
    items: Annotated[
        list[int] | None,
        typer.Argument(min=1, max=LARGEST_ID, help="Items; all that are due."),
    ] = None,
) -> None:
    """Issue what decisions ask for; for items named, also what could not be issued before."""
    with workplace(context.obj) as place:
        for item in items or ():
            typer.echo(f"item {item}: {_said(issuance.issue(place.sessions, item))}")
        if items:
            return
        count = issuance.issue_all(place.sessions)
        typer.echo(f"{count} statements were issued or withdrawn")
        for item, problem in issuance.problems(place.sessions):
            typer.echo(f"item {item}: {problem}", err=True)


def export(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    since: Day = None,
    until: Day = None,
) -> None:
    """Write files for the Transparency Database: what is new, or what was issued in a period."""
    begin, end = (day and day.replace(tzinfo=UTC) for day in (since, until))
    count = 0
    with workplace(context.obj) as place:
        for written in database_files.export(place.sessions, out, begin, end):
            typer.echo(written.path)
            count += written.count
    typer.echo(f"{count} statements", err=True)


def show(
    context: typer.Context,
    item: ItemId,
    json_: Annotated[bool, typer.Option("--json", help="The database's document.")] = False,
    html: Annotated[
        bool, typer.Option("--html", help="The notice, to be sent or printed.")
    ] = False,
) -> None:
    """Print what the user of an item is told, as a text unless told otherwise."""
    with workplace(context.obj) as place:
        found = issuance.statements_of(place.sessions, item)
    if not found:
        typer.echo(f"Item {item} has no statement.", err=True)
        raise typer.Exit(1)
    statement = found[0]
    if json_:
        typer.echo(json.dumps(statement.document, indent=2, ensure_ascii=False))
    elif html:
        typer.echo(wording.page(statement.notice, statement.language.split(",")))
    else:
        typer.echo(_head(statement) + statement.notice)


def check(
    file: Annotated[Path, typer.Argument(help='A file {"statements": […]}, or one statement.')],
) -> None:
    """Check a file against the Transparency Database's rules; exit code 1 if one is broken."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=each_once)
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from error
    whole = isinstance(content, dict) and "statements" in content
    broken = validation.check_file(content) if whole else validation.check(content)
    for sentence in broken:
        typer.echo(sentence, err=True)
    if broken:
        raise typer.Exit(1)
    typer.echo(f"{len(content['statements']) if whole else 1} statements keep every rule")


def _head(statement: StoredStatement) -> str:
    if statement.withdrawn_at is None:
        return ""
    return f"(Withdrawn on {statement.withdrawn_at:%Y-%m-%d}: the restriction was lifted.)\n\n"


def _said(issued: IssuanceResult) -> str:
    if issued.withdrawn:
        return "its statement is withdrawn"
    if issued.puid is None:
        return "no statement has to be issued"
    return f"{issued.puid} {'was issued' if issued.new else 'stands'}"
