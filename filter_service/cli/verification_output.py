"""Prints the progress and the report of a ledger verification on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from filter_service.ledger.verification import VerificationReport


@contextmanager
def progress(what: str, quiet: bool = False) -> Iterator[Callable[[int, int], object]]:
    """A bar on a terminal, gone when all is done."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, all_: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, all_: bar.update(task, completed=done, total=all_)


def show(report: VerificationReport) -> None:
    """Figures, the numbered checks, keys, faults, and the verdict in the last line."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, value in _figures(report):
        table.add_row(f"{value:,}", name)
    console.print(table)
    for check in report.checks:
        line = f"check {check.number:2}  {_outcome(check.broken):10}  {check.sentence}"
        console.print(line, style="red" if check.broken else None)
    for vkey in report.keys:
        console.print(f"key {vkey}", markup=False)
    if not report.keys_given:
        console.print(
            "The keys were taken from the very thing that is checked: give --key with the one that "
            "you were told elsewhere."
        )
    for vkey, size in report.witnesses.items():
        seen = f"co-signed up to {size:,} entries" if size else "has co-signed nothing"
        console.print(f"witness {vkey} {seen}", markup=False)
    for warning in report.warnings:
        console.print(f"Warning: {warning}", markup=False, style="yellow")
    numbers = {fault: check.number for check in report.checks for fault in check.faults}
    for fault in report.faults:
        console.print(f"Check {numbers[fault]}: {fault}", markup=False, style="red")
    if report.broken > len(report.faults):
        console.print(f"… and {report.broken - len(report.faults):,} more.")
    if report.whole:
        console.print("Whole: everything is as it was sealed.", style="bold green")
    else:
        console.print(
            f"BROKEN in {report.broken:,} places; the first is above. Change nothing, keep this "
            "database and what was published as they are, and compare with a backup.",
            style="bold red",
        )


def _outcome(broken: int | None) -> str:
    """What came of a check."""
    if broken is None:
        return "not made"
    return f"{broken:,} BROKEN" if broken else "holds"


def _figures(report: VerificationReport) -> Iterator[tuple[str, int]]:
    """What was looked at, and how much of it."""
    yield "entries in the tree", report.entries
    yield "checkpoints", report.checkpoints
    for name, value in (
        ("of them published", report.published),
        ("of those that you kept, the same here", report.kept),
        ("explanations, as they were committed to", report.explanations),
        ("statements of reasons, likewise", report.statements),
        ("policies, likewise", report.policies),
        ("payloads erased, commitment intact", report.erased),
        ("payloads or explanations gone, and nothing proves why", report.unproven),
        ("entries wait to be sealed: nothing proves them yet", report.waiting),
    ):
        if value:
            yield name, value
