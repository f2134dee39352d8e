"""Prints figures by slices: by an attribute, or by prompts."""

import json
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.table import Table

from filter_service.audit.slices import SliceReport, by_attribute, by_prompts
from filter_service.audit.slices.slice_shares import SliceShare
from filter_service.audit.transparency import Period
from filter_service.cli.context import workplace
from filter_service.cli.plain_cells import cells
from filter_service.db.query_encoder import LazyQueryEncoder


@dataclass(frozen=True, slots=True)
class SliceQuestion:
    """By what figures are sliced: an attribute, or prompts."""

    by: str
    prompts: tuple[str, ...]
    policy: str | None


def print_slices(
    context: typer.Context, period: Period, asked: SliceQuestion, as_json: bool
) -> None:
    """As a table, or as JSON; raises BadParameter for what is no question."""
    if bool(asked.by) == bool(asked.prompts):
        raise typer.BadParameter("Give --by ATTRIBUTE, or --prompt twice or more, one of the two.")
    with workplace(context.obj) as place:
        if asked.by:
            report = by_attribute(place.sessions, period, asked.by, policy=asked.policy)
        else:
            seeker = LazyQueryEncoder(place.settings, place.sessions)
            report = by_prompts(place.sessions, seeker, period, asked.prompts, policy=asked.policy)
    if as_json:
        typer.echo(json.dumps(report.document(), indent=2, ensure_ascii=False))
    else:
        _print(report)


def _print(report: SliceReport) -> None:
    console = Console()
    period = report.period
    console.print(f"{period.since:%Y-%m-%d %H:%M} to {period.until:%Y-%m-%d %H:%M} UTC")
    table = Table(report.by, "flagged", "interval", "", "overturned", "interval", "")
    for row in report.rows:
        table.add_row(*cells(row.value, *_told(row.flagged), *_told(row.overturned)))
    console.print(table)
    if report.left_out:
        typer.echo(f"{report.left_out} smaller slices were not looked at.")
    for sentence in report.caveats:
        typer.echo(sentence)


def _told(share: SliceShare) -> tuple[str, str, str]:
    if share.interval is None:
        return "none of none", "", ""
    i = share.interval
    verdict = ""
    if share.apart is not None and share.differs:
        verdict = "more than the others" if share.apart.value > 0 else "less than the others"
    return (
        f"{i.value:.1%} of {share.of:,}",
        f"{i.low:.1%} to {i.high:.1%}",
        verdict,
    )
