"""Commands that export items to files and print transparency figures."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from filter_service.audit import transparency
from filter_service.audit.exports import Export, ExportFilter, Format, begin, moment
from filter_service.audit.transparency import Figure, TransparencyReport
from filter_service.audit.transparency.dsa_report import dsa_report, reporting_period
from filter_service.audit.transparency.dsa_template import ProviderKind
from filter_service.calibration.estimates import Estimate
from filter_service.calibration.standing_estimates import StandingEstimates
from filter_service.cli.context import workplace
from filter_service.cli.plain_cells import cells
from filter_service.cli.slice_output import SliceQuestion, print_slices
from filter_service.storage import durable

ACTOR = "service"  # whoever can run commands on the machine is the service itself

Since = Annotated[str, typer.Option("--from", help="A day or a moment, UTC: 2026-01-31T12:00.")]
Until = Annotated[str, typer.Option("--to", help="Likewise; a day is in it to its end.")]


def export(  # noqa: PLR0913  (each is an option)
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="items, or dsa-report.")] = "items",
    *,
    out: Annotated[str, typer.Option(help="A file; - is standard output.")] = "-",
    period: Annotated[str, typer.Option(help="Of a dsa-report: 2026, 2026-H1, DAY/DAY.")] = "",
    service: Annotated[str, typer.Option(help="Of a dsa-report: the service's name.")] = "",
    provider: Annotated[
        str, typer.Option(help="Of a dsa-report: intermediary, hosting, platform or vlop.")
    ] = "",
    form: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet.")] = "jsonl",
    since: Since = "",
    until: Until = "",
    by: Annotated[str, typer.Option(help="The period is when: submitted or judged.")] = "submitted",
    class_name: Annotated[str, typer.Option("--class", help="Flagged for it, or nearest.")] = "",
    policy: Annotated[str, typer.Option(help="Name, or digest of one version.")] = "",
    decision: Annotated[str, typer.Option(help="confirmed or overturned.")] = "",
    verdict: Annotated[str, typer.Option(help="clear, flagged or undetermined.")] = "",
    batch: Annotated[str, typer.Option(help="Of this batch only.")] = "",
) -> None:
    """Write a row for every item, which the ledger notes; or the Commission's report on accuracy.

    `export dsa-report` is section 1.6 of the transparency report: docs/dsa-report.md.
    """
    items = {"from": since, "to": until, "class": class_name, "policy": policy, "batch": batch}
    items |= {"decision": decision, "verdict": verdict}
    if what == "dsa-report":
        _refuse(what, items)
        _write_report(context, out, period, service, provider or ProviderKind.PLATFORM)
        return
    if what != "items":
        raise typer.BadParameter(f"{what!r} cannot be exported: say items or dsa-report.")
    _refuse(what, {"period": period, "service": service, "provider": provider})
    if form not in list(Format):
        raise typer.BadParameter(f"{form!r} is none of {', '.join(Format)}.")
    if not Path(out).name:
        raise typer.BadParameter(f"{out!r} names no file: give one, or - for standard output.")
    if out == "-" and form == Format.PARQUET:
        raise typer.BadParameter("Parquet is not for standard output: name a file with --out.")
    wanted = ExportFilter.parse(
        since=since,
        until=until,
        by=by,
        class_name=class_name,
        policy=policy,
        decision=decision,
        verdict=verdict,
        batch=batch,
    )
    with workplace(context.obj) as place:
        export = begin(place.sessions, wanted, Format(form), ACTOR)
        kept = False
        try:
            with _opened(out) as file:
                for piece in _shown(export):
                    file.write(piece)
                file.flush()
            kept = True
        finally:
            export.close(kept)
    typer.echo(f"{export.count:,} rows", err=True)


def _refuse(what: str, options: dict[str, str]) -> None:
    """Options that mean nothing for what is exported."""
    if given := next((name for name, value in options.items() if value), None):
        raise typer.BadParameter(f"--{given} says nothing about {what}: leave it out.")


def _write_report(
    context: typer.Context, out: str, period: str, service: str, provider: str
) -> None:
    if provider not in list(ProviderKind):
        raise typer.BadParameter(f"{provider!r} is none of {', '.join(ProviderKind)}.")
    if not period or not service:
        raise typer.BadParameter(
            "A dsa-report is of a period and a service: give --period 2026 and --service NAME."
        )
    wanted = reporting_period(period)
    with workplace(context.obj) as place:
        data = dsa_report(place.sessions, wanted, service, ProviderKind(provider))
    with _opened(out) as file:
        file.write(data)
        file.flush()


def figures(
    context: typer.Context,
    *,
    since: Since = "",
    until: Until = "",
    by: Annotated[
        str, typer.Option(help="Flags and reversals by an attribute of a manifest's metadata.")
    ] = "",
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="The same by what the model sees: two prompts or more, each an option."),
    ] = None,
    policy: Annotated[str, typer.Option(help="With --by or --prompt: of this policy only.")] = "",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print the transparency figures of a period, the last 30 days unless told otherwise."""
    start = moment(since) if since else None
    end = moment(until, end=True) if until else None
    if by or prompt or policy:
        asked = SliceQuestion(by, tuple(prompt or ()), policy or None)
        print_slices(context, transparency.Period.of(start, end), asked, json_)
        return
    with workplace(context.obj) as place:
        report = transparency.report(place.sessions, transparency.Period.of(start, end))
    if json_:
        typer.echo(json.dumps(report.document(), indent=2, ensure_ascii=False))
    else:
        _print(report)


@contextmanager
def _opened(out: str) -> Iterator[IO[bytes]]:
    """A file that is there under its name when it is whole, and not at all before."""
    if out == "-":
        yield sys.stdout.buffer
        return
    with durable.written(Path(out)) as file:
        yield file


def _shown(export: Export) -> Iterator[bytes]:
    """The pieces, with a bar on a terminal that says how far it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    first = export.rows.reached
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("exporting", total=export.rows.last - first)
        for piece in export:
            yield piece
            told = f"{export.count:,} rows"
            progress.update(task, completed=export.rows.reached - first, description=told)


def _print(report: TransparencyReport) -> None:
    """A table for each section; the definitions are on the page and in the JSON."""
    console = Console()
    period = report.period
    console.print(f"{period.since:%Y-%m-%d %H:%M} to {period.until:%Y-%m-%d %H:%M} UTC")
    for section in report.sections:
        table = Table("", "", "95 % interval", "", title=Text(section.title), title_justify="left")
        for figure in section.figures:
            table.add_row(*cells(figure.title, *_told(figure), figure.note))
        console.print(table)
    if report.estimates:
        console.print(_estimates(report.estimates))


def _estimates(found: Sequence[StandingEstimates]) -> Table:
    """How right each class is, as of when it was estimated."""
    columns = ("class", "policy", "precision", "recall", "prevalence", "reviewed", "as of")
    title = Text("How right each class is, with 90 % intervals")
    table = Table(*columns, title=title, title_justify="left")
    for row in found:
        of = row.estimates
        shares = (_estimate(e) for e in (of.precision, of.recall, of.prevalence))
        at = f"{row.at:%Y-%m-%d %H:%M}"
        table.add_row(*cells(row.class_name, row.policy, *shares, f"{row.labels:,}", at))
    return table


def _estimate(of: Estimate) -> str:
    if of.value is None or of.low is None or of.high is None:
        return of.why_none
    return f"{_percent(of.value)}, {_percent(of.low)} to {_percent(of.high)}"


def _told(figure: Figure) -> tuple[str, str]:
    """Its value and its interval."""
    write = {"share": _percent, "items": "{:,.0f}".format, "seconds": "{:,.1f} s".format}
    text = write[figure.unit]
    value = "none" if figure.value is None else text(figure.value)
    if figure.low is None or figure.high is None:
        return value, ""
    return value, f"{text(figure.low)} to {text(figure.high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
