"""A worker looks ahead of what it has taken, and still finds what became free behind it."""

import time
from collections.abc import Callable

import pytest

from filter_service.db.session import Sessions
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.moderation import Leases
from filter_service.moderation.queue_place import QueuePlace
from filter_service.storage import Storage
from tests.support.simple_classifier import POLICY

Queue = Callable[..., None]


@pytest.fixture
def queue(sessions: Sessions, storage: Storage) -> Queue:
    def queue(number: int, priority: int = 0) -> None:
        files = [Submission(f"{i}", f"{priority} {i}".encode()) for i in range(number)]
        submissions.accept(sessions, storage, lambda: None, files, POLICY, priority=priority)

    return queue


def looked_at(sessions: Sessions, place: QueuePlace) -> list[int]:
    """The four items that a worker of this place takes, and gives back at once."""
    leases = Leases(sessions, 60, place)
    taken = leases.claim(4)
    leases.release(counted=False)
    return [item.item_id for item in taken]


def test_a_worker_goes_on_where_it_was(sessions: Sessions, queue: Queue) -> None:
    queue(8)
    place = QueuePlace()
    assert looked_at(sessions, place) < looked_at(sessions, place)


def test_what_became_free_behind_is_found_after_a_pause(sessions: Sessions, queue: Queue) -> None:
    queue(12)
    place = QueuePlace(pause=0.1, part=0)
    first = looked_at(sessions, place)
    time.sleep(0.2)
    assert looked_at(sessions, place) == first


def test_what_became_free_behind_is_found_at_once_where_nothing_is_ahead(
    sessions: Sessions, queue: Queue
) -> None:
    queue(4)
    place = QueuePlace()
    assert looked_at(sessions, place) == looked_at(sessions, place)


@pytest.mark.parametrize("priority", [-1, 3, 9])
def test_more_urgent_items_come_first_wherever_a_worker_is(
    sessions: Sessions, queue: Queue, priority: int
) -> None:
    queue(8, priority=0)
    queue(8, priority=5)
    place = QueuePlace()
    seen = [looked_at(sessions, place), looked_at(sessions, place)]  # all of the urgent ones
    seen.append(looked_at(sessions, place))  # the first of the others
    queue(4, priority=priority)
    new = looked_at(sessions, place)
    assert (new > max(seen)) == (priority > 0)
