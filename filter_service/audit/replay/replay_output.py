"""Formats the results of a replay, as text for people and as JSON for programs."""

from collections.abc import Iterator
from typing import Any

from filter_service.audit.replay.item_on_record import NotReplayed
from filter_service.audit.replay.record_comparison import RecordDifference, Value
from filter_service.audit.replay.replay import ReplayedItem, Total
from filter_service.audit.replay.tolerances import STATED, VERSION


def as_json(done: ReplayedItem | NotReplayed) -> dict[str, Any]:
    """One item."""
    if isinstance(done, NotReplayed):
        return {
            "item": done.item_id,
            "result": "not replayed",
            "why": done.why,
            "said": done.sentence,
        }
    told = done.found.told()
    return {"item": done.item_id, "result": done.result, "screened": done.screened, **told}


def total_as_json(total: Total, **about: object) -> dict[str, Any]:
    """The last line: what came of all, and what was allowed."""
    return {
        **about,
        "results": dict(total.results),
        "screened": total.screened,
        "largest": total.largest,
        "tolerances": {
            "version": VERSION,
            **{t.name: {"size": t.size, "unit": t.unit, "reason": t.reason} for t in STATED},
        },
    }


def lines(done: ReplayedItem | NotReplayed) -> Iterator[str]:
    """One item: a line, and one more for everything that differs."""
    if isinstance(done, NotReplayed):
        yield f"not replayed: {done.sentence}"
        return
    found = done.found
    looked = ", a fast look's margin compared with the band" if done.screened else ""
    yield f"item {done.item_id}: {done.result}{looked}"
    for difference in found.differences:
        yield f"    {_line(difference)}"
    for note in found.notes:
        yield f"    not compared: {note}"


def total_lines(total: Total) -> Iterator[str]:
    """The end of the report."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(total.results.items()))
    yield f"Items: {counts or 'none'}."
    if total.screened:
        yield f"{total.screened} of them clear, where only a fast look may be on record."
    if total.largest:
        yield "Largest differences found:"
        for quantity, apart in sorted(total.largest.items()):
            yield f"    {quantity}: {apart:.2g}"
    yield f"Tolerances (version {VERSION}):"
    for tolerance in STATED:
        yield f"    {tolerance.name}: {tolerance.size:g} {tolerance.unit}".rstrip()
        yield f"        {tolerance.reason}"


def _line(difference: RecordDifference) -> str:
    apart = difference.difference
    told = (
        f"{difference.place}: recorded {_said(difference.recorded)}, "
        f"computed {_said(difference.computed)}"
    )
    if apart is None:
        return told
    return f"{told}, {apart:.3g} apart, {difference.tolerance:.3g} allowed"


def _said(value: Value) -> str:
    if value is None:
        return "nothing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
