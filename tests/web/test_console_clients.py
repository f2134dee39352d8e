"""The console's lists say whose everything is, and can be narrowed to one client."""

import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, ReviewCase
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from tests.support.two_clients import World, hook, items, picture, submit, world
from tests.support.web_clients import client_of, web_service

__all__ = ["world"]  # the fixture


@pytest.fixture
def theirs(world: World) -> dict[str, list[int]]:
    """Two flagged items of each client, one picture in common."""
    batches = {
        "a": (world.a, submit(world.a, picture(1), picture(2))["batch"]),
        "b": (world.b, submit(world.b, picture(2), picture(3))["batch"]),
    }
    world.work()
    return {name: [i["id"] for i in items(c, batch)] for name, (c, batch) in batches.items()}


@pytest.fixture
def senior(world: World) -> TestClient:
    return client_of(world.app, world.sessions, Role.SENIOR)


def linked(page: str) -> dict[int, str]:
    """The items that a page leads to, each with the query of its link."""
    found = re.findall(r'href="/items/(\d+)(?:\?([^"]*))?"', page)
    return {int(item): query for item, query in found}


def test_the_queue_of_a_client_holds_its_cases_and_its_links_keep_to_it(
    world: World, theirs: dict[str, list[int]], senior: TestClient
) -> None:
    assert set(linked(senior.get("/queue").text)) == {*theirs["a"], *theirs["b"]}
    page = senior.get("/queue", params={"client": "b"}).text
    assert linked(page) == dict.fromkeys(theirs["b"], "client=b")
    assert 'data-name="client">b</td>' in page and 'data-name="client">a</td>' not in page
    began = senior.post("/queue/next", data={"queue": "client=b"}, follow_redirects=False)
    item, _, query = began.headers["location"].removeprefix("/items/").partition("?")
    assert int(item) in theirs["b"] and query == "client=b"


def test_an_items_page_says_whose_it_is(world: World, senior: TestClient) -> None:
    (item,) = items(world.b, submit(world.b)["batch"])
    assert "client b" in senior.get(f"/items/{item['id']}").text


def test_undetermined_items_of_a_client_are_shown_and_tried_again_by_themselves(
    world: World, theirs: dict[str, list[int]], senior: TestClient
) -> None:
    with world.sessions.begin() as session:
        session.execute(update(Item).values(verdict=Verdict.UNDETERMINED, reason="broken"))
    assert set(linked(senior.get("/undetermined").text)) == {*theirs["a"], *theirs["b"]}
    page = senior.get("/undetermined", params={"client": "a"}).text
    assert set(linked(page)) == set(theirs["a"])
    sent = {"item": theirs["a"], "client": "a"}
    after = senior.post("/undetermined/retry", data=sent, follow_redirects=False)
    assert after.headers["location"] == "/undetermined?retried=2&client=a"


def test_search_of_a_client_finds_its_pictures_and_goes_on_with_them(
    world: World, theirs: dict[str, list[int]], senior: TestClient
) -> None:
    like = theirs["a"][0]
    everybody = senior.get("/search", params={"like": like}).text
    assert set(linked(everybody)) == {*theirs["a"], *theirs["b"]}
    page = senior.get("/search", params={"like": like, "client": "b"}).text
    assert set(linked(page)) == {like, *theirs["b"]}
    assert f"/search?like={theirs['b'][0]}&amp;client=b" in page


@pytest.mark.parametrize("path", ["/queue", "/undetermined", "/search?like=1"])
def test_a_client_that_there_is_not_is_named(
    world: World, theirs: dict[str, list[int]], senior: TestClient, path: str
) -> None:
    answer = senior.get(path, params={"like": theirs["a"][0], "client": "shpo"})
    assert answer.status_code == 404
    assert "no client" in answer.text and "shpo" in answer.text


def test_webhooks_say_whose_they_are(world: World) -> None:
    hook(world.a)
    hook(world.key("ours", all_clients=True))
    page = client_of(world.app, world.sessions, Role.ADMIN).get("/webhooks").text
    for whose in ("a", "every client"):
        assert f"every event but item.clear of {whose};" in page


def test_where_there_is_one_client_no_list_asks_for_it(
    sessions: Sessions, storage: Storage
) -> None:
    browser = client_of(create_app(web_service(sessions, storage)), sessions, Role.SENIOR)
    for path in ("/queue", "/undetermined"):
        assert 'name="client"' not in browser.get(path).text.replace('type="hidden" ', "")


def test_a_case_is_its_items_clients(world: World, theirs: dict[str, list[int]]) -> None:
    own = select(ReviewCase.client_id, Item.client_id).join(Item, Item.id == ReviewCase.item_id)
    with world.sessions.begin() as session:
        rows = session.execute(own).all()
    assert len(rows) == 4 and all(case == item != 1 for case, item in rows)
