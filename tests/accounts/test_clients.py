"""What belongs to one client is nobody else's: not to read, not to change, not to find."""

import uuid

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from filter_service.db import vectors
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Client, Delivery, Item, LedgerEntry
from filter_service.images import digest
from filter_service.policy import Policy
from filter_service.rollout import active_policy
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from tests.support.explained_items import Pictured, noisy, stored
from tests.support.explanation_records import record
from tests.support.simple_classifier import POLICY
from tests.support.two_clients import (
    GOOD,
    World,
    document,
    hook,
    items,
    picture,
    submit,
    world,
)
from tests.support.web_clients import key_client, web_service

__all__ = ["world"]  # the fixture


def same_as_nothing(client: TestClient, method: str, path: str, here: str, absent: str) -> None:
    """A thing of somebody else answers as one that there is not, to the letter."""
    own, none = (client.request(method, path.format(name)) for name in (here, absent))
    assert own.status_code == none.status_code == 404
    assert own.text.replace(here, "X") == none.text.replace(absent, "X")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/batches/{}"),
        ("POST", "/v1/batches/{}/cancel"),
        ("POST", "/v1/batches/{}/retry"),
        ("GET", "/v1/batches/{}/items"),
        ("GET", "/v1/batches/{}/manifest"),
    ],
)
def test_a_batch_is_not_there_for_others(world: World, method: str, path: str) -> None:
    batch = submit(world.a)["batch"]
    same_as_nothing(world.b, method, path, batch, str(uuid.uuid4()))
    assert world.a.get(f"/v1/batches/{batch}").json()["cancelled_at"] is None


def test_batches_of_others_are_not_listed(world: World) -> None:
    theirs, mine = submit(world.a)["batch"], submit(world.b)["batch"]
    assert [b["id"] for b in world.b.get("/v1/batches").json()["batches"]] == [mine]
    assert [b["id"] for b in world.a.get("/v1/batches").json()["batches"]] == [theirs]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/items/{}"),
        ("DELETE", "/v1/items/{}"),
        ("GET", "/v1/items/{}/explanations"),
        ("GET", "/v1/items/{}/explanations/knife/overlay"),
        ("GET", "/v1/items/{}/explanations/knife/card"),
        ("GET", "/v1/items/{}/appeals"),
    ],
)
def test_an_item_is_not_there_for_others(world: World, method: str, path: str) -> None:
    batch = submit(world.a)["batch"]
    world.work()
    (item,) = items(world.a, batch)
    same_as_nothing(world.b, method, path, str(item["id"]), "99999")
    assert world.a.get(f"/v1/items/{item['id']}").json() == item


def test_nobody_appeals_the_items_of_others(world: World) -> None:
    batch = submit(world.a)["batch"]
    world.work()
    (item,) = items(world.a, batch)
    answer = world.b.post(f"/v1/items/{item['id']}/appeals", json={"statement": "mine"})
    assert answer.status_code == 404
    opened = world.a.post(f"/v1/items/{item['id']}/appeals", json={"statement": "wrong"})
    assert opened.status_code == 201
    same_as_nothing(world.b, "GET", "/v1/appeals/{}", opened.json()["id"], str(uuid.uuid4()))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/webhooks/{}"),
        ("DELETE", "/v1/webhooks/{}"),
        ("GET", "/v1/webhooks/{}/deliveries"),
        ("POST", "/v1/webhooks/{}/ping"),
        ("POST", "/v1/webhooks/{}/retry"),
        ("POST", "/v1/webhooks/{}/deliveries/00000000-0000-4000-8000-000000000000/redeliver"),
    ],
)
def test_a_webhook_is_not_there_for_others(world: World, method: str, path: str) -> None:
    theirs = hook(world.a)
    same_as_nothing(world.b, method, path, str(theirs), "99999")
    assert world.a.get(f"/v1/webhooks/{theirs}").status_code == 200


def test_a_message_is_redelivered_for_its_own_client_only(world: World) -> None:
    theirs = hook(world.a)
    message = world.a.post(f"/v1/webhooks/{theirs}/ping").json()["message_id"]
    path = f"/v1/webhooks/{theirs}/deliveries/{message}/redeliver"
    assert world.b.post(path).status_code == 404
    assert world.a.post(path).status_code == 202


def test_webhooks_of_others_are_not_listed(world: World) -> None:
    theirs, mine = hook(world.a), hook(world.b)
    assert [w["id"] for w in world.b.get("/v1/webhooks").json()["webhooks"]] == [mine]
    assert [w["id"] for w in world.a.get("/v1/webhooks").json()["webhooks"]] == [theirs]


def test_a_webhook_is_told_of_its_own_client_only(world: World) -> None:
    theirs, mine = hook(world.a), hook(world.b)
    submit(world.a)
    world.work()
    with world.sessions.begin() as session:
        assert set(session.scalars(select(Delivery.endpoint_id))) == {theirs} != {mine}


def test_search_finds_a_clients_own_pictures(world: World) -> None:
    submit(world.a, *(picture(n) for n in range(1, 7)))
    mine = submit(world.b, *(picture(n) for n in range(5, 9)))["batch"]  # two of them are A's, too
    world.work()
    own = items(world.b, mine)
    found = world.b.get("/v1/search", params={"text": "anything", "limit": 4}).json()["images"]
    assert {f["digest"] for f in found} == {i["digest"] for i in own}
    assert {i["id"] for f in found for i in f["items"]} == {i["id"] for i in own}


def test_two_clients_may_use_the_same_idempotency_key(world: World) -> None:
    first, other = (submit(c, key="tuesday")["batch"] for c in (world.a, world.b))
    assert first != other
    assert submit(world.a, key="tuesday")["batch"] == first


def stricter(threshold: float) -> Policy:
    """A policy of the same name that flags less."""
    knife = POLICY.classes[0].model_copy(update={"threshold": threshold})
    return Policy(name=POLICY.name, neutral=POLICY.neutral, classes=(knife,))


def test_a_policy_under_anothers_name_changes_nothing_for_them(world: World) -> None:
    before = submit(world.a)["batch"]
    submit(world.b, policy=document(stricter(0.999)))
    after = submit(world.a, policy=POLICY.name)["batch"]
    policies = [world.a.get(f"/v1/batches/{b}").json()["policy"] for b in (before, after)]
    assert policies[0] == policies[1] == {"name": POLICY.name, "digest": POLICY.digest}
    world.work()
    assert [i["verdict"] for i in items(world.a, after)] == [Verdict.FLAGGED]


def test_a_record_names_no_image_of_which_only_others_know(
    sessions: Sessions, storage: Storage
) -> None:
    near = record().images[0].model_copy(update={"digest": digest(noisy(8))})
    told = record(images=(near,))
    flagged, clear = stored(
        sessions,
        storage,
        Pictured(noisy(7), records={"gun": told}),
        Pictured(noisy(8), verdict=Verdict.CLEAR),
    )
    shop = key_client(create_app(web_service(sessions, storage)), sessions)
    read = [shop.get(f"/v1/items/{flagged}/explanations").json()[0]["record"]]
    with sessions.begin() as session:
        other = Client(name="other", created_by="test")
        session.add(other)
        session.flush()
        session.get_one(Item, clear).client_id = other.id
    read.append(shop.get(f"/v1/items/{flagged}/explanations").json()[0]["record"])
    assert [[i["digest"] for i in r["images"]] for r in read] == [[near.digest], []]
    assert shop.get(f"/v1/items/{flagged}/explanations/gun/card").status_code == 200
    with sessions.begin() as session:
        looks = session.scalars(select(LedgerEntry).where(LedgerEntry.event == "revealed"))
        assert [entry.item_id for entry in looks] == [flagged]


def test_an_order_says_which_version_it_is_judged_under(world: World) -> None:
    inline = submit(world.a)
    assert inline["policy"] == {"name": POLICY.name, "digest": POLICY.digest}
    assert submit(world.a, policy=POLICY.name)["policy"] == inline["policy"]


def test_a_request_sent_again_names_the_version_of_the_first_try(world: World) -> None:
    first = submit(world.a, key="k")
    named = submit(world.a, policy=POLICY.name, key="n")
    submit(world.a, policy=document(stricter(0.999)))
    assert submit(world.a, policy=POLICY.name, key="n") == named
    assert submit(world.a, policy=POLICY.name)["policy"]["digest"] == stricter(0.999).digest
    assert submit(world.a, key="k") == first


def test_the_operators_policies_may_be_named_by_all_until_they_have_their_own(
    world: World,
) -> None:
    with world.sessions.begin() as session:
        store_policy(session, POLICY)
    named = [submit(c, policy=POLICY.name)["policy"]["digest"] for c in (world.a, world.b)]
    assert named == [POLICY.digest] * 2
    own = submit(world.b, policy=document(stricter(0.999)))["policy"]["digest"]
    named = [submit(c, policy=POLICY.name)["policy"]["digest"] for c in (world.a, world.b)]
    assert named == [POLICY.digest, own]
    with world.sessions.begin() as session:
        assert active_policy(session, POLICY.name) == POLICY


@pytest.mark.parametrize("named", ["name", "digest"])
def test_a_policy_of_others_cannot_be_named(world: World, named: str) -> None:
    submit(world.a)
    answer = world.b.post(
        "/v1/batches",
        files=[("files", ("a.png", GOOD))],
        data={"policy": getattr(POLICY, named)},
    )
    assert answer.status_code == 404


def test_two_keys_of_one_client_see_the_same(world: World) -> None:
    batch = submit(world.a, key="k")["batch"]
    second = world.key("a's other", client="a")
    assert submit(second, key="k")["batch"] == batch
    assert second.get(f"/v1/batches/{batch}").status_code == 200


def test_a_key_of_the_operators_sees_all_clients(world: World) -> None:
    batches = {submit(c)["batch"] for c in (world.a, world.b)}
    ours = world.key("ours", all_clients=True)
    assert {b["id"] for b in ours.get("/v1/batches").json()["batches"]} == batches
    assert ours.post(f"/v1/batches/{min(batches)}/cancel").json() == {"cancelled": 1}


def test_the_ledger_says_whose_a_key_is_and_what_it_sees(world: World) -> None:
    world.key("ours", client="b", all_clients=True)
    added = select(LedgerEntry).where(LedgerEntry.event == "key added").order_by(LedgerEntry.id)
    with world.sessions.begin() as session:
        told = [(e.details["client"], e.details.get("sees")) for e in session.scalars(added)]
    assert told == [("a", None), ("b", None), ("b", "every client")]


def test_a_webhook_of_the_operators_is_told_of_all(world: World) -> None:
    ours = hook(world.key("ours", all_clients=True))
    for client in (world.a, world.b):
        submit(client)
    world.work()
    with world.sessions.begin() as session:
        assert list(session.scalars(select(Delivery.endpoint_id))) == [ours, ours]


def test_search_finds_the_rare_pictures_of_a_client(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(world.a, *(picture(n) for n in range(1, 40)))
    mine = submit(world.b, picture(50), picture(51))["batch"]
    world.work()
    monkeypatch.setattr(vectors, "OWN_ONLY", " AND false ")  # as if walking met none of them
    found = world.b.get("/v1/search", params={"text": "anything"}).json()["images"]
    assert {f["digest"] for f in found} == {i["digest"] for i in items(world.b, mine)}
