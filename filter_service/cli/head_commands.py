"""Commands about heads: what reviews teach a class beside its prompts."""

from pathlib import Path
from typing import Annotated

import typer

from filter_service import rollout
from filter_service.calibration.training_labels import keep_training
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.policy_versions import ACTOR, SHORT
from filter_service.db.policies import policy_names
from filter_service.db.query_encoder import LazyQueryEncoder
from filter_service.errors import InvalidRequest
from filter_service.policy import Policy
from filter_service.rollout.edited_version import policy_document
from filter_service.rollout.named_policies import policy_for
from filter_service.rollout.taught_version import TaughtClass, taught_policy, teach


def fit(
    context: typer.Context,
    class_name: Annotated[str, typer.Argument(metavar="CLASS", help="The class that learns.")],
    *,
    policy: Annotated[
        str, typer.Option(help="The policy's name; not needed where there is one only.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the version to this new file.")] = None,
    reason: Annotated[str, typer.Option(help="Propose it, and why.")] = "",
) -> None:
    """Let a class learn from what people decided, beginning at its prompts, for the served model.

    A version comes of it only where average precision rises for sure on pictures that the head
    was not fitted on; else it says by how much it changes. The same share of the stream stays
    flagged. Nothing is active before somebody activates it.
    """
    if out is not None and out.exists():
        raise typer.BadParameter(f"There is a file {str(out)!r} already: give a new name.")
    with workplace(context.obj) as place:
        asked = policy_for(place.sessions, policy or _only_policy(place))
        seeker = LazyQueryEncoder(place.settings, place.sessions)
        with place.sessions.begin() as session:
            taught = teach(session, asked, class_name, seeker)
        made = taught_policy(asked, taught)
        seeker.policy(made)  # what other classes learnt must be for this model, too
        typer.echo("\n".join(_lines(taught)))
        if out is None and not reason:
            typer.echo("Nothing is kept: give --reason to propose it, or --out for a file.")
            return
        with place.sessions.begin() as session:
            keep_training(session, taught.head.digest, taught.training)
        if out is not None:
            out.write_text(policy_document(made))
        if reason:
            _propose(place, made, reason)


def _propose(place: Workplace, made: Policy, reason: str) -> None:
    """Nothing learnt acts by itself, whether there are four eyes or two."""
    rollout.propose(place.sessions, made, rollout.Flags.KEEP, reason, ACTOR, four_eyes=True)
    name, short = made.name, made.digest[:SHORT]
    typer.echo(f"{name} {short} is proposed; active by: policy activate {name} {short}")


def _only_policy(place: Workplace) -> str:
    names = policy_names(place.sessions, limit=2)
    if len(names) != 1:
        raise InvalidRequest(
            "There is no policy yet: submit something first."
            if not names
            else "There are several policies: say which one learns, by --policy NAME."
        )
    return names[0]


def _lines(taught: TaughtClass) -> list[str]:
    """What reviews taught a class, in lines."""
    before, after = taught.before, taught.after
    lines = [
        *taught.head.lines,
        f"flagged from {before.threshold:.4g} before, {after.threshold:.4g} now: "
        "the same share of the stream",
    ]
    if before.calibration is not None:
        lines.append("its calibration was for other margins and is left out: calibrate again")
    if before.certain is not None:
        lines.append("its certain is left out: what acts by itself is to be proven anew")
    if taught.contradicting:
        lines.append(
            f"{taught.contradicting} labels are left out: the same picture to the model has "
            "opposite answers; review these again"
        )
    if taught.unseen:
        lines.append(f"{taught.unseen} labels are left out: this model has not seen the pictures")
    return [after.name, *(f"  {line}" for line in lines)]
