"""A client erases its own, and is not told whether others have the same picture."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from filter_service import ledger, retention
from filter_service.accounts import Role
from filter_service.db.tables import Item, ReviewOutcome, StoredImage
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import signer_of
from filter_service.ledger.verification import verify
from filter_service.settings import Settings
from tests.support.two_clients import World, items, picture, submit, world
from tests.support.web_clients import client_of

__all__ = ["world"]  # the fixture

SHARED, ALONE = picture(1), picture(2)
NUMBER = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.+Z]+|[0-9a-f-]{36}|\d+")


def erase(client: TestClient, item: int) -> str:
    answer = client.delete(f"/v1/items/{item}")
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


@pytest.fixture
def both(world: World) -> tuple[int, int, int]:
    """A's picture that B has, too, A's own one, and B's item of the first."""
    theirs = submit(world.b, SHARED)["batch"]
    mine = submit(world.a, SHARED, ALONE)["batch"]
    world.work()
    shared, alone = (i["id"] for i in items(world.a, mine))
    return shared, alone, items(world.b, theirs)[0]["id"]


def told(client: TestClient, item: int, receipt: str) -> list[str]:
    """Everything that a client can ask about an item that it erased, without the numbers."""
    paths = (receipt, f"/v1/items/{item}", f"/v1/items/{item}/explanations")
    answers = [client.get(path) for path in paths]
    return [NUMBER.sub("#", f"{a.status_code} {a.text}") for a in answers]


def test_nothing_tells_whether_others_have_the_picture(
    world: World, both: tuple[int, int, int]
) -> None:
    shared, alone, _ = both
    receipts = {item: erase(world.a, item) for item in (shared, alone)}
    before = [told(world.a, item, receipt) for item, receipt in receipts.items()]
    assert retention.sweep(world.sessions, world.storage) == 1
    after = [told(world.a, item, receipt) for item, receipt in receipts.items()]
    assert before[0] == before[1] != after[0] == after[1]
    assert [world.a.get(r).json()["bytes"] for r in receipts.values()] == [
        "erased for this client"
    ] * 2
    assert erase(world.a, shared) == receipts[shared]


def test_the_others_item_stays_as_it_was(world: World, both: tuple[int, int, int]) -> None:
    shared, _, theirs = both
    paths = [f"/v1/items/{theirs}{rest}" for rest in ("", "/explanations")]
    before = [world.b.get(path).text for path in paths]
    erase(world.a, shared)
    retention.sweep(world.sessions, world.storage)
    assert [world.b.get(path).text for path in paths] == before
    digest = world.b.get(paths[0]).json()["digest"]
    assert world.storage.get(digest) == SHARED
    found = {
        name: [hit["digest"] for hit in client.get("/v1/search?text=any").json()["images"]]
        for name, client in (("a", world.a), ("b", world.b))
    }
    assert digest in found["b"] and digest not in found["a"]


def test_the_bytes_go_with_the_last_client(world: World, both: tuple[int, int, int]) -> None:
    shared, _, theirs = both
    digest = world.b.get(f"/v1/items/{theirs}").json()["digest"]
    erase(world.a, shared)
    retention.sweep(world.sessions, world.storage)
    last = erase(world.b, theirs)
    assert retention.sweep(world.sessions, world.storage) == 1
    assert not world.storage.has(digest)
    assert world.b.get(last).json()["items"] == [theirs]


def test_the_ledger_holds_and_only_its_own_payloads_are_gone(
    world: World, both: tuple[int, int, int], tmp_path: Path
) -> None:
    shared, _, theirs = both
    address = erase(world.a, shared)
    signer = signer_of(world.sessions, Settings.load(data_dir=tmp_path))
    while seal(world.sessions, signer) is not None:
        pass
    receipt = world.a.get(address).json()
    report = verify(world.sessions)
    assert (report.faults, report.erased) == ((), len(receipt["blanked"]))
    with world.sessions.begin() as session:
        kept, gone = (ledger.of_item(session, i) for i in (theirs, shared))
        assert all(entry.details is not None for entry in kept)
        assert [e.id for e in gone if e.details is None] == receipt["blanked"] != []
    assert [m["item"] for m in receipt["mentions"]] == [shared]


def test_the_operator_erases_for_all_and_each_client_reads_of_its_own(
    world: World, both: tuple[int, int, int]
) -> None:
    shared, _, theirs = both
    admin = client_of(world.app, world.sessions, Role.ADMIN)
    address = erase(admin, shared)
    retention.sweep(world.sessions, world.storage)
    whole = admin.get(address).json()
    assert whole["items"] == sorted([shared, theirs]) and whole["bytes"] == "deleted"
    for client, item in ((world.a, shared), (world.b, theirs)):
        assert erase(client, item) == address
        own = client.get(address).json()
        assert (own["item"], own["items"], own["image"]) == (item, [item], None)
        assert {m["item"] for m in own["mentions"]} == {item}
        assert own["removed"] == {
            "payloads of ledger entries": len(own["blanked"]),
            "file names": 1,
        }
        with world.sessions.begin() as session:
            blank = {e.id for e in ledger.of_item(session, item) if e.details is None}
        assert set(own["blanked"]) == blank
    assert world.b.get(address).json()["requested_by"] == "the operator"
    assert world.key("c").get(address).status_code == 404


def test_a_hold_on_anothers_item_keeps_the_picture_and_names_nobody(
    world: World, both: tuple[int, int, int]
) -> None:
    shared, _, theirs = both
    retention.hold(world.sessions, theirs, "a court", "person admin")
    answer = world.a.delete(f"/v1/items/{shared}")
    assert answer.status_code == 409
    assert f"Item {shared} is under a legal hold" in answer.json()["detail"]
    assert str(theirs) not in answer.json()["detail"].split()


def test_what_is_submitted_again_after_it_is_a_new_item_of_the_same_picture(
    world: World, both: tuple[int, int, int]
) -> None:
    shared, _, theirs = both
    first = erase(world.a, shared)
    (again,) = items(world.a, submit(world.a, SHARED)["batch"])
    with world.sessions.begin() as session:
        images = {i: session.get_one(Item, i).image_id for i in (shared, theirs, again["id"])}
        assert session.get_one(StoredImage, images[shared]).digest is None
    assert images[again["id"]] == images[theirs] != images[shared]
    world.work()
    assert erase(world.a, again["id"]) != first
    assert world.b.get(f"/v1/items/{theirs}").json()["verdict"] == "flagged"


def test_what_was_decided_of_the_erased_item_speaks_of_the_others_no_more(
    world: World, both: tuple[int, int, int]
) -> None:
    shared, _, theirs = both
    with world.sessions.begin() as session:
        image = session.get_one(Item, shared).image_id
        told = {"class_name": "knife", "decision": "overturned", "sampled": False}
        session.add_all(ReviewOutcome(item_id=i, image_id=image, **told) for i in (shared, theirs))
    erase(world.a, shared)
    outcomes = select(ReviewOutcome.item_id).where(ReviewOutcome.image_id == image)
    with world.sessions.begin() as session:
        assert session.scalars(outcomes).all() == [theirs]
