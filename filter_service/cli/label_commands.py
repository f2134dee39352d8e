"""Commands about labels: how many there are, and how they outlive an encoder."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from filter_service.calibration.labels import count
from filter_service.cli.batches import Json
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.policy_versions import policy_of
from filter_service.db import query_encoder
from filter_service.db.embeddings import register_encoder
from filter_service.images import Limits
from filter_service.moderation.label_rescoring import (
    LabelScorer,
    RescoringCounts,
    class_ids,
    own_words,
    unscored,
)
from filter_service.moderation.label_rescoring import rescore as rescored
from filter_service.policy import Policy

if TYPE_CHECKING:
    from filter_service.encoder import Encoder


def labels(context: typer.Context, json_: Json = False) -> None:
    """What people's decisions and labelled pictures say: how many labels each class has."""
    with workplace(context.obj) as here, here.sessions.begin() as session:
        counts = count(session)
    for c in counts:
        if json_:
            typer.echo(json.dumps(asdict(c)))
        else:
            typer.echo(
                f"{c.class_name}, by {c.source}: {c.present} show it, {c.absent} do not; "
                f"{c.drawn} count in fits and estimates"
            )
    if not counts and not json_:
        typer.echo("There is no label yet: decide cases, or evaluate with --keep.", err=True)


def rescore(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help="A name, a digest or a policy file.")],
    model: Annotated[
        str | None, typer.Option(help="Another model, as FILTER_SERVICE_MODEL names it.")
    ] = None,
    json_: Json = False,
) -> None:
    """Score labelled pictures under the model that is served, so that labels outlive the old one.

    Do this after a change of the model or of a policy's words: calibrations, evaluations and heads
    then work at once. From stored bytes, with what the model has computed already; what was
    interrupted goes on, and a second time does nothing. The exit code is 1 where a stored picture
    cannot be read.
    """
    with workplace(context.obj) as place:
        asked = policy_of(place, policy)
        settings = place.settings.model_copy(update={"model": model} if model else {})
        encoder = query_encoder.load(settings)
        words, learnt = own_words(asked, encoder.fingerprint)
        scorer = _scorer(place, words, encoder, learnt)
        with place.sessions.begin() as session:
            images, known = unscored(session, scorer, learnt)
        counts = _shown(rescored(place.sessions, scorer, images), len(images))
        counts.known = known
    for said in counts.unreadable:
        typer.echo(f"Error: {said}", err=True)
    if json_:
        typer.echo(json.dumps(asdict(counts)))
    else:
        typer.echo(_told(counts, encoder.name))
        for name in learnt:
            typer.echo(
                f"{name} has a head of another encoder, which has no margins here: the pictures' "
                "vectors are kept, so that head fit can learn one anew"
            )
    if counts.unreadable:
        raise typer.Exit(1)


def _scorer(place: Workplace, words: Policy, encoder: "Encoder", learnt: list[str]) -> LabelScorer:
    from filter_service.pipeline.served_judge import ServedJudge  # torch

    settings, e = place.settings, encoder
    judge = ServedJudge(e, Limits.of(settings), coverage=settings.coverage)
    with place.sessions.begin() as session:
        encoder_id = register_encoder(session, e.fingerprint, e.name, e.dim, e.details)
        ids = class_ids(session, words, learnt)
    return LabelScorer(
        encoder_id,
        e.vectors(words),
        ids,
        lambda digest, known: judge.look(
            digest, partial(place.storage.get, digest), known, words.coverage
        ),
    )


def _shown(steps: Iterable[RescoringCounts], total: int) -> RescoringCounts:
    """The last of what each step says, with a bar on the way there."""
    counts = RescoringCounts()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("Scoring labelled pictures", total=total)
        for counts in steps:
            done = counts.scored + counts.gone + counts.left_out + len(counts.unreadable)
            progress.update(bar, completed=done)
    return counts


def _told(counts: RescoringCounts, encoder: str) -> str:
    said = f"{counts.scored} labelled pictures are scored by {encoder}, {counts.known} were"
    if counts.gone:
        said += f"; {counts.gone} have no bytes left, so that their labels count no more"
    if counts.left_out:
        said += f"; {counts.left_out} are left out: locked away, erased, or may be restricted"
    return f"{said}."
