"""What a worker does with the queue, with a judge that needs no model."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Embedding,
    Item,
    QueueEntry,
    StoredExplanation,
    StoredScore,
)
from filter_service.errors import StorageUnavailable
from filter_service.images import digest
from filter_service.intake import batches, item_lists, retries, submissions
from filter_service.intake.submissions import Submission
from filter_service.moderation import Leases, WorkerContext, drain, has_work
from filter_service.moderation.leases import HOPELESS, SUSPECT
from filter_service.policy import Policy
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.simple_classifier import POLICY, SimpleJudge, Subject, desk_of

OTHER = Policy(name="other", neutral=POLICY.neutral, classes=POLICY.classes[:1])

Submit = Callable[..., uuid.UUID]


@pytest.fixture
def judge() -> SimpleJudge:
    return SimpleJudge()


@pytest.fixture
def desk(sessions: Sessions, storage: Storage, judge: SimpleJudge) -> WorkerContext[Subject]:
    return desk_of(sessions, storage, judge)


@pytest.fixture
def submit(sessions: Sessions, storage: Storage) -> Submit:
    def submit(*contents: str, policy: Policy = POLICY, priority: int = 0) -> uuid.UUID:
        files = [Submission(content, content.encode()) for content in contents]
        return submissions.accept(sessions, storage, lambda: None, files, policy, priority=priority)

    return submit


def verdicts(sessions: Sessions, batch: uuid.UUID | None = None) -> dict[str, Verdict | None]:
    return {i.source: i.verdict for i in item_lists.items(sessions, batch, limit=1000)}


def reason(sessions: Sessions, source: str) -> str:
    (item,) = [i for i in item_lists.items(sessions) if i.source == source]
    return item.reason or ""


def events(sessions: Sessions, source: str) -> list[str]:
    (item,) = [i for i in item_lists.items(sessions) if i.source == source]
    with sessions.begin() as session:
        return [e.event for e in ledger.of_item(session, item.id)]


def count(sessions: Sessions, table: type) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def lapse(sessions: Sessions) -> None:
    """As if every lease had run out, and everything put off were due."""
    with sessions.begin() as session:
        session.execute(text("UPDATE queue SET leased_until = '-infinity'"))


def attempted(sessions: Sessions, source: str, attempts: int) -> None:
    with sessions.begin() as session:
        session.execute(
            text(
                "UPDATE queue SET attempts = :n FROM items WHERE id = item_id AND source = :source"
            ),
            {"n": attempts, "source": source},
        )


def test_every_item_gets_its_verdict(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit
) -> None:
    submit("-1", "2", "unreadable")
    assert drain(desk) == 3
    assert verdicts(sessions) == {
        "-1": Verdict.CLEAR,
        "2": Verdict.FLAGGED,
        "unreadable": Verdict.UNDETERMINED,
    }
    assert count(sessions, QueueEntry) == 0


def test_what_happened_is_in_the_ledger(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit
) -> None:
    submit("-1", "2", "unreadable")
    drain(desk)
    assert events(sessions, "-1") == ["submitted", "judged"]
    assert events(sessions, "2") == ["submitted", "judged", "explained", "opened"]
    assert events(sessions, "unreadable") == ["submitted", "failed"]


def test_the_worst_class_stands_with_the_item(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit
) -> None:
    submit("2")
    drain(desk)
    (item,) = item_lists.items(sessions)
    assert item.margin == 2.0
    assert item.class_id is not None


def test_every_flag_has_its_explanation(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit
) -> None:
    submit("2 a", "3 b", "-1")
    drain(desk)
    assert count(sessions, StoredExplanation) == 2


def test_one_image_in_two_items_is_computed_once(
    sessions: Sessions, storage: Storage, desk: WorkerContext[Subject], judge: SimpleJudge
) -> None:
    files = [Submission("first", b"2"), Submission("second", b"2")]
    submissions.accept(sessions, storage, lambda: None, files, POLICY)
    drain(desk)
    assert verdicts(sessions) == {"first": Verdict.FLAGGED, "second": Verdict.FLAGGED}
    assert (len(judge.computed), count(sessions, Embedding)) == (1, 1)


def test_a_known_image_is_judged_from_its_kept_vector(
    desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    submit("2")
    drain(desk)
    submit("2", policy=OTHER)
    drain(desk)
    assert len(judge.computed) == 1


def test_one_image_under_two_policies_at_once_is_computed_once(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    submit("2")
    submit("2", policy=OTHER)
    drain(desk)
    assert len(judge.computed) == 1
    assert count(sessions, StoredScore) == 3  # two classes of one policy, one of the other


def test_the_most_urgent_come_first(
    desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    submit(*[f"-1 {i}" for i in range(8)])
    submit("-2", priority=5)
    drain(desk)
    assert digest(b"-2") in judge.calls[0]


def test_two_workers_share_the_queue(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    submit(*[f"-1 {i}" for i in range(40)])
    with ThreadPoolExecutor(2) as pool:
        shares = list(pool.map(drain, [desk, desk]))
    assert sum(shares) == 40
    assert len(judge.computed) == 40


def test_a_held_item_is_nobody_elses(sessions: Sessions, submit: Submit) -> None:
    submit("-1")
    assert len(Leases(sessions, 60).claim(8)) == 1
    assert Leases(sessions, 60).claim(8) == []


def test_a_lapsed_lease_is_claimed_by_another(sessions: Sessions, submit: Submit) -> None:
    submit("-1")
    Leases(sessions, 60).claim(8)
    lapse(sessions)
    assert len(Leases(sessions, 60).claim(8)) == 1


def test_a_living_workers_lease_does_not_lapse(sessions: Sessions, submit: Submit) -> None:
    submit("-1")
    leases = Leases(sessions, 0.6)
    with leases.beating():
        leases.claim(8)
        time.sleep(1.2)
        assert Leases(sessions, 60).claim(8) == []


def test_what_another_has_claimed_meanwhile_is_not_recorded(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    submit("2")

    def overtaken(_: Sequence[Subject]) -> None:
        lapse(sessions)
        Leases(sessions, 60).claim(8)

    judge.before = overtaken
    assert drain(desk) == 0
    assert verdicts(sessions) == {"2": None}
    assert events(sessions, "2") == ["submitted"]


def test_what_was_cancelled_meanwhile_is_not_recorded(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    batch = submit("2")
    judge.before = lambda _: batches.cancel(sessions, batch)
    assert drain(desk) == 0
    assert verdicts(sessions) == {"2": None}


def test_stopping_gives_back_what_was_claimed_ahead(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    submit(*[f"-1 {i}" for i in range(24)])
    stop = threading.Event()
    judge.before = lambda _: stop.set()
    assert drain(desk, stop.is_set) == 8
    assert len(Leases(sessions, 60).claim(100)) == 16


def test_what_was_given_back_unbegun_counts_as_no_attempt(
    sessions: Sessions, submit: Submit
) -> None:
    submit("-1")
    leases = Leases(sessions, 60)
    leases.claim(8)
    leases.release(counted=False)
    with sessions.begin() as session:
        assert session.scalar(select(QueueEntry.attempts)) == 0


def test_when_the_time_is_over_another_is_called(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit
) -> None:
    submit(*[f"-1 {i}" for i in range(9)])
    knocks: list[None] = []
    drain(desk, seconds=0, notify_workers=lambda: knocks.append(None))
    assert len(knocks) == 2  # there is more than one batch; and the time is over
    assert count(sessions, QueueEntry) == 1


def test_one_bad_image_does_not_take_its_batch_with_it(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    def stumble(subjects: Sequence[Subject]) -> None:
        if any("bad" in s.words for s in subjects):
            raise ValueError("shapes do not match")

    judge.before = stumble
    submit("-1", "2", "-1 bad")
    drain(desk)
    assert verdicts(sessions)["2"] is Verdict.FLAGGED
    assert reason(sessions, "-1 bad") == "judging failed (ValueError: shapes do not match)"


def test_what_kills_workers_is_claimed_alone(sessions: Sessions, submit: Submit) -> None:
    submit("-1 a", "poison", "-1 b")
    attempted(sessions, "poison", SUSPECT)
    claims = [Leases(sessions, 60).claim(8) for _ in range(2)]
    assert [len(c) for c in claims] == [2, 1]


def test_what_has_killed_too_many_workers_is_undetermined(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit
) -> None:
    submit("poison", "-1")
    attempted(sessions, "poison", HOPELESS)
    drain(desk)
    assert verdicts(sessions) == {"poison": Verdict.UNDETERMINED, "-1": Verdict.CLEAR}
    assert reason(sessions, "poison") == "the worker died 6 times while judging this image"


class Unreachable(Storage):
    """A store that does not answer for one image."""

    def get(self, digest: str) -> bytes:
        data = super().get(digest)
        if data == b"lost":
            raise StorageUnavailable("the store does not answer")
        return data


@pytest.fixture
def unreachable(sessions: Sessions, storage: Storage, judge: SimpleJudge) -> WorkerContext[Subject]:
    storage.__class__ = Unreachable
    return desk_of(sessions, storage, judge)


def test_what_cannot_be_fetched_is_put_off(
    sessions: Sessions, unreachable: WorkerContext[Subject], submit: Submit
) -> None:
    submit("lost", "-1")
    assert drain(unreachable) == 1
    assert verdicts(sessions) == {"lost": None, "-1": Verdict.CLEAR}
    with sessions.begin() as session:
        assert not has_work(session)  # not at once


def test_what_can_never_be_fetched_is_undetermined_in_the_end(
    sessions: Sessions, unreachable: WorkerContext[Subject], submit: Submit
) -> None:
    submit("lost")
    for _ in range(HOPELESS + 1):
        drain(unreachable)
        lapse(sessions)
    told = StorageUnavailable.public  # not what only the operator is to know
    assert reason(sessions, "lost") == f"given up after 6 attempts: {told}"


def test_a_retried_item_is_judged_anew(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    def stumble(_: Sequence[Subject]) -> None:
        raise ValueError

    judge.before = stumble
    batch = submit("2")
    drain(desk)
    judge.before = lambda _: None
    retries.retry(sessions, lambda: None, batch)
    drain(desk)
    assert verdicts(sessions) == {"2": Verdict.FLAGGED}
    assert events(sessions, "2") == [
        "submitted", "failed", "retried", "judged", "explained", "opened",
    ]  # fmt: skip


def test_no_transaction_is_open_while_the_model_computes(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit, judge: SimpleJudge
) -> None:
    open_ones: list[int] = []
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND state LIKE 'idle in transaction%'"
    )

    def look(_: Sequence[Subject]) -> None:
        with sessions.begin() as session:
            open_ones.append(session.scalar(query) or 0)

    judge.before = look
    submit("2")
    drain(desk)
    assert open_ones == [0]


def test_an_item_without_a_verdict_is_one_that_waits(
    sessions: Sessions, desk: WorkerContext[Subject], submit: Submit
) -> None:
    submit("-1", "2")
    drain(desk)
    with sessions.begin() as session:
        assert session.scalar(select(func.count()).where(Item.verdict.is_(None))) == 0
