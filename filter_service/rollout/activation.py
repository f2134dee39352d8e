"""Proposes, activates and withdraws versions of a policy, and finds the active one."""

from enum import StrEnum
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation, StoredPolicy
from filter_service.errors import Conflict, InvalidRequest, NotAllowed, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.policy import Policy
from filter_service.rollout.versions import meant_policy_id, newest_activation, proposed

LONGEST_REASON = 1_000  # letters
SERVICE = "service"  # anybody who can run commands on the machine


class Flags(StrEnum):
    """What becomes of what was judged under the version before."""

    KEEP = "keep"  # nothing
    REEVALUATE = "reevaluate"  # what would be answered otherwise is judged anew
    REOPEN = "reopen"  # flags that the new version would not raise go before a person again


def propose(
    sessions: Sessions,
    policy: Policy,
    flags: Flags,
    reason: str,
    actor: str,
    *,
    four_eyes: bool,
) -> Activation:
    """Store a version that is to be what its name means.

    Without four eyes it is so at once. Raises Conflict while another version of the name is
    proposed, or when this one is active already, and InvalidRequest without a reason.
    """
    reason = _checked(reason)
    with sessions.begin() as session:
        policy_id = store_policy(session, policy)
        active = newest_activation(session, policy.name)
        if active is not None and active.policy_id == policy_id:
            raise Conflict(
                f"This version of {policy.name!r} ({policy.digest[:12]}…) is active already: "
                "there is nothing to propose."
            )
        activation: Activation | None = session.scalar(
            upsert(Activation)
            .values(
                name=policy.name,
                policy_id=policy_id,
                before_id=meant_policy_id(session, policy.name, active, policy_id),
                flags=flags,
                reason=reason,
                proposed_by=actor,
            )
            .on_conflict_do_nothing()
            .returning(Activation)
        )
        if activation is None:
            raise Conflict(
                f"Another version of {policy.name!r} is proposed: activate or withdraw it first."
            )
        _write_down(session, Event.POLICY_PROPOSED, actor, activation)
        if not four_eyes:
            _activate(session, activation, actor)
    return activation


def activate(
    sessions: Sessions, name: str, actor: str, expected: int, *, four_eyes: bool
) -> Activation:
    """Let a name mean what is proposed, which is the expected activation: what somebody has seen.

    Raises UnknownEntry, Conflict when it is another one, and NotAllowed when four eyes are two.
    """
    if four_eyes and actor == SERVICE:
        raise NotAllowed(
            f"A command cannot tell who approves of {name!r}: approve it on its page, "
            f"/policies/{name}."
        )
    with sessions.begin() as session:
        activation = _lock_proposal(session, name, expected)
        if four_eyes and activation.proposed_by == actor:
            raise NotAllowed(
                f"{actor} has proposed this version of {name!r}: somebody else must activate it."
            )
        _activate(session, activation, actor)
    return activation


def withdraw(sessions: Sessions, name: str, actor: str, expected: int) -> Activation:
    """Take a proposal back; whoever may propose may do so. Raises UnknownEntry and Conflict."""
    with sessions.begin() as session:
        activation = _lock_proposal(session, name, expected)
        _change(session, activation, withdrawn_by=actor, withdrawn_at=func.now())
        _write_down(session, Event.POLICY_WITHDRAWN, actor, activation)
    return activation


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST_REASON or "\x00" in reason:
        raise InvalidRequest(
            f"The reason has {len(reason)} letters: say why in 1 to {LONGEST_REASON:,}, no NUL."
        )
    return reason


def _lock_proposal(session: Session, name: str, expected: int) -> Activation:
    proposal = session.scalar(proposed(name).with_for_update())
    if proposal is None:
        raise UnknownEntry(f"Nothing is proposed for {name!r}: propose a version of it first.")
    if proposal.id != expected:
        raise Conflict(f"Something else is proposed for {name!r} by now: look at it first.")
    return proposal


def _activate(session: Session, activation: Activation, actor: str) -> None:
    active = newest_activation(session, activation.name)
    before = meant_policy_id(session, activation.name, active, activation.policy_id)
    nothing_to_do = activation.flags == Flags.KEEP or before is None
    _change(
        session,
        activation,
        before_id=before,
        activated_by=actor,
        activated_at=func.now(),
        done_at=func.now() if nothing_to_do else None,
    )
    _write_down(session, Event.POLICY_ACTIVATED, actor, activation)


def _change(session: Session, activation: Activation, **values: Any) -> None:  # noqa: ANN401
    session.execute(update(Activation).where(Activation.id == activation.id).values(**values))
    session.refresh(activation)


def _write_down(session: Session, event: Event, actor: str, activation: Activation) -> None:
    ids = [
        activation.policy_id,
        *([activation.before_id] if activation.before_id is not None else []),
    ]
    digests = dict(
        session.execute(
            select(StoredPolicy.id, StoredPolicy.digest).where(StoredPolicy.id.in_(ids))
        ).all()
    )
    details = {
        "activation": activation.id,
        "name": activation.name,
        "policy": digests[activation.policy_id],
        "before": None if activation.before_id is None else digests[activation.before_id],
        "flags": activation.flags,
        "reason": activation.reason,
        "proposed_by": activation.proposed_by,
    }
    ledger.append(session, [Entry(event, actor, details=details)])
