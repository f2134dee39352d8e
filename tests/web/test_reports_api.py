"""Reports over HTTP and on pages: submitted with pictures, made later, seen by those concerned."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.furnished import furnished
from tests.support.two_clients import World, document, items, picture, submit, world
from tests.support.web_clients import client_of, key_client, web_service

__all__ = ["world"]  # the fixture

FLAGGED, CLEAR, UNDETERMINED = 1, 2, 3  # items of the furnished batch
SAID = {"source": "user", "reason": "It offers a gun for sale.", "class_name": "gun"}


@pytest.fixture
def platform(sessions: Sessions, storage: Storage) -> TestClient:
    app, _ = furnished(sessions, storage)
    return key_client(app, sessions)


def made(client: TestClient, item: int, **said: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/items/{item}/reports", json=SAID | said)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/reports/{answer.json()['id']}"
    return answer.json()  # type: ignore[no-any-return]


def test_a_report_is_read_where_it_was_made(platform: TestClient) -> None:
    report = made(platform, CLEAR, reference="4711")
    assert (report["closed_at"], report["final"]) == (None, None)
    assert platform.get(f"/v1/reports/{report['id']}").json() == report
    assert platform.get(f"/v1/items/{CLEAR}/reports").json() == {"reports": [report]}
    assert made(platform, CLEAR, reference="4711") == report


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"source": "neighbour"}, "'user', 'trusted_flagger', 'authority' or 'own'"),
        ({"reason": " "}, "#/body/reason"),
        ({"class_name": "sword"}, "'sword' is no class that can be reported under policy"),
        ({"reporter": "me"}, "reporter"),
        ({"reference": ""}, "#/body/reference"),
    ],
)
def test_a_report_that_is_wrong_is_refused_with_a_sentence(
    platform: TestClient, said: dict[str, Any], sentence: str
) -> None:
    answer = platform.post(f"/v1/items/{CLEAR}/reports", json=SAID | said)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


def test_what_cannot_be_looked_at_is_refused(platform: TestClient) -> None:
    answer = platform.post(f"/v1/items/{UNDETERMINED}/reports", json=SAID)
    assert answer.status_code == 422
    assert "is undetermined (gone)" in answer.json()["detail"]


def test_reports_come_with_files_and_are_followed_when_these_are_judged(world: World) -> None:
    files = [("files", (f"{n}.png", picture(n))) for n in (1, 2)]
    told = {"1.png": {"source": "trusted_flagger", "reason": "A gun.", "reference": "77"}}
    form = {"policy": document(), "reports": json.dumps(told)}
    batch = world.a.post("/v1/batches", files=files, data=form).json()["batch"]
    first, second = (i["id"] for i in items(world.a, batch))
    [report] = world.a.get(f"/v1/items/{first}/reports").json()["reports"]
    assert (report["source"], report["reference"]) == ("trusted_flagger", "77")
    assert world.a.get(f"/v1/items/{second}/reports").json() == {"reports": []}
    world.work()
    page = client_of(world.app, world.sessions, Role.MODERATOR).get("/queue").text
    assert page.count('class="chip sampled">reported<') == 1


def strict_platform(sessions: Sessions, storage: Storage, cap: int) -> TestClient:
    """One that may report so many pictures in an hour."""
    service = web_service(sessions, storage, fetch_hosts=("a.example",), reports_per_hour=cap)
    return key_client(create_app(service), sessions)


def test_reports_come_with_the_lines_of_a_manifest(sessions: Sessions, storage: Storage) -> None:
    platform = strict_platform(sessions, storage, 3)
    reported = {"source-ref": "https://a.example/1.jpg", "report": SAID | {"class_name": None}}
    wrong = {"source-ref": "https://a.example/2.jpg", "report": {"source": "user"}}
    unknown = {"source-ref": "https://a.example/3.jpg", "report": SAID | {"class_name": "sword"}}
    body = "\n".join(map(json.dumps, (reported, wrong, unknown)))
    submit(platform)
    name = platform.get("/v1/batches").json()["batches"][0]["policy"]["name"]
    batch = platform.post(
        f"/v1/batches?policy={name}",
        content=body,
        headers={"Content-Type": "application/jsonl"},
    ).json()["batch"]
    found = items(platform, batch)
    assert "report.reason: Field required" in found[1]["reason"]
    assert "'sword' is no class that can be reported" in found[2]["reason"]
    assert len(platform.get(f"/v1/items/{found[0]['id']}/reports").json()["reports"]) == 1


def test_a_report_of_what_is_not_sent_is_refused(world: World) -> None:
    form = {"policy": document(), "reports": json.dumps({"2.png": SAID})}
    files = [("files", ("1.png", picture(1)))]
    answer = world.a.post("/v1/batches", files=files, data=form)
    assert answer.status_code == 422
    assert "is of '2.png', which is not sent with it" in answer.json()["detail"]
    answer = world.a.post("/v1/batches", files=files, data=form | {"reports": "{"})
    assert "is not JSON" in answer.json()["detail"]


def test_an_hour_has_room_for_so_many_reports_of_a_key(
    sessions: Sessions, storage: Storage
) -> None:
    platform = strict_platform(sessions, storage, 1)
    told = {f"{n}.png": {"source": "user", "reason": "Look."} for n in (1, 2)}
    files = [("files", (f"{n}.png", picture(n))) for n in (1, 2)]
    form = {"policy": document(), "reports": json.dumps(told)}
    answer = platform.post("/v1/batches", files=files, data=form)
    assert answer.status_code == 429
    assert "may report 1 pictures in an hour" in answer.json()["detail"]


def test_a_moderator_reports_from_any_items_page(sessions: Sessions, storage: Storage) -> None:
    app, _ = furnished(sessions, storage)
    moderator = client_of(app, sessions, Role.MODERATOR)
    assert "Report this picture" in moderator.get(f"/items/{CLEAR}").text
    form = {"source": "own", "reason": "Seen on the way home.", "class_name": "gun"}
    answer = moderator.post(f"/items/{CLEAR}/reports", data=form, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    page = moderator.get(f"/items/{CLEAR}").text
    assert "Reported: the model called it clear" in page
    assert "Seen on the way home." in page
    record = client_of(app, sessions, Role.AUDITOR).get(f"/items/{CLEAR}/record").text
    assert "Seen on the way home." in record
    assert "reported it, as something that its own people found, for gun" in record


def test_who_may_not_see_a_class_learns_nothing_of_its_reports(
    sessions: Sessions, storage: Storage
) -> None:
    app, _ = furnished(sessions, storage)
    made(key_client(app, sessions), CLEAR)
    other = client_of(app, sessions, Role.MODERATOR, "other", classes=("knife",))
    answer = other.get(f"/items/{CLEAR}")
    assert answer.status_code == 403
    assert SAID["reason"] not in answer.text
