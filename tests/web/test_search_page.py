"""The search page: by words, by a file, by an item; blurred, written down, and never silent."""

import threading

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from filter_service.accounts import Role
from filter_service.db.query_encoder import QueryVector
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, LedgerEntry, ReviewOutcome
from filter_service.errors import ModelUnavailable, UnreadableImage
from filter_service.images import digest
from filter_service.ledger import Event
from filter_service.reviews.sightings import ITEMS
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from filter_service.web.console import search
from tests.support.explained_items import Pictured, coloured, encoder_of, noisy, stored
from tests.support.web_clients import NullSeeker, client_of, key_client, web_service

EAST, NEAR_EAST, NORTH = (1, 0, 0, 0), (0.9, 0.1, 0, 0), (0, 1, 0, 0)


class Compass(NullSeeker):
    """Words and files are directions; the model can be kept waiting, or broken."""

    def __init__(self, sessions: Sessions) -> None:
        self.encoder_id = encoder_of(sessions)
        self.loaded = threading.Event()
        self.loaded.set()
        self.broken = False

    def text(self, text: str) -> QueryVector:
        self.loaded.wait(30)
        if self.broken:
            raise ModelUnavailable("The weights cannot be downloaded: try again.")
        return self._towards(NORTH if text == "north" else EAST)

    def image(self, data: bytes) -> QueryVector:
        if data == b"no picture":
            raise UnreadableImage("The file begins with b'no pictu': submit an image.")
        return self._towards(EAST)

    def _towards(self, direction: tuple[float, ...]) -> QueryVector:
        return QueryVector(self.encoder_id, np.asarray(direction, dtype=np.float32), 20.0)


@pytest.fixture
def compass(sessions: Sessions) -> Compass:
    return Compass(sessions)


@pytest.fixture
def app(sessions: Sessions, storage: Storage, compass: Compass) -> FastAPI:
    return create_app(web_service(sessions, storage, seeker=compass))


@pytest.fixture
def browser(app: FastAPI, sessions: Sessions) -> TestClient:
    return client_of(app, sessions, Role.MODERATOR)


@pytest.fixture
def items(sessions: Sessions, storage: Storage) -> list[int]:
    return stored(
        sessions,
        storage,
        Pictured(noisy(0), vector=NEAR_EAST),
        Pictured(noisy(1), vector=EAST, class_name="knife"),
        Pictured(noisy(2), Verdict.CLEAR, vector=NORTH),
    )


def order(page: str, items: list[int]) -> list[int]:
    """Which of these items the page shows, in its order."""
    found = [(page.find(f'href="/items/{i}"'), i) for i in items]
    return [i for at, i in sorted(found) if at >= 0]


def searched(sessions: Sessions) -> list[dict[str, object]]:
    query = select(LedgerEntry).where(LedgerEntry.event == Event.SEARCHED).order_by(LedgerEntry.id)
    with sessions.begin() as session:
        return [{"actor": e.actor, **e.details} for e in session.scalars(query)]


def test_words_find_the_nearest_first_with_verdict_and_decision(
    browser: TestClient, sessions: Sessions, items: list[int]
) -> None:
    with sessions.begin() as session:
        image = session.scalar(select(Item.image_id).where(Item.id == items[0]))
        outcome = {"item_id": items[0], "image_id": image, "class_name": "gun", "sampled": False}
        session.execute(insert(ReviewOutcome).values(**outcome, decision="overturned"))
    page = browser.get("/search", params={"q": "east"}).text
    assert order(page, items) == [items[1], items[0], items[2]]
    assert "knife 90 %" in page and "overturned" in page and "clear</span>" in page
    assert f"/pictures/image/{digest(noisy(0))}/blurred" in page and "original" not in page


def test_a_file_finds_what_is_like_it(browser: TestClient, items: list[int]) -> None:
    answer = browser.post("/search", files={"image": ("a.png", noisy(5))})
    assert answer.status_code == 200 and "Like the image you sent" in answer.text
    assert order(answer.text, items)[0] == items[1]


def test_an_item_finds_its_like_without_any_model_and_not_itself(
    browser: TestClient, compass: Compass, items: list[int]
) -> None:
    compass.broken = True
    page = browser.get("/search", params={"like": items[1]}).text
    found = page[page.index("sightings") :]
    assert order(found, items) == [items[0], items[2]]


def test_every_search_is_in_the_ledger(
    browser: TestClient, sessions: Sessions, items: list[int]
) -> None:
    browser.get("/search", params={"q": "north"})
    browser.get("/search", params={"like": items[0], "limit": 48})
    browser.post("/search", files={"image": ("a.png", noisy(5))})
    browser.get("/search")
    who = {"actor": "person moderator"}
    assert searched(sessions) == [
        {**who, "words": "north", "limit": 24},
        {**who, "like": items[0], "limit": 48},
        {**who, "image": digest(noisy(5)), "limit": search.LIKE_A_FILE},
    ]


def test_images_of_closed_classes_are_left_out_and_counted(
    app: FastAPI, sessions: Sessions, items: list[int]
) -> None:
    closed = client_of(app, sessions, Role.MODERATOR, "guns", classes=("gun",))
    page = closed.get("/search", params={"q": "east"}).text
    assert order(page, items) == [items[0], items[2]]
    assert digest(noisy(1)) not in page and "1 near by is of classes" in page
    assert closed.get("/search", params={"like": items[1]}).status_code == 403


def test_more_is_shown_on_demand(
    browser: TestClient, items: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST", 3)
    page = browser.get("/search", params={"q": "east", "limit": 1}).text
    assert order(page, items) == [items[1]] and "limit=3" in page
    assert "limit=" not in browser.get("/search", params={"q": "east", "limit": 3}).text
    assert browser.get("/search", params={"q": "east", "limit": 1000}).status_code == 422


def test_one_image_sent_many_times_is_one_hit_with_its_newest_items(
    browser: TestClient, sessions: Sessions, storage: Storage
) -> None:
    same = stored(sessions, storage, *[Pictured(coloured(), vector=EAST)] * 5)
    page = browser.get("/search", params={"q": "east"}).text
    shown = {i for i in same if f">Item {i}</a>" in page}
    assert shown == set(same[-ITEMS:]) and page.count("similarity <b>") == 1


def test_while_the_model_is_loaded_the_page_says_so_and_asks_again(
    browser: TestClient, compass: Compass, items: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PATIENCE", 0.1)
    compass.loaded.clear()
    answer = browser.get("/search", params={"q": "east"})
    assert "model is being loaded" in answer.text and answer.headers["refresh"] == "2"
    sent = browser.post("/search", files={"image": ("a.png", noisy(5))})
    assert "once more in a moment" in sent.text and "refresh" not in sent.headers
    compass.loaded.set()
    assert order(browser.get("/search", params={"q": "east"}).text, items)


def test_a_model_that_cannot_be_had_is_a_sentence_and_is_tried_again(
    browser: TestClient, compass: Compass, items: list[int]
) -> None:
    compass.broken = True
    answer = browser.get("/search", params={"q": "east"})
    assert answer.status_code == 503 and "The model cannot be loaded" in answer.text
    compass.broken = False
    assert browser.get("/search", params={"q": "east"}).status_code == 200


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [(b"no picture", 422, "submit an image"), (b"", 422, "No image was chosen")],
)
def test_a_file_that_is_no_image_is_refused_with_a_sentence(
    browser: TestClient, data: bytes, status: int, said: str
) -> None:
    headers = {"Accept": "text/html"}
    answer = browser.post("/search", files={"image": ("a.png", data)}, headers=headers)
    assert answer.status_code == status and said in answer.text


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    sessions: Sessions, storage: Storage, compass: Compass
) -> None:
    app = create_app(web_service(sessions, storage, seeker=compass, max_bytes=1000))
    browser = client_of(app, sessions, Role.MODERATOR)
    assert browser.post("/search", files={"image": ("a.png", bytes(90_000))}).status_code == 413


def test_words_are_written_as_they_are(browser: TestClient, items: list[int]) -> None:
    page = browser.get("/search", params={"q": '<script>"a'}).text
    assert "<script>" not in page.replace('<script src="', "") and "&lt;script&gt;" in page


def test_the_page_is_for_people_who_are_signed_in(app: FastAPI, sessions: Sessions) -> None:
    assert TestClient(app).get("/search").status_code == 401
    assert key_client(app, sessions).get("/search").status_code == 403
