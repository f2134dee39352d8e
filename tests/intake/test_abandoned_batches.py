"""A batch whose submitter was killed is closed with what it holds, and finishes."""

import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing import get_context

import pytest
from sqlalchemy import delete, func, select, update

from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import Batch, IdempotencyKey, Item
from filter_service.intake import abandoned_batches, batches, submissions
from filter_service.intake.abandoned_batches import close_abandoned
from filter_service.intake.item_lists import CHUNK
from filter_service.intake.submissions import AT_ONCE, Submission
from filter_service.storage import Storage
from filter_service.webhooks import announce_finished
from tests.support.simple_classifier import POLICY

DAY = timedelta(days=1)


def endless() -> Iterator[Submission]:
    """Enough for one chunk, then nothing more and no end."""
    for n in range(CHUNK + AT_ONCE):
        yield Submission(f"{n}", error="it is no image")
    time.sleep(600)


def submit(database_url: str, images: str) -> None:
    sessions = sessions_of(connect(database_url))
    submissions.accept(sessions, Storage(images), lambda: None, endless(), POLICY)


@pytest.fixture
def cut_short(database_url: str, sessions: Sessions, storage: Storage) -> uuid.UUID:
    """The batch of a process that was killed in the midst of it."""
    process = get_context("spawn").Process(target=submit, args=(database_url, storage.url))
    process.start()
    arrived = select(func.count()).select_from(Item)
    try:
        for _ in range(1200):
            with sessions.begin() as session:
                if session.scalar(arrived) == CHUNK:
                    break
            time.sleep(0.05)
    finally:
        process.kill()
        process.join()
    with sessions.begin() as session:
        return session.scalars(select(Batch.id)).one()


def begun(sessions: Sessions, ago: timedelta) -> None:
    with sessions.begin() as session:
        session.execute(update(Batch).values(submitted_at=func.now() - ago))


def test_a_batch_whose_submitter_was_killed_is_closed_once_nothing_happens_to_it(
    sessions: Sessions, cut_short: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(sessions, ago=DAY)
    assert close_abandoned(sessions) == 0  # its last file came just now
    monkeypatch.setattr(abandoned_batches, "QUIET", timedelta(0))
    assert not batches.status(sessions, cut_short).finished
    assert (close_abandoned(sessions), close_abandoned(sessions)) == (1, 0)
    status = batches.status(sessions, cut_short)
    assert (status.total, status.finished) == (CHUNK, True)
    assert announce_finished(sessions) == 1


def test_what_may_still_be_sent_again_under_its_key_stays_open(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abandoned_batches, "QUIET", timedelta(0))
    with sessions.begin() as session:
        batch = Batch(id=uuid.uuid4(), policy_id=store_policy(session, POLICY), label="")
        batch.priority = 0
        session.add(batch)
        session.add(IdempotencyKey(owner="client 1", key="k", request="ab" * 32, batch_id=batch.id))
    begun(sessions, ago=DAY)
    assert close_abandoned(sessions) == 0
    with sessions.begin() as session:
        session.execute(delete(IdempotencyKey))
    assert close_abandoned(sessions) == 1
