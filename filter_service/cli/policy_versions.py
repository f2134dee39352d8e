"""Commands about versions of policies: propose, activate, withdraw, history, compare."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from filter_service import rollout
from filter_service.audit.replay.sampling import share_of
from filter_service.cli.batches import Json
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.parameters import LARGEST_PAGE, MOST_VECTORS, share_a_day
from filter_service.db.policies import policy_id_of
from filter_service.db.query_encoder import LazyQueryEncoder
from filter_service.db.tables import Activation
from filter_service.errors import Conflict, UnknownEntry
from filter_service.policy import Policy, read_policy
from filter_service.rollout.calibrated_version import (
    CalibratedClass,
    ThresholdAims,
    calibrated_policy,
    keep_fits,
)
from filter_service.rollout.calibrated_version import calibrate as calibrated
from filter_service.rollout.named_policies import policy_for
from filter_service.rollout.policy_comparison import FlagCounts
from filter_service.rollout.shadow_report import shadow_of, shadow_report
from filter_service.rollout.shadows import end_shadow, start_shadow
from filter_service.rollout.stored_vectors import ComparisonScope
from filter_service.rollout.stored_vectors import compare as compared
from filter_service.rollout.versions import version_beginning

ACTOR = "service"  # whoever can run commands on the machine is the service itself
SHORT = 12  # digits of a digest that people read

Name = Annotated[str, typer.Argument(help="The policy's name.")]
Digest = Annotated[str, typer.Argument(help="Of the proposed version, or how it begins.")]


def propose(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Policy file (YAML).")],
    flags: Annotated[
        str, typer.Option(help="What becomes of existing flags: keep, reevaluate or reopen.")
    ],
    reason: Annotated[str, typer.Option(help="Why, for those who read the history.")],
) -> None:
    """Store a version and propose it; without four eyes it is active at once."""
    if flags not in list(rollout.Flags):
        raise typer.BadParameter(f"{flags!r} is none of {', '.join(rollout.Flags)}.")
    policy = read_policy(file)
    with workplace(context.obj) as place:
        made = rollout.propose(
            place.sessions,
            policy,
            rollout.Flags(flags),
            reason,
            ACTOR,
            four_eyes=place.settings.four_eyes,
        )
    state = "active" if made.activated_at else "proposed: somebody has to approve it on its page"
    typer.echo(f"{policy.name} {policy.digest[:SHORT]} is {state}")


def activate(context: typer.Context, name: Name, digest: Digest) -> None:
    """Activate what is proposed for a name."""
    with workplace(context.obj) as place:
        four_eyes = place.settings.four_eyes
        expected = _proposal(place, name, digest)
        rollout.activate(place.sessions, name, ACTOR, expected, four_eyes=four_eyes)
    typer.echo(f"{name}: the proposed version is active")


def withdraw(context: typer.Context, name: Name, digest: Digest) -> None:
    """Take back what is proposed for a name."""
    with workplace(context.obj) as place:
        rollout.withdraw(place.sessions, name, ACTOR, _proposal(place, name, digest))
    typer.echo(f"{name}: the proposal is withdrawn")


def history(
    context: typer.Context,
    name: Name,
    limit: Annotated[
        int, typer.Option(min=1, max=LARGEST_PAGE, help="At most so many versions.")
    ] = 20,
    json_: Json = False,
) -> None:
    """Every version of a policy, the newest first, and who made it active when and why."""
    with workplace(context.obj) as place:
        found = rollout.history(place.sessions, name, limit=limit)
    for version in found:
        about: dict[str, Any] = {
            "digest": version.stored.digest,
            "stored": version.stored.created_at.isoformat(),
            "active": version.active,
            "activations": [_told(a) for a in version.activations],
        }
        if json_:
            typer.echo(json.dumps(about))
            continue
        stored = f"{version.stored.created_at:%Y-%m-%d %H:%M}"
        active = "  active" if version.active else ""
        typer.echo(f"{version.stored.digest[:SHORT]}  stored {stored}{active}")
        for told in about["activations"]:
            said = (f"{k} {v}" for k, v in told.items() if v is not None)
            typer.echo(f"    {', '.join(said)}")


def compare(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="A name, a digest or a policy file.")],
    new: Annotated[str, typer.Argument(help="Likewise.")],
    limit: Annotated[
        int, typer.Option(min=1, max=MOST_VECTORS, help="Vectors looked at, newest first.")
    ] = 1_000_000,
    json_: Json = False,
) -> None:
    """What would change for the stored images if one version took the place of another."""
    with workplace(context.obj) as place:
        before, after = policy_of(place, old), policy_of(place, new)
        seeker = LazyQueryEncoder(place.settings, place.sessions)
        encoder_id, placed = seeker.policy(before)
        asked = ComparisonScope(encoder_id, placed, seeker.policy(after)[1], limit)
        found = compared(place.sessions, asked)
    if json_:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(f"{found.images} images, {found.vectors} views of them")
    _echo_counts([("any class", found.total), *found.classes.items()])
    if found.acting_classes:
        typer.echo("flags that act by themselves")
        _echo_counts([("any class", found.acting), *found.acting_classes.items()])


def _echo_counts(rows: Sequence[tuple[str, FlagCounts]]) -> None:
    wide = max(len(name) for name, _ in rows)
    for name, count in rows:
        typer.echo(
            f"{name:<{wide}}  by both {count.both}, no longer {count.only_old}, "
            f"newly {count.only_new}"
        )


def shadow(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="Its digest, or how that begins.")],
    *,
    stop: Annotated[bool, typer.Option("--stop", help="End it.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print what it would have flagged.")] = False,
) -> None:
    """Let a version look at what is judged from now on, without effect: what would it flag?"""
    if stop and show:
        raise typer.BadParameter("--stop ends it and --show prints it: say one of them.")
    with workplace(context.obj) as place:
        found = version_beginning(place.sessions, version)
        name = f"{found.policy.name} {found.digest[:SHORT]}"
        if show:
            _print_shadow(place, found.digest, name)
        elif stop:
            end_shadow(place.sessions, found.digest, ACTOR)
            typer.echo(f"{name} runs in the shadow no more")
        else:
            start_shadow(place.sessions, found.digest, ACTOR)
            typer.echo(f"{name} runs in the shadow; see: policy shadow {version} --show")


def _print_shadow(place: Workplace, digest: str, name: str) -> None:
    ran = shadow_of(place.sessions, digest)
    if ran is None:
        raise UnknownEntry(f"{name} has never run in the shadow: start it without --show.")
    typer.echo(f"{name}: {ran.seen} items compared, {ran.left_alone} left alone")
    for c in shadow_report(place.sessions, ran).classes:
        typer.echo(
            f"{c.name}  by both {c.both.count}, no longer {c.lost.count} (of these people "
            f"confirmed {c.lost.right}, overturned {c.lost.wrong}), newly {c.won.count} "
            f"(confirmed {c.won.right}, overturned {c.won.wrong})"
        )


def calibrate(  # noqa: PLR0913  (each is an option)
    context: typer.Context,
    name: Name,
    *,
    missed: Annotated[
        str, typer.Option(help="Thresholds that miss at most this share, such as 10%.")
    ] = "",
    precision: Annotated[
        str, typer.Option(help="Thresholds over which this share is right, such as 90%.")
    ] = "",
    miss_costs: Annotated[
        float | None, typer.Option(help="Thresholds that cost least, a miss being so many reviews.")
    ] = None,
    per_day: Annotated[
        float | None, typer.Option(help="Thresholds over which so many pictures a day lie.")
    ] = None,
    images_a_day: Annotated[
        float | None, typer.Option(help="With --per-day: how many pictures come in a day.")
    ] = None,
    certain: Annotated[
        str, typer.Option(help="Let flags act by themselves of which this share is right: 95%.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the version to this file (YAML).")] = None,
    reason: Annotated[str, typer.Option(help="Propose it, and why.")] = "",
) -> None:
    """Fit the probabilities of a policy on what people decided, for the model that is served.

    Without an aim the same images stay flagged: a threshold becomes the calibrated probability at
    the margin where it was. Nothing is active before somebody activates it.
    """
    aims = ThresholdAims(
        most_missed=share_of(missed) if missed else None,
        precision=share_of(precision) if precision else None,
        reviews_a_miss=miss_costs,
        share=share_a_day(per_day, images_a_day),
        certain=share_of(certain) if certain else None,
    )
    with workplace(context.obj) as place:
        policy = policy_for(place.sessions, name)
        encoder_id, fingerprint = LazyQueryEncoder(place.settings, place.sessions).identity()
        with place.sessions.begin() as session:
            policy_id = policy_id_of(session, policy)
            classes = calibrated(session, policy, policy_id, (encoder_id, fingerprint), aims)
        for c in classes:
            typer.echo(_fitted(c))
        made = calibrated_policy(policy, classes)
        if out is not None or reason:
            with place.sessions.begin() as session:
                keep_fits(session, classes)
        if out is not None:
            out.write_text(yaml.safe_dump(made.model_dump(mode="json"), sort_keys=False))
        if reason:
            # Nothing learnt acts by itself, whether there are four eyes or two.
            rollout.propose(place.sessions, made, rollout.Flags.KEEP, reason, ACTOR, four_eyes=True)
            short = made.digest[:SHORT]
            typer.echo(f"{name} {short} is proposed; active by: policy activate {name} {short}")


def _fitted(c: CalibratedClass) -> str:
    """What labels make of a class, in lines."""
    lines = [c.before.name]
    if (k := c.calibrator) is not None:
        lines.append(
            f"  calibrated on {k.labels} reviews, {k.positives} of which show it: "
            f"a {k.a:.3f}, b {k.b:.3f}"
        )
        lines.append(f"  flagged from {c.before.threshold:.4g} before, {c.after.threshold:.4g} now")
    if (seen := c.certain) is not None:
        lines.append(
            f"  acts by itself from {c.after.certain:.4g} on: {seen.right} of {seen.reviewed} "
            f"reviewed there were right, at least {seen.low:.1%} with 90 % confidence"
        )
    return "\n".join(lines + [f"  {sentence}" for sentence in c.refusals])


def _proposal(place: Workplace, name: str, digest: str) -> int:
    """The id of what is proposed, if it is this version; raises Conflict and UnknownEntry."""
    waiting = rollout.waiting_of(place.sessions, name)
    if waiting is None:
        raise UnknownEntry(f"Nothing is proposed for {name!r}: propose a version of it first.")
    activation, stored = waiting
    if len(digest) < SHORT or not stored.digest.startswith(digest):
        raise Conflict(
            f"{digest!r} is not what is proposed for {name!r}: give {stored.digest[:SHORT]} if "
            "that is what you mean."
        )
    return activation.id


def _told(activation: Activation) -> dict[str, Any]:
    a = activation
    return {
        "proposed by": a.proposed_by,
        "activated by": a.activated_by,
        "at": a.activated_at.isoformat() if a.activated_at else None,
        "withdrawn by": a.withdrawn_by,
        "flags": a.flags,
        "touched": a.touched or None,
        "left": a.left_alone or None,
        "reason": a.reason,
    }


def policy_of(place: Workplace, what: str) -> Policy:
    """A file if there is one of this name, else what is stored."""
    file = Path(what)
    return read_policy(file) if file.is_file() else policy_for(place.sessions, what)
