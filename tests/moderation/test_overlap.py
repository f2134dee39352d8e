"""A batch is recorded while the next is judged, and nothing of a failure is lost by it."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from sqlalchemy import func, select

from filter_service.db.session import Sessions
from filter_service.db.tables import Item, QueueEntry
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.moderation import drain
from filter_service.moderation.batch_size import GROWTH, QUICK, SLOW, BatchSize
from filter_service.policy import Policy
from filter_service.storage import Storage
from filter_service.verdicts import Outcome
from tests.support.simple_classifier import POLICY, SimpleJudge, Subject, desk_of


def submit(sessions: Sessions, storage: Storage, number: int) -> None:
    files = [Submission(f"{i}", f"-1 {i}".encode()) for i in range(number)]
    submissions.accept(sessions, storage, lambda: None, files, POLICY)


def test_the_next_batch_is_judged_while_one_is_recorded(
    sessions: Sessions, storage: Storage
) -> None:
    submit(sessions, storage, 16)
    judge = SimpleJudge()
    late: list[bool] = []
    with ExitStack() as held:

        def give_up() -> None:
            late.append(True)
            held.close()

        timer = threading.Timer(5, give_up)

        def look(_: Sequence[Subject]) -> None:
            if len(judge.calls) == 1:  # what is judged now cannot be recorded,
                session = held.enter_context(sessions.begin())
                session.execute(select(Item.id).with_for_update()).all()
                timer.start()
            else:  # before the next batch is judged
                timer.cancel()
                late.append(False)
                held.close()

        judge.before = look
        assert drain(desk_of(sessions, storage, judge)) == 16
    assert late == [False]


class Lost(SimpleJudge):
    """Answers for a class that no policy has: it cannot be recorded."""

    def _outcome(self, subject: Subject, policy: Policy) -> Outcome:
        stranger = policy.model_copy(
            update={"classes": (policy.classes[0].model_copy(update={"name": "stranger"}),)}
        )
        return super()._outcome(subject, stranger)


def test_a_batch_that_cannot_be_recorded_ends_the_worker_and_is_given_back(
    sessions: Sessions, storage: Storage
) -> None:
    submit(sessions, storage, 20)
    with pytest.raises(KeyError, match="stranger"):
        drain(desk_of(sessions, storage, Lost()))
    with sessions.begin() as session:
        free = select(func.count()).where(QueueEntry.worker.is_(None), QueueEntry.attempts == 1)
        assert session.scalar(free) == 20


def test_batches_grow_while_the_model_is_quick() -> None:
    size = BatchSize(8)
    for _ in range(9):
        size.took(size.now, QUICK / 2)
    assert size.now == 8 * GROWTH


@pytest.mark.parametrize(("items", "seconds"), [(7, QUICK / 2), (8, QUICK * 2)])
def test_batches_do_not_grow_when_they_are_not_full_or_take_their_time(
    items: int, seconds: float
) -> None:
    size = BatchSize(8)
    size.took(items, seconds)
    assert size.now == 8


def test_batches_shrink_to_what_was_asked_for_when_the_model_is_slow() -> None:
    size = BatchSize(8, 32)
    for _ in range(9):
        size.took(size.now, SLOW * 2)
    assert size.now == 8
