"""What has no verdict says why: it waits, was erased, was cancelled, or is nowhere."""

import json
import uuid
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, select

from filter_service import retention, webhooks
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, QueueEntry
from filter_service.errors import StorageUnavailable
from filter_service.intake import item_lists, submissions
from filter_service.intake.batches import cancel, status
from filter_service.intake.item_lists import CHUNK
from filter_service.intake.submissions import Submission
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.command_line import Line, line, settings
from tests.support.review_cases import listening, told_to_platforms
from tests.support.simple_classifier import POLICY
from tests.support.web_clients import key_client, web_service

__all__ = ["line", "settings"]  # fixtures

STATES = ("waiting", "erased", "cancelled", "stranded")


def accept(sessions: Sessions, storage: Storage, name: str) -> uuid.UUID:
    files = [Submission(name, name.encode())]
    return submissions.accept(sessions, storage, lambda: None, files, POLICY)


@pytest.fixture
def batches(sessions: Sessions, storage: Storage) -> dict[str, uuid.UUID]:
    """A batch for each reason, with one item that is not judged for it."""
    found = {state: accept(sessions, storage, state) for state in STATES}
    (item,) = item_lists.items(sessions, found["erased"])
    retention.erase(sessions, storage, item.id, "asked for", "service")
    cancel(sessions, found["cancelled"])
    lost = select(Item.id).where(Item.batch_id == found["stranded"])
    with sessions.begin() as session:
        session.execute(delete(QueueEntry).where(QueueEntry.item_id.in_(lost)))
    return found


@pytest.fixture
def client(sessions: Sessions, storage: Storage) -> TestClient:
    return key_client(create_app(web_service(sessions, storage)), sessions)


@pytest.mark.parametrize("state", STATES)
def test_status_items_and_manifest_name_the_reason(
    batches: dict[str, uuid.UUID], client: TestClient, state: str
) -> None:
    address = f"/v1/batches/{batches[state]}"
    told = client.get(address).json()
    expected = dict.fromkeys(("clear", "flagged", "undetermined", *STATES), 0) | {state: 1}
    assert told["progress"] == expected
    assert told["finished"] is (state != "waiting")
    (item,) = client.get(f"{address}/items").json()["items"]
    assert (item["verdict"], item["unjudged"]) == (None, state)
    result = json.loads(client.get(f"{address}/manifest").text)
    assert result["detect-moderation-labels-metadata"]["verdict"] == state
    assert result["error"]["code"] == "NotJudged"


def test_the_end_of_every_batch_is_told_but_of_that_which_waits(
    sessions: Sessions, batches: dict[str, uuid.UUID]
) -> None:
    listening(sessions)
    assert webhooks.announce_finished(sessions) == len(STATES) - 1
    told = {e.payload["batch"]: e.payload["erased"] for e in told_to_platforms(sessions)}
    assert told == {str(batches[s]): int(s == "erased") for s in STATES if s != "waiting"}


def test_watching_a_batch_whose_item_was_erased_comes_to_an_end(
    line: Line, sessions: Sessions, storage: Storage
) -> None:
    batch = accept(sessions, storage, "portrait.jpg")
    (item,) = item_lists.items(sessions, batch)
    line("erase", str(item.id), "--reason", "asked for", "--yes")
    assert "0 waiting, 1 erased" in line("status", str(batch), "--watch")
    (row,) = line.rows("items", "--batch", str(batch))
    assert (row["verdict"], row["unjudged"]) == (None, "erased")
    assert "erased" in line("items", "--batch", str(batch))


class Full(Storage):
    """A disk on which so many files have room."""

    room = CHUNK + 1

    def put(self, digest: str, data: bytes) -> None:
        self.room -= 1
        if self.room < 0:
            raise StorageUnavailable("The disk is full.")
        super().put(digest, data)


def test_a_submission_that_fails_in_the_midst_is_closed_and_named(
    sessions: Sessions, storage: Storage
) -> None:
    files = (Submission(f"{i}", f"{i}".encode()) for i in range(2 * CHUNK))
    full = Full(storage.url)
    with pytest.raises(StorageUnavailable) as raised:
        submissions.accept(sessions, full, lambda: None, files, POLICY)
    with sessions.begin() as session:
        batch = session.scalars(select(Batch)).one()
    assert batch.total == CHUNK == status(sessions, batch.id).waiting
    assert [str(batch.id) in note for note in raised.value.__notes__] == [True]


def test_one_that_is_interrupted_is_closed_too(sessions: Sessions, storage: Storage) -> None:
    def files() -> Iterator[Submission]:
        yield Submission("1", b"1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submissions.accept(sessions, storage, lambda: None, files(), POLICY)
    with sessions.begin() as session:
        assert session.scalars(select(Batch.total)).one() is not None
