"""What a platform may do: submit, look, cancel, try again."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, update

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, QueueEntry, StoredImage, StoredPolicy
from filter_service.errors import UnknownBatch
from filter_service.intake import batches, item_lists, retries, submissions
from filter_service.intake.item_lists import CHUNK
from filter_service.intake.submissions import Submission
from filter_service.policy import ForbiddenClass, Policy
from filter_service.reviews.tallies import undetermined_by_day
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.review_cases import listening, told_to_platforms

POLICY = Policy(
    name="shop",
    neutral=("a photo",),
    classes=(
        ForbiddenClass(name="knife", prompts=("a knife",), threshold=0.5),
        ForbiddenClass(name="gun", prompts=("a gun",), threshold=0.5),
    ),
)
UNREADABLE = Submission("gone.jpg", error="permission denied: gone.jpg")

Accept = Callable[..., uuid.UUID]


@pytest.fixture
def knocks() -> list[None]:
    return []


@pytest.fixture
def accept(sessions: Sessions, storage: Storage, knocks: list[None]) -> Accept:
    def accept(*files: Submission, **options: object) -> uuid.UUID:
        def notify_workers() -> None:
            knocks.append(None)

        return submissions.accept(sessions, storage, notify_workers, files, POLICY, **options)  # type: ignore[arg-type]

    return accept


def file(name: str, data: bytes | None = None) -> Submission:
    return Submission(name, data or name.encode())


def files(number: int) -> list[Submission]:
    return [file(f"{i}.jpg") for i in range(number)]


def count(sessions: Sessions, table: type) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def events(sessions: Sessions, item: Item) -> list[str]:
    with sessions.begin() as session:
        return [e.event for e in ledger.of_item(session, item.id)]


def fail_all(sessions: Sessions) -> None:
    """As a worker would: every queued item becomes undetermined."""
    with sessions.begin() as session:
        session.execute(
            update(Item)
            .where(Item.verdict.is_(None))
            .values(verdict=Verdict.UNDETERMINED, reason="broken", judged_at=func.now())
        )
        session.execute(QueueEntry.__table__.delete())  # type: ignore[attr-defined]


def test_every_file_becomes_a_queued_item(sessions: Sessions, accept: Accept) -> None:
    status = batches.status(sessions, accept(*files(3)))
    assert (status.total, status.waiting, status.finished) == (3, 3, False)


def test_the_bytes_are_kept_under_their_digest(
    sessions: Sessions, storage: Storage, accept: Accept
) -> None:
    accept(file("a.jpg", b"the bytes"))
    with sessions.begin() as session:
        digest = session.scalars(select(StoredImage.digest)).one()
    assert digest is not None
    assert storage.get(digest) == b"the bytes"


def test_the_same_bytes_twice_are_one_image_and_two_items(
    sessions: Sessions, accept: Accept
) -> None:
    accept(file("a.jpg", b"same"), file("b.jpg", b"same"))
    assert (count(sessions, StoredImage), count(sessions, Item)) == (1, 2)


def test_an_unreadable_file_is_undetermined_with_its_reason(
    sessions: Sessions, accept: Accept
) -> None:
    batch = accept(UNREADABLE)
    (item,) = item_lists.items(sessions, batch)
    assert (item.verdict, item.reason) == (Verdict.UNDETERMINED, UNREADABLE.error)
    assert events(sessions, item) == ["submitted", "failed"]


def test_an_unreadable_file_is_counted_and_told(sessions: Sessions, accept: Accept) -> None:
    listening(sessions)
    (item,) = item_lists.items(sessions, accept(UNREADABLE))
    assert list(undetermined_by_day(sessions).values()) == [1]
    (told,) = told_to_platforms(sessions)
    assert (told.type, told.item_id) == ("item.undetermined", item.id)
    assert told.payload["reason"] == UNREADABLE.error


def test_a_batch_of_nothing_but_unreadable_files_is_finished(
    sessions: Sessions, accept: Accept
) -> None:
    assert batches.status(sessions, accept(UNREADABLE)).finished


def test_items_keep_the_order_and_names_of_the_files(sessions: Sessions, accept: Accept) -> None:
    batch = accept(file("b.jpg"), UNREADABLE, file("a.jpg"))
    sources = [item.source for item in item_lists.items(sessions, batch)]
    assert sources == ["b.jpg", "gone.jpg", "a.jpg"]


def test_it_knocks_only_when_the_items_are_there(sessions: Sessions, storage: Storage) -> None:
    seen: list[int] = []

    def notify_workers() -> None:
        seen.append(count(sessions, QueueEntry))

    submissions.accept(sessions, storage, notify_workers, files(2), POLICY)
    assert seen == [2]


def test_files_are_taken_as_they_come(sessions: Sessions, storage: Storage) -> None:
    queued_before: list[int] = []

    def stream() -> Iterator[Submission]:
        yield from files(CHUNK + 1)
        queued_before.append(count(sessions, QueueEntry))

    submissions.accept(sessions, storage, lambda: None, stream(), POLICY)
    assert queued_before == [CHUNK]


def test_what_was_accepted_before_a_failure_stays_queued(
    sessions: Sessions, storage: Storage
) -> None:
    def stream() -> Iterator[Submission]:
        yield from files(CHUNK)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        submissions.accept(sessions, storage, lambda: None, stream(), POLICY)
    assert count(sessions, QueueEntry) == CHUNK


def test_a_policy_is_stored_once(sessions: Sessions, accept: Accept) -> None:
    accept(file("a.jpg"))
    accept(file("b.jpg"))
    assert count(sessions, StoredPolicy) == 1


def test_a_policy_may_arrive_from_two_sides_at_once(sessions: Sessions, accept: Accept) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(accept, files(4)))
    assert (count(sessions, StoredPolicy), count(sessions, Item)) == (1, 4)


def test_an_unknown_batch_is_named(sessions: Sessions) -> None:
    batch = uuid.uuid4()
    with pytest.raises(UnknownBatch, match=str(batch)):
        batches.status(sessions, batch)


def test_cancelling_empties_the_queue(sessions: Sessions, accept: Accept) -> None:
    batch = accept(*files(3))
    assert batches.cancel(sessions, batch) == 3
    assert count(sessions, QueueEntry) == 0
    assert batches.status(sessions, batch).finished


def test_cancelling_leaves_other_batches_alone(sessions: Sessions, accept: Accept) -> None:
    accept(file("a.jpg"))
    batches.cancel(sessions, accept(file("b.jpg")))
    assert count(sessions, QueueEntry) == 1


def test_cancelling_is_written_down_for_every_item(sessions: Sessions, accept: Accept) -> None:
    batch = accept(file("a.jpg"))
    batches.cancel(sessions, batch)
    (item,) = item_lists.items(sessions, batch)
    assert events(sessions, item) == ["submitted", "cancelled"]


def test_a_batch_cancelled_while_it_arrives_queues_no_more(
    sessions: Sessions, storage: Storage
) -> None:
    def stream() -> Iterator[Submission]:
        yield from files(CHUNK)
        yield file("late.jpg")  # asked for once the first chunk is written
        batches.cancel(sessions, item_lists.items(sessions)[0].batch_id)

    submissions.accept(sessions, storage, lambda: None, stream(), POLICY)
    assert count(sessions, QueueEntry) == 0


def test_undetermined_items_are_queued_again(
    sessions: Sessions, accept: Accept, knocks: list[None]
) -> None:
    batch = accept(*files(2))
    fail_all(sessions)
    knocks.clear()
    assert retries.retry(sessions, lambda: knocks.append(None), batch) == 2
    assert (count(sessions, QueueEntry), len(knocks)) == (2, 1)


def test_a_retry_keeps_the_old_reason_in_the_ledger(sessions: Sessions, accept: Accept) -> None:
    batch = accept(file("a.jpg"))
    fail_all(sessions)
    retries.retry(sessions, lambda: None, batch)
    (item,) = item_lists.items(sessions, batch)
    with sessions.begin() as session:
        last = ledger.of_item(session, item.id)[-1]
    assert (last.event, last.details) == ("retried", {"reason": "broken"})


def test_a_file_without_bytes_cannot_be_retried(sessions: Sessions, accept: Accept) -> None:
    assert retries.retry(sessions, lambda: None, accept(UNREADABLE)) == 0


def test_a_cancelled_batch_is_not_retried(sessions: Sessions, accept: Accept) -> None:
    batch = accept(file("a.jpg"))
    fail_all(sessions)
    batches.cancel(sessions, batch)
    assert retries.retry(sessions, lambda: None, batch) == 0


def test_pages_follow_one_another_without_gaps(sessions: Sessions, accept: Accept) -> None:
    batch = accept(*files(5))
    pages, after = [], 0
    while page := item_lists.items(sessions, batch, after=after, limit=2):
        pages.append([item.source for item in page])
        after = page[-1].id
    assert pages == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"], ["4.jpg"]]


def test_a_list_may_be_narrowed_to_a_verdict(sessions: Sessions, accept: Accept) -> None:
    accept(file("a.jpg"), UNREADABLE)
    found = item_lists.items(sessions, verdict=Verdict.UNDETERMINED)
    assert [item.source for item in found] == ["gone.jpg"]


@pytest.mark.parametrize(
    ("size", "number", "most"), [(1, 120, submissions.TOGETHER), (3 * 2**20, 12, 8)]
)
def test_only_some_files_are_in_memory_and_fewer_large_ones(
    sessions: Sessions, storage: Storage, size: int, number: int, most: int
) -> None:
    kept: list[str] = []
    waiting: list[int] = []

    class Counting(Storage):
        def put(self, digest: str, data: bytes) -> None:
            kept.append(digest)

    def sent() -> Iterator[Submission]:
        for i in range(number):
            waiting.append(i + 1 - len(kept))
            yield Submission(f"{i}", i.to_bytes(2) * size)

    submissions.accept(sessions, Counting(storage.url), lambda: None, sent(), POLICY)
    assert max(waiting) == most
