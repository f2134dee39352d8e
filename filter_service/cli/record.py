"""The command that writes an item's decision record into an HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from filter_service.accounts import Role
from filter_service.accounts.callers import Caller
from filter_service.audit import record as records
from filter_service.audit.record.record_file import shown_beside, written_down
from filter_service.cli.context import workplace
from filter_service.cli.parameters import ItemId
from filter_service.images import Limits
from filter_service.reviews.row_access import item_for, visible
from filter_service.web.http.pages import style


def record(
    context: typer.Context,
    item: ItemId,
    out: Annotated[Path, typer.Option(help="The file to write.")],
) -> None:
    """Write an item's whole life into one file of HTML that asks for nothing else."""
    whoever = Caller("service", Role.AUDITOR, None)
    with workplace(context.obj) as place:
        life = records.read(
            place.sessions,
            item,
            whoever.actor,
            "file",
            lambda session: item_for(session, whoever, item),
        )
        with place.sessions.begin() as session:
            others = shown_beside(session, life, visible(whoever))
        limits = Limits.of(place.settings)
        out.write_text(written_down(place.storage, limits, life, others, style()), encoding="utf-8")
    typer.echo(out)
