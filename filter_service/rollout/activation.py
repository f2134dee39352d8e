"""Proposes, activates and withdraws versions of a policy, and finds the active one."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.policies import owned, store_policy
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation, PolicyVersion, StoredPolicy
from filter_service.errors import Conflict, InvalidRequest, NotAllowed, UnknownEntry, UnknownPolicy
from filter_service.ledger import Entry, Event
from filter_service.policy import Policy

LONGEST_REASON = 1_000  # letters
_DIGEST = re.compile(r"[0-9a-f]{64}")
SERVICE = "service"  # anybody who can run commands on the machine


class Flags(StrEnum):
    """What becomes of what was judged under the version before."""

    KEEP = "keep"  # nothing
    REEVALUATE = "reevaluate"  # what would be answered otherwise is judged anew
    REOPEN = "reopen"  # flags that the new version would not raise go before a person again


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version of a policy that is kept here."""

    id: int
    digest: str
    policy: Policy
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A stored version, with everything that was proposed of it, newest first."""

    stored: StoredVersion
    active: bool
    activations: tuple[Activation, ...]


@dataclass(frozen=True, slots=True)
class NamedVersion:
    """The version that a policy's name means now, and the one that is proposed."""

    name: str
    digest: str | None  # of the version that is meant; None: the first one is proposed still
    activation: Activation | None  # None: none was ever activated, and the newest is meant
    proposal: Activation | None  # that waits for somebody
    versions: int


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
        active = _active(session, policy.name)
        if active is not None and active.policy_id == policy_id:
            raise Conflict(
                f"This version of {policy.name!r} ({policy.digest[:12]}…) is active already: "
                "there is nothing to propose."
            )
        found: Activation | None = session.scalar(
            upsert(Activation)
            .values(
                name=policy.name,
                policy_id=policy_id,
                before_id=_meant(session, policy.name, active, policy_id),
                flags=flags,
                reason=reason,
                proposed_by=actor,
            )
            .on_conflict_do_nothing()
            .returning(Activation)
        )
        if found is None:
            raise Conflict(
                f"Another version of {policy.name!r} is proposed: activate or withdraw it first."
            )
        _write_down(session, Event.POLICY_PROPOSED, actor, found)
        if not four_eyes:
            _activate(session, found, actor)
    return found


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
        found = _lock_proposal(session, name, expected)
        if four_eyes and found.proposed_by == actor:
            raise NotAllowed(
                f"{actor} has proposed this version of {name!r}: somebody else must activate it."
            )
        _activate(session, found, actor)
    return found


def withdraw(sessions: Sessions, name: str, actor: str, expected: int) -> Activation:
    """Take a proposal back; whoever may propose may do so. Raises UnknownEntry and Conflict."""
    with sessions.begin() as session:
        found = _lock_proposal(session, name, expected)
        _change(session, found, withdrawn_by=actor, withdrawn_at=func.now())
        _write_down(session, Event.POLICY_WITHDRAWN, actor, found)
    return found


def active_policy(session: Session, name: str, scope: Scope = OPERATOR) -> Policy | None:
    """What a name means to somebody: a client's own newest version, or else the operator's.

    That is the active one, or the newest where none was ever activated.
    """
    meant = None if scope.everyone else _newest_own(session, name, scope.client_id)
    if meant is None:
        meant = _meant(session, name, _active(session, name))
    found = None if meant is None else session.get_one(StoredPolicy, meant)
    return None if found is None else Policy.model_validate(found.document)


def meant_version(sessions: Sessions, name: str) -> StoredVersion | None:
    """The version that a name means."""
    with sessions.begin() as session:
        meant = _meant(session, name, _active(session, name))
        return None if meant is None else _stored(session.get_one(StoredPolicy, meant))


def names(sessions: Sessions, after: str = "", limit: int = 50) -> list[NamedVersion]:
    """What every name means, in the order of the names; give the last one's name as `after`."""
    query = (
        select(StoredPolicy.name, func.count())
        .where(StoredPolicy.name > after)
        .group_by(StoredPolicy.name)
        .order_by(StoredPolicy.name)
        .limit(limit)
    )
    with sessions.begin() as session:
        found = []
        for name, count in session.execute(query).all():
            active = _active(session, name)
            meant = _meant(session, name, active)
            digest = session.scalar(select(StoredPolicy.digest).where(StoredPolicy.id == meant))
            found.append(NamedVersion(name, digest, active, _proposal(session, name), count))
    return found


def history(
    sessions: Sessions, name: str, before: int | None = None, limit: int = 20
) -> list[Version]:
    """The versions of a policy, newest first; give the last one's id as `before` for older ones."""
    rows = select(StoredPolicy).where(StoredPolicy.name == name)
    if before is not None:
        rows = rows.where(StoredPolicy.id < before)
    with sessions.begin() as session:
        stored = list(session.scalars(rows.order_by(StoredPolicy.id.desc()).limit(limit)))
        active = _active(session, name)
        activations = session.scalars(
            select(Activation)
            .where(Activation.policy_id.in_([s.id for s in stored]))
            .order_by(Activation.id.desc())
        ).all()
    return [
        Version(
            _stored(row),
            active is not None and active.policy_id == row.id,
            tuple(a for a in activations if a.policy_id == row.id),
        )
        for row in stored
    ]


def version_of(sessions: Sessions, digest: str, scope: Scope = OPERATOR) -> StoredVersion:
    """A stored version that somebody may name, by its digest; raises UnknownPolicy."""
    query = select(StoredPolicy).where(StoredPolicy.digest == digest)
    if not scope.everyone:
        query = query.join(PolicyVersion, PolicyVersion.policy_id == StoredPolicy.id).where(
            or_(owned(None), owned(scope.client_id))
        )
    with sessions.begin() as session:
        found = session.scalar(query.limit(1)) if _DIGEST.fullmatch(digest) else None
    if found is None:
        raise UnknownPolicy(
            f"There is no stored policy {digest[:80]!r}: send the policy itself, which stores it."
        )
    return _stored(found)


def waiting_of(sessions: Sessions, name: str) -> tuple[Activation, StoredVersion] | None:
    """What is proposed for a name, if anything is."""
    with sessions.begin() as session:
        found = _proposal(session, name)
        if found is None:
            return None
        return found, _stored(session.get_one(StoredPolicy, found.policy_id))


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST_REASON or "\x00" in reason:
        raise InvalidRequest(
            f"The reason has {len(reason)} letters: say why in 1 to {LONGEST_REASON:,}, no NUL."
        )
    return reason


def _active(session: Session, name: str) -> Activation | None:
    """Of a name only one proposal waits at a time, so that their order is that of activations."""
    return session.scalar(
        select(Activation)
        .where(Activation.name == name, Activation.activated_at.is_not(None))
        .order_by(Activation.id.desc())
        .limit(1)
    )


def _proposal(session: Session, name: str) -> Activation | None:
    return session.scalar(_proposed(name))


def _proposed(name: str) -> Select[Activation]:
    return select(Activation).where(
        Activation.name == name,
        Activation.activated_at.is_(None),
        Activation.withdrawn_at.is_(None),
    )


def _lock_proposal(session: Session, name: str, expected: int) -> Activation:
    found = session.scalar(_proposed(name).with_for_update())
    if found is None:
        raise UnknownEntry(f"Nothing is proposed for {name!r}: propose a version of it first.")
    if found.id != expected:
        raise Conflict(f"Something else is proposed for {name!r} by now: look at it first.")
    return found


def _meant(
    session: Session, name: str, active: Activation | None, besides: int | None = None
) -> int | None:
    """The version that a name means so far: the active one, or the newest besides this one.

    One that was stored to be proposed means nothing before it is activated.
    """
    if active is not None:
        return active.policy_id
    only_proposed = exists().where(
        Activation.policy_id == PolicyVersion.policy_id,
        Activation.proposed_at == PolicyVersion.created_at,
    )
    others = select(PolicyVersion.policy_id).where(
        PolicyVersion.name == name, owned(None), ~only_proposed
    )
    if besides is not None:
        others = others.where(PolicyVersion.policy_id != besides)
    return session.scalar(others.order_by(PolicyVersion.id.desc()).limit(1))


def _newest_own(session: Session, name: str, client_id: int) -> int | None:
    own = select(PolicyVersion.policy_id).where(PolicyVersion.name == name, owned(client_id))
    return session.scalar(own.order_by(PolicyVersion.id.desc()).limit(1))


def _activate(session: Session, found: Activation, actor: str) -> None:
    active = _active(session, found.name)
    before = _meant(session, found.name, active, found.policy_id)
    nothing_to_do = found.flags == Flags.KEEP or before is None
    _change(
        session,
        found,
        before_id=before,
        activated_by=actor,
        activated_at=func.now(),
        done_at=func.now() if nothing_to_do else None,
    )
    _write_down(session, Event.POLICY_ACTIVATED, actor, found)


def _change(session: Session, found: Activation, **values: Any) -> None:  # noqa: ANN401
    session.execute(update(Activation).where(Activation.id == found.id).values(**values))
    session.refresh(found)


def _write_down(session: Session, event: Event, actor: str, found: Activation) -> None:
    ids = [found.policy_id, *([found.before_id] if found.before_id is not None else [])]
    digests = dict(
        session.execute(
            select(StoredPolicy.id, StoredPolicy.digest).where(StoredPolicy.id.in_(ids))
        ).all()
    )
    details = {
        "activation": found.id,
        "name": found.name,
        "policy": digests[found.policy_id],
        "before": None if found.before_id is None else digests[found.before_id],
        "flags": found.flags,
        "reason": found.reason,
        "proposed_by": found.proposed_by,
    }
    ledger.append(session, [Entry(event, actor, details=details)])


def _stored(row: StoredPolicy) -> StoredVersion:
    return StoredVersion(row.id, row.digest, Policy.model_validate(row.document), row.created_at)
