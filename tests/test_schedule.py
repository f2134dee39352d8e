"""What is done in the background: each chore by itself, and none in the way of another."""

import logging
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.orm import Session

from filter_service import schedule
from filter_service.db.session import Sessions
from filter_service.db.tables import IdempotencyKey, Login, LoginFailure, Person
from filter_service.errors import DatabaseOutdated, InvalidSettings, StorageUnavailable
from filter_service.schedule import CHORES, Chore, Chores, ScheduleContext, forget
from filter_service.settings import Settings

DAY = timedelta(days=1)


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url)


@pytest.fixture
def those(settings: Settings) -> Iterator[Chores]:
    found = Chores(settings, lambda: None)
    yield found
    found.close()


@pytest.mark.parametrize("name", CHORES)
def test_every_chore_may_find_nothing_to_do(those: Chores, name: str) -> None:
    assert those.do(name) == 0


def test_a_chore_that_fails_is_said_and_stops_no_other(
    those: Chores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: ScheduleContext) -> int:
        raise StorageUnavailable("The store is away.")

    monkeypatch.setitem(CHORES, "deliver", Chore(1, fail, "%d"))
    monkeypatch.setitem(CHORES, "fetch", Chore(1, lambda _: 1 // 0, "%d"))
    monkeypatch.setitem(CHORES, "settle", Chore(1, lambda _: 3, "%d decisions took effect."))
    with caplog.at_level(logging.INFO, schedule.__name__):
        assert [those.do(name) for name in ("deliver", "fetch", "settle")] == [0, 0, 3]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "The chore 'deliver' is put off. The store is away."
    assert said[1].startswith("The chore 'fetch' failed")
    assert said[2] == "3 decisions took effect."


def test_a_chore_that_failed_can_be_done_again(
    those: Chores, monkeypatch: pytest.MonkeyPatch
) -> None:
    divisors = iter([0, 1])
    monkeypatch.setitem(CHORES, "settle", Chore(1, lambda _: 2 // next(divisors), "%d"))
    assert [those.do("settle"), those.do("settle")] == [0, 2]


def test_a_chore_still_at_work_is_not_begun_again(
    those: Chores, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: ScheduleContext) -> int:
        begun.set()
        return int(go_on.wait(20))

    monkeypatch.setitem(CHORES, "deliver", Chore(1, slow, "%d"))
    monkeypatch.setitem(CHORES, "settle", Chore(1, lambda _: 5, "%d"))
    first = threading.Thread(target=those.do, args=["deliver"])
    first.start()
    begun.wait(20)
    assert those.do("deliver") == 0
    assert those.do("settle") == 5
    go_on.set()
    first.join()


def test_what_has_ended_is_forgotten(sessions: Sessions, owner: Engine) -> None:
    with sessions.begin() as session:
        keep_and_drop(session)
    assert forget(sessions) == 3
    with sessions.begin() as session:
        left = [
            session.scalar(select(func.count()).select_from(table))
            for table in (Login, LoginFailure, IdempotencyKey)
        ]
    assert left == [1, 1, 1]


def keep_and_drop(session: Session) -> None:
    """One row that is still needed of each kind, and one that is not."""
    person = Person(login="ada", name="Ada", role="admin")
    session.add(person)
    session.flush()
    for days in (-2, 2):
        at = func.now() + timedelta(days=days)
        login = {"digest": uuid.uuid4().hex * 2, "person_id": person.id, "expires_at": at}
        session.execute(insert(Login).values(login))
    for age in (0, 2):
        at = func.now() - age * DAY
        session.execute(insert(LoginFailure).values(key="name ada", at=at))
        key = {"owner": "key a", "key": str(age), "request": "ab" * 32, "batch_id": uuid.uuid4()}
        session.execute(insert(IdempotencyKey).values(**key, created_at=at))


def test_chores_without_a_database_say_what_to_set() -> None:
    with pytest.raises(InvalidSettings, match="FILTER_SERVICE_DATABASE_URL"):
        Chores(Settings(database_url=None), lambda: None)


def test_chores_wait_for_the_schema(owner: Engine, settings: Settings) -> None:
    with owner.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(DatabaseOutdated):
        Chores(settings, lambda: None)
