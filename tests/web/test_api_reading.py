"""What a platform reads over HTTP: explanations and their pictures, search, appeals."""

import io
from collections.abc import Callable
from datetime import UTC, datetime

import PIL.Image
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from filter_service import accounts
from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, LedgerEntry, Restriction, StoredImage
from filter_service.images import digest
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.bad_files import encoded, still
from tests.support.explained_items import Pictured, noisy, stored
from tests.support.explanation_records import record
from tests.support.furnished import furnished
from tests.support.proofs import FAILED
from tests.support.web_clients import client_of, key_client, somebody

UNFAITHFUL = record(proof=FAILED)


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return furnished(sessions, storage)[0]


@pytest.fixture
def client(app: FastAPI, sessions: Sessions) -> TestClient:
    return key_client(app, sessions)


def test_an_item_has_its_records(client: TestClient) -> None:
    (found,) = client.get("/v1/items/1/explanations").json()
    assert (found["class_name"], found["faithful"]) == ("gun", True)
    # It names an image of which this client has no item.
    assert found["record"] == record().model_dump(mode="json") | {"images": []}


@pytest.mark.parametrize("kind", ["card", "overlay"])
def test_a_record_is_drawn(client: TestClient, sessions: Sessions, kind: str) -> None:
    answer = client.get(f"/v1/items/1/explanations/gun/{kind}")
    assert answer.headers["content-type"] == "image/png"
    assert PIL.Image.open(io.BytesIO(answer.content)).width >= 320
    with sessions.begin() as session:
        looks = session.scalars(select(LedgerEntry.actor).where(LedgerEntry.event == "revealed"))
        assert list(looks) == ["key platform"]


@pytest.fixture
def pair(sessions: Sessions, storage: Storage) -> tuple[int, int]:
    """A flagged item, and one whose image is its nearest counterfactual."""
    near = record().images[0].model_copy(update={"digest": digest(noisy(8))})
    told = record(images=(near,))
    flagged, clear = stored(
        sessions,
        storage,
        Pictured(noisy(7), records={"gun": told}),
        Pictured(noisy(8), verdict=Verdict.CLEAR),
    )
    return flagged, clear


def seen_on_card(client: TestClient, sessions: Sessions, item: int) -> list[tuple[int, object]]:
    """Whose pictures a platform is sent with a card, and beside which item."""
    assert client.get(f"/v1/items/{item}/explanations/gun/card").status_code == 200
    looks = select(LedgerEntry).where(LedgerEntry.event == "revealed").order_by(LedgerEntry.id)
    with sessions.begin() as session:
        return [(e.item_id or 0, e.details.get("beside")) for e in session.scalars(looks)]


def test_a_card_shows_a_neighbour_and_says_so(
    client: TestClient, sessions: Sessions, pair: tuple[int, int]
) -> None:
    flagged, clear = pair
    assert seen_on_card(client, sessions, flagged) == [(flagged, None), (clear, flagged)]


@pytest.mark.parametrize("closed", ["sealed", "gone"])
def test_a_card_shows_no_neighbour_that_is_closed(
    client: TestClient,
    sessions: Sessions,
    pair: tuple[int, int],
    closed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flagged, clear = pair
    with sessions.begin() as session:
        image = session.get_one(StoredImage, session.get_one(Item, clear).image_id)
        if closed == "sealed":
            days = {"sealed_at": datetime.now(UTC), "preserve_until": datetime.now(UTC)}
            session.add(Restriction(item_id=clear, image_id=image.id, class_name="gun", **days))
        else:
            image.bytes_gone_at = datetime.now(UTC)  # its bytes outlive that by a moment
    read: list[str] = []
    get = Storage.get

    def noted(storage: Storage, name: str) -> bytes:
        read.append(name)
        return get(storage, name)

    monkeypatch.setattr(Storage, "get", noted)
    assert seen_on_card(client, sessions, flagged) == [(flagged, None)]
    assert read == [digest(noisy(7))]


@pytest.mark.parametrize("kind", ["card", "overlay"])
def test_a_picture_shows_no_class_that_is_closed(
    app: FastAPI, sessions: Sessions, storage: Storage, kind: str
) -> None:
    both = {"gun": record(), "knife": record()}
    (item,) = stored(sessions, storage, Pictured(noisy(6), records=both))
    client = client_of(app, sessions, Role.MODERATOR, classes=("gun",))
    accounts.reveal(sessions, somebody(sessions, Role.MODERATOR), item, "gun", None)
    answer = client.get(f"/v1/items/{item}/explanations/gun/{kind}")
    assert answer.status_code == 403
    assert "shows knife, too" in answer.json()["detail"]


def test_a_map_that_failed_its_test_is_not_drawn(
    client: TestClient, sessions: Sessions, storage: Storage
) -> None:
    (item,) = stored(sessions, storage, Pictured(noisy(5), records={"gun": UNFAITHFUL}))
    answer = client.get(f"/v1/items/{item}/explanations/gun/overlay")
    assert answer.status_code == 404
    assert "no better than chance" in answer.json()["detail"]
    assert client.get(f"/v1/items/{item}/explanations/gun/card").status_code == 200


@pytest.mark.parametrize("kind", ["card", "overlay"])
def test_a_person_reveals_before_a_picture_is_sent(
    app: FastAPI, sessions: Sessions, kind: str
) -> None:
    client, address = (
        client_of(app, sessions, Role.MODERATOR),
        f"/v1/items/1/explanations/gun/{kind}",
    )
    assert client.get(address).status_code == 403
    accounts.reveal(sessions, somebody(sessions, Role.MODERATOR), 1, "gun", None)
    assert client.get(address).status_code == 200


def by_text(client: TestClient) -> list[str]:
    return [i["digest"] for i in client.get("/v1/search?text=a+gun").json()["images"]]


def by_image(client: TestClient) -> list[str]:
    files = {"image": ("a.png", encoded(still(), "png"))}
    return [i["digest"] for i in client.post("/v1/search", files=files).json()["images"]]


@pytest.mark.parametrize("search", [by_text, by_image])
def test_search_gives_the_nearest_images_first(
    client: TestClient, search: Callable[[TestClient], list[str]]
) -> None:
    digests = [client.get(f"/v1/items/{n}").json()["digest"] for n in (1, 2)]
    assert search(client) == digests


def test_search_leaves_out_what_a_person_may_not_see(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.MODERATOR, classes=("knife",))
    found = client.get("/v1/search?text=a+gun").json()["images"]
    assert [i["items"][0]["id"] for i in found] == [2]


def test_search_is_in_the_ledger(client: TestClient, sessions: Sessions) -> None:
    client.get("/v1/search?text=a+gun")
    with sessions.begin() as session:
        entry = session.scalars(select(LedgerEntry).where(LedgerEntry.event == "searched")).one()
    assert (entry.actor, entry.details) == ("key platform", {"text": "a gun"})


def test_an_image_to_search_by_has_a_limit(client: TestClient) -> None:
    kind = {"Content-Type": "image/png"}
    assert client.post("/v1/search", content=bytes(33 * 2**20), headers=kind).status_code == 413


def test_an_appeal_is_opened_once_and_can_be_followed(client: TestClient) -> None:
    said = {"statement": "It is a toy."}
    opened = client.post("/v1/items/1/appeals", json=said)
    assert opened.status_code == 201
    assert client.get(opened.headers["Location"]).json() == opened.json()
    assert client.get("/v1/items/1/appeals").json() == {"appeals": [opened.json()]}
    assert client.post("/v1/items/1/appeals", json=said).status_code == 409


@pytest.mark.parametrize("statement", ["", "  ", "a\0b", "x" * 5001])
def test_an_appeal_says_something(client: TestClient, statement: str) -> None:
    answer = client.post("/v1/items/1/appeals", json={"statement": statement})
    assert answer.status_code == 422


def test_moderators_open_no_appeals(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.MODERATOR)
    assert client.post("/v1/items/1/appeals", json={"statement": "x"}).status_code == 403
