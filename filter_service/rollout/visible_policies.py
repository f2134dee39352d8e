"""What policies' names mean to whoever asks, a client or the operator."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select

from filter_service.db.policies import owned
from filter_service.db.scope import Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation, PolicyVersion
from filter_service.errors import UnknownPolicy
from filter_service.policy import Policy
from filter_service.rollout.versions import active_policy, proposed


@dataclass(frozen=True, slots=True)
class VisiblePolicy:
    """What a name means to somebody."""

    name: str
    policy: Policy | None  # None: its first version is proposed still
    own: bool  # the asker's words, and no one else's
    proposal: Activation | None  # that waits; clients are not told


def visible_policies(
    sessions: Sessions, scope: Scope, after: str = "", limit: int = 100
) -> list[VisiblePolicy]:
    """In the order of the names, those after one: a client's own, and the operator's."""
    names = select(PolicyVersion.name).distinct().where(_seen(scope), PolicyVersion.name > after)
    with sessions.begin() as session:
        found = session.scalars(names.order_by(PolicyVersion.name).limit(limit)).all()
    return [visible_policy(sessions, scope, name) for name in found]


def visible_policy(sessions: Sessions, scope: Scope, name: str) -> VisiblePolicy:
    """Raises UnknownPolicy."""
    with sessions.begin() as session:
        known = select(PolicyVersion.id).where(PolicyVersion.name == name)
        if session.scalar(known.where(_seen(scope)).limit(1)) is None:
            raise UnknownPolicy(f"There is no policy {name!r}: /v1/policies lists all names.")
        mine = known.where(owned(scope.owner)).limit(1)
        waits = session.scalar(proposed(name)) if scope.everyone else None
        policy = active_policy(session, name, scope)
        return VisiblePolicy(name, policy, session.scalar(mine) is not None, waits)


def _seen(scope: Scope) -> ColumnElement[bool]:
    return owned(None) if scope.everyone else or_(owned(None), owned(scope.client_id))
