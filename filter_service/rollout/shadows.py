"""Starts and ends shadows: versions that run beside the one that judges, without effect."""

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import PolicyShadow, StoredPolicy
from filter_service.errors import Conflict, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.rollout.versions import meant_policy_id, newest_activation, version_of

BY_ITSELF = "service"  # who ends the shadow of a version that judges by now


def start_shadow(sessions: Sessions, digest: str, actor: str) -> PolicyShadow:
    """Let a version look at what is judged from now on, under its policy's name.

    Raises UnknownPolicy, and Conflict for the version that judges, or while another one runs.
    """
    version = version_of(sessions, digest)
    name = version.policy.name
    with sessions.begin() as session:
        if _judges(session, name, version.id):
            raise Conflict(
                f"This version of {name!r} ({digest[:12]}…) is the one that judges: a shadow is "
                "another version."
            )
        newest = session.scalar(text("SELECT max(id) FROM items")) or 0
        shadow: PolicyShadow | None = session.scalar(
            upsert(PolicyShadow)
            .values(policy_id=version.id, name=name, started_by=actor, reached=newest)
            .on_conflict_do_nothing()
            .returning(PolicyShadow)
        )
        if shadow is None:
            raise Conflict(f"A version of {name!r} runs in the shadow already: end that one first.")
        _write_down(session, Event.SHADOW_STARTED, actor, shadow)
    return shadow


def end_shadow(sessions: Sessions, digest: str, actor: str) -> None:
    """End the shadow of a version; what it would have flagged stays. Raises UnknownEntry."""
    version = version_of(sessions, digest)
    with sessions.begin() as session:
        shadow = session.scalar(
            select(PolicyShadow)
            .where(PolicyShadow.policy_id == version.id, PolicyShadow.ended_at.is_(None))
            .with_for_update()
        )
        if shadow is None:
            raise UnknownEntry(
                f"This version of {version.policy.name!r} ({digest[:12]}…) does not run in the "
                "shadow: start it first."
            )
        end(session, shadow, actor)


def end(session: Session, shadow: PolicyShadow, actor: str) -> None:
    """The same for a row that the caller has locked."""
    shadow.ended_by, shadow.ended_at = actor, session.execute(select(func.now())).scalar_one()
    _write_down(session, Event.SHADOW_ENDED, actor, shadow)


def end_of_activated(sessions: Sessions) -> int:
    """End the shadows of versions that judge by now; how many."""
    running = select(PolicyShadow).where(PolicyShadow.ended_at.is_(None)).order_by(PolicyShadow.id)
    with sessions.begin() as session:
        shadows = session.scalars(running.with_for_update(skip_locked=True)).all()
        over = [s for s in shadows if _judges(session, s.name, s.policy_id)]
        for shadow in over:
            end(session, shadow, BY_ITSELF)
    return len(over)


def _judges(session: Session, name: str, policy_id: int) -> bool:
    return policy_id == meant_policy_id(session, name, newest_activation(session, name))


def _write_down(session: Session, event: Event, actor: str, shadow: PolicyShadow) -> None:
    digest = session.scalar(select(StoredPolicy.digest).where(StoredPolicy.id == shadow.policy_id))
    details = {"shadow": shadow.id, "name": shadow.name, "policy": digest}
    ledger.append(session, [Entry(event, actor, details=details)])
