"""Labels and slices in the console: counted, filtered, and for those only who may see them."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert

from filter_service.accounts import Role
from filter_service.calibration import labels as stored
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.session import Sessions
from filter_service.db.tables import Client, Item, ItemAttribute
from filter_service.storage import Storage
from filter_service.web.app import create_app
from filter_service.web.console import label_pages
from tests.support.review_cases import Wanted, cases_of
from tests.support.web_clients import client_of, web_service


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


@pytest.fixture
def browser(app: FastAPI, sessions: Sessions) -> TestClient:
    return client_of(app, sessions, Role.POLICY_EDITOR)


def labelled(sessions: Sessions) -> list[int]:
    """Three items with labels: a reviewed gun, an uploaded gun, a knife on appeal; -> items."""
    items = cases_of(sessions, [Wanted("gun"), Wanted("gun"), Wanted("knife")])
    with sessions.begin() as session:
        images = [session.get_one(Item, i).image_id or 0 for i in items]
        stored.keep(
            session,
            [
                ClassLabel(images[0], "gun", True, LabelSource.FLAG, 0.05, items[0]),
                ClassLabel(images[1], "gun", False, LabelSource.UPLOAD),
                ClassLabel(images[2], "knife", False, LabelSource.APPEAL, None, items[2]),
            ],
        )
    return items


def test_labels_are_listed_with_how_they_came_to_be_known(
    browser: TestClient, sessions: Sessions
) -> None:
    items = labelled(sessions)
    with sessions.begin() as session:
        image = session.get_one(Item, items[1]).image_id or 0
        for source in LabelSource:
            stored.keep(session, [ClassLabel(image, f"by-{source}", True, source)])
    page = browser.get("/accuracy/labels").text
    assert all(f"/items/{item}" in page for item in items)
    by = ("a reviewed flag", "an upload", "an appeal", "a report", "a drawn clear item")
    for said in (*by, "0.05", "does not show it"):
        assert said in page


@pytest.mark.parametrize(
    ("asked", "shown"),
    [({"class": "knife"}, [2]), ({"source": "upload"}, [1]), ({"client": "other"}, [0])],
)
def test_labels_are_filtered(
    browser: TestClient, sessions: Sessions, asked: dict[str, str], shown: list[int]
) -> None:
    items = labelled(sessions)
    with sessions.begin() as session:
        other = Client(name="other", created_by="x")
        session.add(other)
        session.flush()
        session.get_one(Item, items[0]).client_id = other.id
    page = browser.get("/accuracy/labels", params=asked).text
    assert [i for i, item in enumerate(items) if f'/items/{item}"' in page] == shown


def test_every_label_stands_on_one_page(
    browser: TestClient, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of one upload have one time, and an image may have several."""
    monkeypatch.setattr(label_pages, "ROWS", 2)
    items = labelled(sessions)
    with sessions.begin() as session:
        image = session.get_one(Item, items[0]).image_id or 0
        stored.keep(session, [ClassLabel(image, "knife", True, LabelSource.UPLOAD)])
    seen, address = 0, "/accuracy/labels"
    while address:
        page = browser.get(address).text
        seen += page.count('data-name="truth"')
        after = page.partition('rel="next" href="')[2].partition('"')[0]
        address = after.replace("&amp;", "&")
    assert seen == 4


@pytest.mark.parametrize("asked", [{"source": "rumour"}, {"after": "WzFd"}, {"client": "nobody"}])
def test_what_is_no_filter_is_said(browser: TestClient, asked: dict[str, str]) -> None:
    assert browser.get("/accuracy/labels", params=asked).status_code in (404, 422)


def test_slices_show_shares_with_their_intervals(browser: TestClient, sessions: Sessions) -> None:
    items = labelled(sessions)
    with sessions.begin() as session:
        rows = [
            {"item_id": item, "name": "region", "value": value}
            for item, value in zip(items, ("north", "south", "south"), strict=True)
        ]
        session.execute(insert(ItemAttribute), rows)
    page = browser.get("/accuracy/slices", params={"by": "region"}).text
    assert "By region" in page and "north" in page and "of 2" in page
    found = browser.get("/accuracy/slices.json", params={"by": "region"}).json()
    assert {s["value"]: s["flagged"]["of"] for s in found["slices"]} == {"north": 1, "south": 2}


def test_what_makes_no_slices_is_said_on_the_page(browser: TestClient) -> None:
    answer = browser.get("/accuracy/slices", params={"prompts": "a drawing"})
    assert answer.status_code == 422
    assert "1 different prompts make no slices" in answer.text
    both = browser.get("/accuracy/slices", params={"prompts": "a\nb", "by": "region"})
    assert "one of the two" in both.text


@pytest.mark.parametrize("address", ["/accuracy/labels", "/accuracy/slices"])
@pytest.mark.parametrize(
    ("role", "status"), [(Role.AUDITOR, 200), (Role.MODERATOR, 403), (Role.SENIOR, 403)]
)
def test_they_are_for_editors_and_auditors(
    app: FastAPI, sessions: Sessions, address: str, role: Role, status: int
) -> None:
    assert client_of(app, sessions, role).get(address).status_code == status


def test_classes_that_somebody_may_not_see_are_not_there(app: FastAPI, sessions: Sessions) -> None:
    labelled(sessions)
    page = client_of(app, sessions, Role.AUDITOR, classes=("knife",)).get("/accuracy/labels").text
    assert "knife" in page and "gun" not in page
