"""Workers are killed, Redis forgets everything, and still each item is judged exactly once."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import func, select, text

from filter_service.db.session import Sessions
from filter_service.db.tables import Item, QueueEntry, ReviewCase, StoredExplanation
from filter_service.intake import batches, submissions
from filter_service.intake.submissions import Submission
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.served import Service, kill, picture, policy_that_flags, write_model

ITEMS = 1_000
KILLS = 10
PATIENCE = 300  # seconds


def judged(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count(Item.verdict))) or 0


def wait(sessions: Sessions, number: int) -> None:
    """Until so many items are judged."""
    deadline = time.monotonic() + PATIENCE
    while judged(sessions) < number:
        assert time.monotonic() < deadline, f"only {judged(sessions)} of {number} items judged"
        time.sleep(0.02)


def moments(chance: random.Random) -> Iterator[tuple[int, float]]:
    """When to kill: after so many items in all, and then some part of a second."""
    for number in sorted(chance.sample(range(ITEMS - 100), KILLS)):
        yield number, chance.uniform(0, 0.5)


def strike(worker: psutil.Popen, chance: random.Random) -> bool:
    """SIGKILL to the whole worker, or only to the process in it that judges; was it the whole?"""
    children = worker.children()
    if children and chance.random() < 0.5:
        chance.choice(children).kill()
        return False
    kill(worker)
    return True


def test_killed_workers_and_an_emptied_redis_lose_and_double_nothing(
    database_url: str, broker_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    chance = random.Random(2)
    files = [picture(seed) for seed in range(ITEMS)]
    model = write_model(tmp_path / "model")
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        storage_url=(tmp_path / "images").as_uri(),
        model=model,
        device="cpu",
        batch_size=8,
        lease_seconds=3,
        sweep_seconds=1,
    )
    batch = submissions.accept(
        sessions,
        Storage((tmp_path / "images").as_uri()),
        lambda: None,  # the sweep has to find them
        [Submission(f"{i}", data) for i, data in enumerate(files)],
        policy_that_flags(0.05, model, files),
    )
    service = Service(settings, tmp_path)
    with service.schedule(), ExitStack() as stack, redis.Redis.from_url(broker_url) as broker:
        workers = [stack.enter_context(service.worker()) for _ in range(2)]
        for kills, (number, delay) in enumerate(moments(chance)):
            wait(sessions, number)
            time.sleep(delay)
            if kills == KILLS // 2:
                broker.flushall()
            victim = chance.randrange(len(workers))
            if strike(workers[victim], chance):
                workers[victim] = stack.enter_context(service.worker())
        wait(sessions, ITEMS)
    check(sessions, batch)


def check(sessions: Sessions, batch: object) -> None:
    status = batches.status(sessions, batch)  # type: ignore[arg-type]
    assert (status.undetermined, status.waiting) == (0, 0)
    assert status.clear + status.flagged == ITEMS
    assert status.flagged == pytest.approx(50, abs=10)
    with sessions.begin() as session:
        explained = select(StoredExplanation.item_id).order_by(StoredExplanation.item_id)
        flagged = select(Item.id).where(Item.verdict == Verdict.FLAGGED).order_by(Item.id)
        waiting = select(ReviewCase.item_id).order_by(ReviewCase.item_id)
        assert list(session.scalars(explained)) == list(session.scalars(flagged))
        assert list(session.scalars(waiting)) == list(session.scalars(flagged))
        assert session.scalar(select(func.count()).select_from(QueueEntry)) == 0
        entries = session.execute(
            text(
                "SELECT event, count(*), count(DISTINCT item_id) FROM ledger "
                "WHERE item_id IS NOT NULL GROUP BY event ORDER BY event"
            )
        )
        flags = status.flagged
        assert [tuple(e) for e in entries] == [
            ("explained", flags, flags),
            ("judged", ITEMS, ITEMS),
            ("opened", flags, flags),
            ("submitted", ITEMS, ITEMS),
        ]
