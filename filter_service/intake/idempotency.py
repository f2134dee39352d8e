"""Idempotency: a request that is sent again has the effect of one, and ends what was cut short."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.policies import store_policy
from filter_service.db.scope import Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, IdempotencyKey, Item
from filter_service.errors import Conflict, InvalidRequest
from filter_service.intake.batches import batch_in
from filter_service.ledger import Entry, Event
from filter_service.policy import Policy


@dataclass(frozen=True, slots=True)
class Once:
    """The idempotency key of a request: sent again, it has the effect of one."""

    owner: str  # whose key it is
    key: str
    request: str  # SHA-256 of everything that was asked, hex


@dataclass(frozen=True, slots=True)
class BegunBatch:
    """A batch that takes items."""

    batch: uuid.UUID
    accepted: int  # its first items, which are there from an earlier try
    finished: bool  # all of them are


@contextmanager
def alone(sessions: Sessions, once: Once | None) -> Iterator[None]:
    """Nobody else works on this request meanwhile; who is killed gives way at once.

    The lock is a connection's, outside the pool: requests that hold one and wait for another would
    block each other. Its transaction has no snapshot, and so stands in nobody's way.
    """
    if once is None:
        yield
        return
    name = f"{once.owner}\n{once.key}"
    with sessions.kw["bind"].connect() as connection:
        connection.detach()
        lock = func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0))
        if not connection.scalar(select(lock)):
            raise Conflict(
                f"The request with the idempotency key {once.key!r} is being worked on: wait for "
                "its answer, or send it again in a few seconds."
            )
        yield


def begin(
    sessions: Sessions,
    policy: Policy,
    batch: Batch,
    actor: str,
    once: Once | None,
    scope: Scope,
) -> BegunBatch:
    """A new batch, or the one that an earlier try of the same request has begun.

    The key stands from the moment at which there is a batch: a process killed before that leaves
    nothing, one killed later leaves a batch that the next try finds and completes.
    """
    with sessions.begin() as session:
        if once is not None and (begun := _begun(session, once)):
            return begun
        batch.policy_id = store_policy(session, policy, scope.owner)
        session.add(batch)
        if once is not None:
            session.add(IdempotencyKey(**asdict(once), batch_id=batch.id))
        ledger.append(session, [Entry(Event.SUBMITTED, actor, batch_id=batch.id)])
    return BegunBatch(batch.id, accepted=0, finished=False)


def is_known(session: Session, once: Once | None) -> bool:
    """An earlier try of the request has begun its batch."""
    return once is not None and session.get(IdempotencyKey, (once.owner, once.key)) is not None


def _begun(session: Session, once: Once) -> BegunBatch | None:
    known = session.get(IdempotencyKey, (once.owner, once.key))
    if known is None:
        return None
    if known.request != once.request:
        raise InvalidRequest(
            f"The idempotency key {once.key!r} was used for another request: send what was sent "
            "with it before, or take a new key."
        )
    batch = batch_in(session, known.batch_id)
    if batch.total is not None:
        return BegunBatch(batch.id, batch.total, finished=True)
    counted = select(func.count()).select_from(Item).where(Item.batch_id == batch.id)
    return BegunBatch(batch.id, session.scalar(counted) or 0, finished=False)
