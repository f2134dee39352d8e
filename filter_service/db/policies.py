"""Stored policies: one row for each version, found by its digest."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import PolicyClass, PolicyVersion, StoredPolicy
from filter_service.policy import Policy


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A policy with the ids that its classes have in the database."""

    policy: Policy
    class_ids: dict[str, int]


def store_policy(session: Session, policy: Policy, owner: int | None = None) -> int:
    """The id of this version of a policy, which is stored when it is new.

    From now on its owner may call it by its name: a client, or the operator, None.
    """
    policy_id = _store(session, policy)
    known = select(PolicyVersion.id).where(
        PolicyVersion.policy_id == policy_id, or_(PolicyVersion.client_id.is_(None), owned(owner))
    )
    if session.scalar(known.limit(1)) is None:
        named = upsert(PolicyVersion).values(client_id=owner, name=policy.name, policy_id=policy_id)
        session.execute(named.on_conflict_do_nothing())
    return policy_id


def policy_id_of(session: Session, policy: Policy) -> int:
    """The id of a version that is stored; NoResultFound for another."""
    return session.scalars(
        select(StoredPolicy.id).where(StoredPolicy.digest == policy.digest)
    ).one()


def owned(owner: int | None) -> ColumnElement[bool]:
    """The condition on names: those of a client, or of the operator."""
    return PolicyVersion.client_id.is_(None) if owner is None else PolicyVersion.client_id == owner


def policy_names(sessions: Sessions, limit: int | None = None) -> list[str]:
    """The names of all stored policies, each once."""
    query = select(StoredPolicy.name).distinct().order_by(StoredPolicy.name).limit(limit)
    with sessions.begin() as session:
        return list(session.scalars(query))


def _store(session: Session, policy: Policy) -> int:
    known = select(StoredPolicy.id).where(StoredPolicy.digest == policy.digest)
    if (policy_id := session.scalar(known)) is not None:
        return policy_id
    added: int | None = session.scalar(
        upsert(StoredPolicy)
        .values(digest=policy.digest, name=policy.name, document=policy.model_dump(mode="json"))
        .on_conflict_do_nothing(index_elements=["digest"])
        .returning(StoredPolicy.id)
    )
    if added is None:  # somebody else stored it just now
        return session.execute(known).scalar_one()
    rows = [
        {"policy_id": added, "position": position, "name": c.name}
        for position, c in enumerate(policy.classes)
    ]
    session.execute(insert(PolicyClass), rows)
    return added


def load_policy(session: Session, policy_id: int) -> KnownPolicy:
    """A stored policy as it was submitted; stored policies never change."""
    document = session.execute(
        select(StoredPolicy.document).where(StoredPolicy.id == policy_id)
    ).scalar_one()
    classes = select(PolicyClass.name, PolicyClass.id).where(PolicyClass.policy_id == policy_id)
    return KnownPolicy(Policy.model_validate(document), dict(session.execute(classes).all()))
