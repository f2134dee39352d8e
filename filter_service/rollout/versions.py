"""Reads the versions of policies: which one a name means, its history, what is proposed."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, String, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from filter_service.db.policies import owned
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation, PolicyVersion, StoredPolicy
from filter_service.errors import InvalidRequest, UnknownPolicy
from filter_service.policy import Policy

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version of a policy that is kept here."""

    id: int
    digest: str
    policy: Policy
    created_at: datetime
    number: int  # among all of its name, in the order in which they were stored, from 1
    note: str  # why it was last proposed; empty: it never was


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
    meant: StoredVersion | None  # None: the first one is proposed still
    activation: Activation | None  # None: none was ever activated, and the newest is meant
    proposal: Activation | None  # that waits for somebody
    versions: int


def active_policy(session: Session, name: str, scope: Scope = OPERATOR) -> Policy | None:
    """What a name means to somebody: a client's own newest version, or else the operator's.

    That is the active one, or the newest where none was ever activated.
    """
    meant = None if scope.everyone else _newest_own(session, name, scope.client_id)
    if meant is None:
        meant = meant_policy_id(session, name, newest_activation(session, name))
    stored = None if meant is None else session.get_one(StoredPolicy, meant)
    return None if stored is None else Policy.model_validate(stored.document)


def meant_version(sessions: Sessions, name: str) -> StoredVersion | None:
    """The version that a name means."""
    with sessions.begin() as session:
        meant = meant_policy_id(session, name, newest_activation(session, name))
        return None if meant is None else _stored_of(session, meant)


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
        named = []
        for name, count in session.execute(query).all():
            active = newest_activation(session, name)
            meant = meant_policy_id(session, name, active)
            stored = None if meant is None else _stored_of(session, meant)
            named.append(NamedVersion(name, stored, active, _proposal(session, name), count))
    return named


def history(
    sessions: Sessions, name: str, before: int | None = None, limit: int = 20
) -> list[Version]:
    """The versions of a policy, newest first; give the last one's id as `before` for older ones."""
    rows = _numbered().where(StoredPolicy.name == name)
    if before is not None:
        rows = rows.where(StoredPolicy.id < before)
    with sessions.begin() as session:
        stored = _read(session, rows.order_by(StoredPolicy.id.desc()).limit(limit))
        active = newest_activation(session, name)
        activations = session.scalars(
            select(Activation)
            .where(Activation.policy_id.in_([s.id for s in stored]))
            .order_by(Activation.id.desc())
        ).all()
    return [
        Version(
            row,
            active is not None and active.policy_id == row.id,
            tuple(a for a in activations if a.policy_id == row.id),
        )
        for row in stored
    ]


def version_of(sessions: Sessions, digest: str, scope: Scope = OPERATOR) -> StoredVersion:
    """A stored version that somebody may name, by its digest; raises UnknownPolicy."""
    query = _numbered().where(StoredPolicy.digest == digest)
    if not scope.everyone:
        query = query.join(PolicyVersion, PolicyVersion.policy_id == StoredPolicy.id).where(
            or_(owned(None), owned(scope.client_id))
        )
    with sessions.begin() as session:
        stored = _read(session, query.limit(1)) if _DIGEST.fullmatch(digest) else []
    if not stored:
        raise UnknownPolicy(
            f"There is no stored policy {digest[:80]!r}: send the policy itself, which stores it."
        )
    return stored[0]


def version_beginning(sessions: Sessions, digits: str) -> StoredVersion:
    """The stored version whose digest begins so; raises UnknownPolicy and InvalidRequest."""
    if not _BEGINNING.fullmatch(digits):
        raise InvalidRequest(
            f"{digits[:80]!r} is no version: give the first 12 digits of its digest or more, as "
            "`policy history` shows them."
        )
    query = select(StoredPolicy.digest).where(
        func.encode(StoredPolicy.digest, "hex", type_=String).startswith(digits)
    )
    with sessions.begin() as session:
        found = session.scalars(query.limit(2)).all()
    return version_of(sessions, found[0] if len(found) == 1 else digits)


def waiting_of(sessions: Sessions, name: str) -> tuple[Activation, StoredVersion] | None:
    """What is proposed for a name, if anything is."""
    with sessions.begin() as session:
        proposal = _proposal(session, name)
        if proposal is None:
            return None
        return proposal, _stored_of(session, proposal.policy_id)


def newest_activation(session: Session, name: str) -> Activation | None:
    """Of a name only one proposal waits at a time, so that their order is that of activations."""
    return session.scalar(
        select(Activation)
        .where(Activation.name == name, Activation.activated_at.is_not(None))
        .order_by(Activation.id.desc())
        .limit(1)
    )


def _proposal(session: Session, name: str) -> Activation | None:
    return session.scalar(proposed(name))


def proposed(name: str) -> Select[Activation]:
    return select(Activation).where(
        Activation.name == name,
        Activation.activated_at.is_(None),
        Activation.withdrawn_at.is_(None),
    )


def meant_policy_id(
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


def _numbered() -> Select[Any]:
    """Stored versions with their numbers, and why each was last proposed."""
    older = aliased(StoredPolicy)
    number = (
        select(func.count())
        .where(older.name == StoredPolicy.name, older.id <= StoredPolicy.id)
        .scalar_subquery()
    )
    note = (
        select(Activation.reason)
        .where(Activation.policy_id == StoredPolicy.id)
        .order_by(Activation.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(StoredPolicy, number, note)


def _read(session: Session, query: Select[Any]) -> list[StoredVersion]:
    return [
        StoredVersion(
            row.id,
            row.digest,
            Policy.model_validate(row.document),
            row.created_at,
            number,
            note or "",
        )
        for row, number, note in session.execute(query)
    ]


def digest_of(sessions: Sessions, policy_id: int) -> str:
    """The digest of a version that is stored, by the key of its row."""
    with sessions.begin() as session:
        return session.get_one(StoredPolicy, policy_id).digest


def _stored_of(session: Session, policy_id: int) -> StoredVersion:
    return _read(session, _numbered().where(StoredPolicy.id == policy_id))[0]
