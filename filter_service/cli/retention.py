"""Commands for erasures, receipts, legal holds and retention rules."""

import json
import sys
import uuid
from typing import Annotated, Any

import typer

from filter_service import retention
from filter_service.cli.accounts import ACTOR, print_rows
from filter_service.cli.batches import Json
from filter_service.cli.context import workplace
from filter_service.cli.parameters import LARGEST_SMALL_ID, LONGEST_RULE, ItemId
from filter_service.errors import InvalidRequest
from filter_service.rendering.plain_names import plain
from filter_service.retention import ItemOutcome, Receipt, RetainedPart, RetentionTerms, as_text
from filter_service.retention.preview import WouldErase, WouldExpire

ROWS = 500  # asked for at once
SHOWN = 20  # other items of an image that is to be erased

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: it is known what will go.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept for good, so name nobody in it.")]


def erase(
    context: typer.Context, item: ItemId, *, reason: Reason, yes: Yes = False, json_: Json = False
) -> None:
    """Erase an item's image in all its items, for good, and print the receipt."""
    with workplace(context.obj) as place:
        _confirm(_erased(retention.would_erase(place.sessions, item), item), yes)
        found = retention.erase(place.sessions, place.storage, item, reason, ACTOR)
    _show(found, json_)


def receipt(
    context: typer.Context,
    erasure: Annotated[uuid.UUID, typer.Argument(help="The id that `erase` printed.")],
    json_: Json = False,
) -> None:
    """Print the receipt of an erasure: what was removed, what stays and why."""
    with workplace(context.obj) as place:
        found = retention.receipt(place.sessions, erasure)
    _show(found, json_)


def hold(context: typer.Context, item: ItemId, *, reason: Reason) -> None:
    """Keep an item's image, in all its items, until the hold is released."""
    with workplace(context.obj) as place:
        retention.hold(place.sessions, item, reason, ACTOR)
    typer.echo(f"item {item} is held")


def release(context: typer.Context, item: ItemId, *, reason: Reason) -> None:
    """Let rules and requests see to an item's image again."""
    with workplace(context.obj) as place:
        retention.release(place.sessions, item, reason, ACTOR)
    typer.echo(f"item {item} is no longer held")


def list_holds(context: typer.Context, json_: Json = False) -> None:
    """List the holds that stand, newest first."""
    rows: list[dict[str, Any]] = []
    with workplace(context.obj) as place:
        last = None
        while found := retention.holds(place.sessions, last, ROWS):
            last = found[-1].id
            rows += (
                {
                    "item": h.item_id,
                    "reason": h.reason,
                    "by": h.created_by,
                    "since": h.created_at.isoformat(),
                }
                for h in found
            )
    print_rows(rows, json_)


def add_rule(
    context: typer.Context,
    days: Annotated[
        int,
        typer.Option(
            min=0, max=LONGEST_RULE, help="After the last thing that happened to an item."
        ),
    ],
    part: Annotated[
        list[str] | None, typer.Option(help="bytes, embeddings, explanations; repeatable.")
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(help="clear, flagged, undetermined, confirmed or overturned; else any."),
    ] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Else every class.")] = None,
    yes: Yes = False,
) -> None:
    """Delete parts of such items when their time is over; everything, if no part is named."""
    terms = _terms(days, part, outcome, class_)
    if terms.warning:
        typer.echo(f"Warning: {terms.warning}", err=True)
    with workplace(context.obj) as place:
        _confirm(_expired(retention.would_expire(place.sessions, terms), terms), yes)
        added = retention.add_rule(place.sessions, terms, ACTOR)
    typer.echo(f"rule {added.id} holds from now on")


def remove_rule(
    context: typer.Context,
    rule: Annotated[
        int, typer.Argument(min=1, max=LARGEST_SMALL_ID, help="The id that `retention list` shows.")
    ],
) -> None:
    """Delete nothing more under a rule."""
    with workplace(context.obj) as place:
        retention.remove_rule(place.sessions, rule, ACTOR)
    typer.echo(f"rule {rule} is removed")


def list_rules(context: typer.Context, json_: Json = False) -> None:
    """List the rules that hold, oldest first."""
    with workplace(context.obj) as place:
        found = retention.rules(place.sessions)
    rows = [
        {
            "id": r.id,
            "class": r.class_name,
            "outcome": r.outcome,
            "parts": [p.value for p in r.parts],
            "days": r.days,
            "by": r.created_by,
            "since": r.created_at.isoformat(),
        }
        for r in found
    ]
    print_rows(rows, json_)


def _terms(
    days: int, parts: list[str] | None, outcome: str | None, class_name: str | None
) -> RetentionTerms:

    if outcome is not None and outcome not in list(ItemOutcome):
        raise typer.BadParameter(f"{outcome!r} is none of {', '.join(ItemOutcome)}.")
    if unknown := set(parts or ()) - set(RetainedPart):
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))} is none of {', '.join(RetainedPart)}."
        )
    chosen = tuple(p for p in RetainedPart if parts is None or not parts or p in parts)
    return RetentionTerms(
        days, chosen, class_name, None if outcome is None else ItemOutcome(outcome)
    )


def _confirm(will_go: str, yes: bool) -> None:
    """Say what goes for good, and ask; with nobody there to ask, only --yes will do."""
    typer.echo(will_go, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "Nothing was done: this cannot be undone, and nobody is there to be asked. Give --yes "
            "if all of that may go."
        )
    typer.confirm("Go on?", abort=True, err=True)


def _erased(found: WouldErase, asked: int) -> str:
    """What an erasure takes with it, first of all the other items of the same image."""
    lines = [f"This erases item {asked} for good, with {found.size:,} bytes of its image."]
    others = [item for item in found.items if item.id != asked]
    if others:
        lines.append(f"{len(others):,} other items are of the same image and are erased with it:")
    lines += (f"  item {i.id} of batch {i.batch_id}: {plain(i.source)}" for i in others[:SHOWN])
    if len(others) > SHOWN:
        lines.append(f"  … and {len(others) - SHOWN:,} more.")
    return "\n".join(lines)


def _expired(found: WouldExpire, terms: RetentionTerms) -> str:
    least = "at least " if found.more else ""
    return (
        f"From now on {', '.join(terms.parts)} are deleted for good after {terms.days} days. At "
        f"once this takes {least}{found.images:,} images, with {found.size:,} bytes, of "
        f"{found.items:,} items."
    )


def _show(found: Receipt, json_: bool) -> None:

    typer.echo(json.dumps(found.json) if json_ else as_text(found))
