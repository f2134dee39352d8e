"""The command that replays items: recomputes them and compares them with their record."""

import json
import secrets
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from filter_service.audit.replay.item_on_record import Apart
from filter_service.audit.replay.sampling import ReplaySample, chosen, share_of
from filter_service.cli.batches import Json
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.model_commands import served_encoder
from filter_service.cli.parameters import LARGEST_ID
from filter_service.errors import AnotherEncoder
from filter_service.images import Limits

if TYPE_CHECKING:
    from filter_service.audit.replay.replay import Replay, Total

Emit = Callable[[dict[str, Any], "Iterator[str]"], None]


def replay(
    context: typer.Context,
    item: Annotated[
        int | None, typer.Argument(help="An item's number.", min=1, max=LARGEST_ID)
    ] = None,
    sample: Annotated[str | None, typer.Option(help="A share of what was judged: 1%.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that was judged.")] = False,
    batch: Annotated[uuid.UUID | None, typer.Option(help="Of this batch alone.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Draw the sample that it drew before.", min=0, max=LARGEST_ID),
    ] = None,
    json_: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the report to this file, as lines of JSON.")
    ] = None,
) -> None:
    """Compute decisions again from the stored bytes and compare them with the record.

    Every difference beyond the stated tolerances is told, with both values. It ends with 1 if
    there is one, and refuses to compare what another encoder judged:

        filter-service audit replay 17

        filter-service audit replay --sample 1% --out replay.jsonl
    """
    if (item is not None) + (sample is not None) + everything != 1:
        raise typer.BadParameter("Name one item, or give --sample 1%, or --all.")

    drawn = secrets.randbelow(2**31) if seed is None else seed
    share = 1.0 if sample is None else share_of(sample)
    with workplace(context.obj) as place, _emitting(json_, out) as emit:
        total = _replayed(_ready(place), item, ReplaySample(share, drawn, batch), emit)
    raise typer.Exit(1 if total.differs else 0)


def _ready(place: Workplace) -> "Replay":
    from filter_service.audit.replay.replay import Replay

    limits = Limits.of(place.settings)
    return Replay(place.sessions, place.storage, served_encoder(), limits)


def _replayed(replay: "Replay", item: int | None, sample: ReplaySample, emit: Emit) -> "Total":
    """All of them, told one by one and together; AnotherEncoder if it refused every one."""
    from filter_service.audit.replay import replay_output
    from filter_service.audit.replay.replay import Total

    total, refusal = Total(), ""
    items = iter([replay.one(item)]) if item else replay.many(chosen(replay.sessions, sample))
    for done in items:
        total.add(done)
        if total.results[Apart.ANOTHER_ENCODER] and not refusal:
            refusal = replay_output.as_json(done)["said"]
        emit(replay_output.as_json(done), replay_output.lines(done))
    drawn = {} if item else {"share": sample.share, "seed": sample.seed}
    emit(replay_output.total_as_json(total, **drawn), replay_output.total_lines(total))
    if refusal and not total.replayed:
        raise AnotherEncoder(refusal)
    return total


@contextmanager
def _emitting(json_: bool, out: Path | None) -> Iterator[Emit]:
    """To the terminal as a text or as lines of JSON, and as those to a file."""
    try:
        file = None if out is None else out.open("w", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{out} cannot be written: {error}.") from error

    def emit(row: dict[str, Any], lines: Iterator[str]) -> None:
        if file is not None:
            file.write(json.dumps(row) + "\n")
        for line in [json.dumps(row)] if json_ else lines:
            typer.echo(line)

    try:
        yield emit
    finally:
        if file is not None:
            file.close()
