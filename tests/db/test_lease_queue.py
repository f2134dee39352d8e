"""Leases on the rows of a queue: one at a time, until they end."""

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from filter_service.db.lease_queue import LeaseQueue, heartbeat
from filter_service.errors import DatabaseUnavailable

MINUTE = timedelta(minutes=1)


class Base(DeclarativeBase):
    """Tables of these tests alone."""


class Errand(Base):
    """Something to be done."""

    __tablename__ = "errands"
    id: Mapped[int] = mapped_column(primary_key=True)
    until: Mapped[datetime | None] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default="0")


ERRANDS = LeaseQueue(Errand.until, Errand.attempts)


@pytest.fixture
def sessions(owner: Engine) -> Iterator[sessionmaker[Session]]:
    """Three errands, numbered from 1."""
    Base.metadata.create_all(owner)
    made = sessionmaker(owner)
    with made.begin() as session:
        session.add_all([Errand(id=number) for number in (1, 2, 3)])
    yield made
    Base.metadata.drop_all(owner)


def claim(session: Session, limit: int = 1) -> list[int]:
    free = ERRANDS.select_free(Errand.id).order_by(Errand.id).limit(limit)
    taken = ERRANDS.claim(MINUTE, Errand.id.in_(free)).returning(Errand.id)
    return sorted(session.scalars(taken))


def test_who_claims_at_the_same_time_gets_others(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as one, sessions.begin() as other:
        assert claim(one) == [1]
        other.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert claim(other, limit=3) == [2, 3]  # and does not wait for the first


def test_what_is_held_is_claimed_once_its_lease_ends(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        assert claim(session, limit=3) == [1, 2, 3]
    with sessions.begin() as session:
        assert claim(session) == []
        assert session.scalar(select(func.count()).where(ERRANDS.held)) == 3
        session.execute(ERRANDS.hold(-MINUTE, Errand.id == 2))  # as if it had lapsed
    with sessions.begin() as session:
        assert claim(session, limit=3) == [2]


def test_a_claim_is_counted_and_a_pause_is_not(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        claim(session)
        session.execute(ERRANDS.hold(2 * MINUTE, Errand.id == 1))
    with sessions.begin() as session:
        errand = session.get_one(Errand, 1)
        assert errand.attempts == 1
        left = func.extract("epoch", Errand.until - func.now())
        assert 60 < session.scalars(select(left).where(Errand.id == 1)).one() <= 120


def test_what_is_given_back_is_free_at_once(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        claim(session, limit=3)
    with sessions.begin() as session:
        session.execute(ERRANDS.give_back(Errand.id == 3))
        assert claim(session) == [3]


def test_what_is_given_up_is_neither_free_nor_held(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.get_one(Errand, 1).until = None
    with sessions.begin() as session:
        assert claim(session, limit=3) == [2, 3]
        assert list(session.scalars(select(Errand.id).where(ERRANDS.held))) == [2, 3]


def test_a_heart_beats_until_the_work_is_done() -> None:
    beats: list[int] = []
    third = threading.Event()

    def extend() -> None:
        beats.append(len(beats))
        if len(beats) == 3:
            third.set()
        raise DatabaseUnavailable("it is gone for a moment")  # which ends nothing

    with heartbeat(extend, timedelta(milliseconds=15)):
        assert third.wait(10)
    after = len(beats)
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
    assert len(beats) == after
