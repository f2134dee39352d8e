"""Sealed classes: nothing is computed, shown or found, and custodians alone get the file."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
from sqlalchemy import func, select

from filter_service import ledger, moderation, retention
from filter_service.accounts import Role
from filter_service.db.arrivals import hold_images, keep_images
from filter_service.db.query_encoder import QueryVector
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Embedding,
    Item,
    ListEntry,
    OutboxEvent,
    Restriction,
    ReviewCase,
    StoredExplanation,
    StoredImage,
    StoredScore,
)
from filter_service.db.vectors import StoredMemory, among, near
from filter_service.demo import POLICY, SAMPLES
from filter_service.errors import InvalidRequest, NotAllowed
from filter_service.explain.explainer import Explanations
from filter_service.images import Limits, decode, digest
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.ledger import Event
from filter_service.moderation import WorkerContext
from filter_service.pipeline import moderate
from filter_service.pipeline.served_judge import ServedJudge
from filter_service.policy import Policy, Preservation, read_policy
from filter_service.reviews import case_claims, restricted
from filter_service.reviews.appeals import appeal, open_appeal
from filter_service.verdicts import Verdict
from tests.support import console_history as life
from tests.support.console_world import World, labelled
from tests.support.precision import bundled
from tests.support.review_cases import events_of, listening, one_case, told_to_platforms
from tests.support.web_clients import client_of, key_client

pytest_plugins = ["tests.support.console_fixtures"]

DAYS = 30
OTHERS = (Role.ADMIN, Role.POLICY_EDITOR, Role.SENIOR, Role.MODERATOR, Role.AUDITOR)


def sealing(*names: str) -> Policy:
    """The demo's policy with these classes sealed."""
    policy = read_policy(POLICY)
    classes = tuple(
        c.model_copy(update={"sealed": Preservation(days=DAYS)}) if c.name in names else c
        for c in policy.classes
    )
    return policy.model_copy(update={"classes": classes})


def file(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


@cache
def guilty() -> tuple[str, str]:
    """A sample that is flagged, and for what."""
    for name in labelled(True):
        (outcome,) = moderate([decode(file(name))], read_policy(POLICY), bundled())
        if outcome.explanations:
            return name, outcome.explanations[0].class_name
    raise AssertionError("no sample is flagged")


def with_twin(sessions: Sessions) -> tuple[Item, restricted.RestrictedFlag]:
    """An item that waits for review, and another one of its image, which is to be locked away."""
    item_id = one_case(sessions)
    with sessions.begin() as session:
        item = session.get_one(Item, item_id)
        assert item.image_id is not None
        twin = Item(batch_id=item.batch_id, image_id=item.image_id, source="b.jpg")
        session.add(twin)
        session.flush()
        return item, restricted.RestrictedFlag(twin.id, item.batch_id, item.image_id, "gun", DAYS)


def judge(world: World, name: str, policy: Policy) -> int:
    """Submit a sample again, and judge it as a worker does; -> its item."""
    with world.sessions.begin() as session:
        encoder_id = session.scalars(select(Item.encoder_id).where(Item.encoder_id > 0)).first()
    assert encoder_id is not None
    encoder = bundled()
    memory = StoredMemory(world.sessions, encoder_id, encoder.dim, encoder.logit_scale.factor)
    judged = ServedJudge(encoder, Limits(), [memory])
    desk = WorkerContext(world.sessions, world.service.storage, judged, encoder_id)
    sent = [Submission(name, file(name))]
    batch = submissions.accept(
        world.sessions, world.service.storage, lambda: None, sent, policy, label="sealed"
    )
    moderation.drain(desk)
    with world.sessions.begin() as session:
        return session.scalars(select(Item.id).where(Item.batch_id == batch)).one()


def locked(world: World) -> int:
    """The sample, judged once more by a policy that seals what it shows."""
    name, class_name = guilty()
    return judge(world, name, sealing(class_name))


def left_of(world: World, item: int) -> dict[str, int]:
    """How many rows were computed of an item's image."""
    with world.sessions.begin() as session:
        image = session.scalars(select(Item.image_id).where(Item.id == item)).one()
        items = list(session.scalars(select(Item.id).where(Item.image_id == image)))
        queries = {
            "embeddings": select(func.count()).where(Embedding.image_id == image),
            "scores": select(func.count()).where(StoredScore.image_id == image),
            "explanations": select(func.count()).where(StoredExplanation.item_id.in_(items)),
            "cases": select(func.count()).where(ReviewCase.image_id == image),
            "hashes": select(func.count()).where(
                StoredImage.id == image, StoredImage.pdq.is_not(None)
            ),
        }
        return {name: session.scalar(query) or 0 for name, query in queries.items()}


NOTHING = dict.fromkeys(("embeddings", "scores", "explanations", "cases", "hashes"), 0)


def test_nothing_is_computed_of_a_sealed_image(monkeypatch: pytest.MonkeyPatch) -> None:
    name, class_name = guilty()
    image = decode(file(name))
    (open_,) = moderate([image], read_policy(POLICY), bundled())
    assert open_.explanations and open_.vectors is not None

    def explain(self: Explanations, cases: object, seen: object) -> None:
        raise AssertionError("it was explained")

    monkeypatch.setattr(Explanations, "explain", explain)
    (shut,) = moderate([image], sealing(class_name), bundled())
    assert shut.verdict is Verdict.FLAGGED
    assert (shut.explanations, shut.vectors, shut.pdq) == ((), None, None)
    assert [s.class_name for s in shut.scores if s.flagged] == [
        s.class_name for s in open_.scores if s.flagged
    ]


def test_no_other_class_of_a_sealed_image_is_explained() -> None:
    image = decode(file(life.SEVERAL))
    (several,) = moderate([image], read_policy(POLICY), bundled())
    assert len(several.explanations) > 1
    for sealed in several.explanations:
        (shut,) = moderate([image], sealing(sealed.class_name), bundled())
        assert shut.explanations == () and shut.vectors is None


def test_a_sealed_image_is_no_others_counterfactual() -> None:
    """All samples of one call: those that are cited, once sealed, are cited no more."""
    images = [decode(file(name)) for name in labelled(True)[:12]]
    plain = moderate(images, read_policy(POLICY), bundled())
    cited = {c.digest for o in plain for e in o.explanations for c in e.images}
    flags = {o.digest: {e.class_name for e in o.explanations} for o in plain if o.explanations}
    hidden = next(name for name in sorted(cited & flags.keys()) if len(flags[name]) == 1)
    policy = sealing(*flags[hidden])
    outcomes = moderate(images, policy, bundled())
    assert hidden in {o.digest for o in outcomes if not o.explanations}
    told = {c.digest for o in outcomes for e in o.explanations for c in e.images}
    assert told and hidden not in told


def test_a_sealed_item_is_locked_away(world: World) -> None:
    listening(world.sessions)
    item, (name, class_name) = locked(world), guilty()
    assert left_of(world, item) == NOTHING
    with world.sessions.begin() as session:
        row = session.get_one(Restriction, item)
        found = session.get_one(Item, item)
        told = session.scalars(select(OutboxEvent).where(OutboxEvent.item_id == item)).one()
        days = row.preserve_until - row.sealed_at
    assert found.verdict is Verdict.FLAGGED and row.class_name == class_name
    assert abs(days.total_seconds() / 86400 - DAYS) < 0.01
    assert events_of(world.sessions, item)[-2:] == [Event.JUDGED, Event.LOCKED_AWAY]
    assert told.type == "item.flagged"
    keys = {"item", "batch", "source", "verdict", "class"}
    assert keys <= told.payload.get("data", told.payload).keys() <= keys | {"timestamp"}
    assert world.service.storage.has(digest(file(name)))


def test_what_was_computed_before_is_deleted(world: World) -> None:
    older = world.item(guilty()[0])
    assert all(left_of(world, older).values())
    locked(world)
    assert left_of(world, older) == NOTHING
    with world.sessions.begin() as session:
        entry = ledger.of_item(session, older)[-1]
    assert entry.event == Event.LOCKED_AWAY and "with" in entry.details


def test_nothing_is_added_by_a_later_verdict(world: World) -> None:
    locked(world)
    later = judge(world, guilty()[0], read_policy(POLICY))
    assert left_of(world, later) == NOTHING
    with world.sessions.begin() as session:
        assert session.get_one(Item, later).verdict is Verdict.FLAGGED
        with pytest.raises(NotAllowed):
            restricted.require_open(session, later)


def test_a_list_locks_away_what_the_model_lets_pass(world: World) -> None:
    (name, *_), class_name = labelled(False), guilty()[1]
    with world.sessions.begin() as session:
        session.add(
            ListEntry(
                kind="block",
                class_name=class_name,
                match="digest",
                image_digest=digest(file(name)),
                reason="known",
                created_by="person a",
            )
        )
    item = judge(world, name, sealing(class_name))
    assert left_of(world, item) == NOTHING
    with world.sessions.begin() as session:
        assert session.get_one(Restriction, item).class_name == class_name


def test_a_list_does_not_open_a_sealed_class(world: World) -> None:
    name, class_name = guilty()
    with world.sessions.begin() as session:
        session.add(
            ListEntry(
                kind="allow",
                class_name=class_name,
                match="digest",
                image_digest=digest(file(name)),
                reason="harmless",
                created_by="person a",
            )
        )
    item = locked(world)
    with world.sessions.begin() as session:
        assert session.get(Restriction, item) is not None


def test_whoever_adds_to_an_image_waits_for_its_sealing(world: World) -> None:
    with world.sessions.begin() as session:
        older = session.get_one(Item, world.item(guilty()[0]))
    image, found = older.image_id, []
    assert image is not None

    def add() -> None:
        with world.sessions.begin() as session:
            found.append(restricted.hold(session, set(), {image}))

    with world.sessions.begin() as session:
        restricted.hold(session, {image}, set())
        other = threading.Thread(target=add)
        other.start()
        other.join(0.3)
        assert other.is_alive()
        away = restricted.RestrictedFlag(older.id, older.batch_id, image, "x", DAYS)
        restricted.lock_away(session, [away], "worker 1")
    other.join(10)
    assert found == [{image}]


def test_whoever_decides_is_waited_for(sessions: Sessions) -> None:
    """Its case first, then its image: as decisions, lists and appeals take them."""
    item, sealing = with_twin(sessions)
    with ThreadPoolExecutor(1) as threads:

        def seal() -> None:
            with sessions.begin() as session:
                restricted.hold(session, {sealing.image_id}, set())
                restricted.lock_away(session, [sealing], "worker 1")

        with sessions.begin() as session:
            assert case_claims.lock(session, item.id) is not None
            sealed = threads.submit(seal)
            with pytest.raises(TimeoutError):
                sealed.result(0.3)
            hold_images(session, {sealing.image_id})
        sealed.result(10)


@pytest.mark.parametrize("last_is_sealed", [True, False])
def test_images_are_locked_in_their_order(sessions: Sessions, last_is_sealed: bool) -> None:
    with sessions.begin() as session:
        images = [StoredImage(digest=d * 64, bytes=1) for d in "ba"]  # the second one's comes first
        session.add_all(images)
        session.flush()
        first, last = sorted(image.id for image in images)

    def take() -> None:
        with sessions.begin() as session:
            if last_is_sealed:
                restricted.hold(session, {last}, {first})
            else:
                keep_images(session, {"a" * 64: 1, "b" * 64: 1})

    row = select(StoredImage.id).with_for_update(nowait=True)
    with ThreadPoolExecutor(1) as threads, sessions.begin() as session:
        session.execute(row.where(StoredImage.id == first)).all()
        taken = threads.submit(take)
        with pytest.raises(TimeoutError):
            taken.result(0.3)
        session.execute(row.where(StoredImage.id == last)).all()  # nobody has it yet
        session.rollback()
        taken.result(10)


def test_an_appeal_about_what_is_locked_away_is_closed(sessions: Sessions) -> None:
    item, sealing = with_twin(sessions)
    listening(sessions)
    opened = open_appeal(sessions, item.id, "It is a toy.", "key shop")
    with sessions.begin() as session:
        restricted.hold(session, {sealing.image_id}, set())
        restricted.lock_away(session, [sealing], "worker 1")
    closed = appeal(sessions, opened)
    assert (closed.upheld, closed.closed_at is None, closed.review_id) == (True, False, None)
    assert events_of(sessions, item.id)[-1] == Event.APPEAL_CLOSED
    told = told_to_platforms(sessions)[-1]
    assert (told.type, told.item_id) == ("appeal.closed", item.id)
    about = {name: told.payload[name] for name in ("appeal", "upheld", "final")}
    assert about == {"appeal": str(opened), "upheld": True, "final": "flagged"}


def test_a_legal_hold_comes_before_forgetting(world: World) -> None:
    older = world.item(guilty()[0])
    before = left_of(world, older)
    retention.hold(world.sessions, older, "a court", "service")
    item = locked(world)
    retention.hold(world.sessions, item, "another court", "service")
    held = before | {"cases": 0}
    assert all(before.values()) and left_of(world, older) == held
    assert (
        client_of(world.app, world.sessions, Role.ADMIN).get(f"/items/{older}").status_code == 403
    )
    with world.sessions.begin() as session:
        image = session.get_one(Item, older).image_id
        kept = session.scalars(select(Embedding).where(Embedding.image_id == image)).first()
        assert kept is not None and image is not None
        encoder, z = kept.encoder_id, kept.vector
        assert image not in near(session, encoder, len(z), z, 5)
        assert among(session, encoder, z, [image]) == {}
    memory = StoredMemory(world.sessions, encoder, len(z), 1.0)
    hits = memory.search(z, 5)
    assert hits and digest(file(guilty()[0])) not in {hit.digest for hit in hits}
    retention.release(world.sessions, older, "it is over", "service")
    assert left_of(world, older) == held  # the other one stands
    retention.release(world.sessions, item, "it is over, too", "service")
    assert left_of(world, older) == NOTHING
    assert events_of(world.sessions, older)[-1] == Event.LOCKED_AWAY  # says why all is gone


@pytest.mark.parametrize("role", OTHERS)
def test_nobody_else_sees_any_of_it(world: World, role: Role) -> None:
    older, item = world.item(guilty()[0]), locked(world)
    client = client_of(world.app, world.sessions, role)
    name = digest(file(guilty()[0]))
    pages = [
        *(f"/items/{i}{page}" for i in (item, older) for page in ("", "/lookalikes")),
        *(
            f"/pictures/{i}/{picture}"
            for i in (item, older)
            for picture in ("blurred", "thumbnail", "original", "map", "region", "word/0")
        ),
        f"/search?like={item}",
        f"/v1/items/{item}",
        f"/v1/items/{older}/explanations",
        f"/v1/items/{older}/explanations/{guilty()[1]}/card",
        "/sealed",
        f"/sealed/{item}",
    ]
    for page in pages:
        assert client.get(page).status_code == 403, page
    assert client.get(f"/pictures/image/{name}/blurred").status_code == 404
    assert client.post(f"/items/{item}/reveal").status_code == 403
    assert client.post(f"/sealed/{item}/file", data={"reason": "because"}).status_code == 403
    for page in ("/queue", f"/search?like={world.item(life.SEVERAL)}&limit=240"):
        shown = client.get(page).text
        assert "/items/" in shown, page
        assert not re.search(rf"/items/({item}|{older})\b", shown), page


def test_a_platform_is_told_that_it_is_locked_away(world: World) -> None:
    older, item = world.item(guilty()[0]), locked(world)
    client = key_client(world.app, world.sessions)
    for number in (item, older):
        answer = client.get(f"/v1/items/{number}")
        assert answer.status_code == 403 and "locked away" in answer.json()["detail"]
    found = client.get("/v1/search?text=anything&limit=100").json()["images"]
    assert found and digest(file(guilty()[0])) not in {image["digest"] for image in found}


def test_a_platform_learns_every_verdict(world: World) -> None:
    item = locked(world)
    with world.sessions.begin() as session:
        batch = session.get_one(Item, item).batch_id
    platform = key_client(world.app, world.sessions)
    answer = platform.get(f"/v1/batches/{batch}/items?limit=1000").json()["items"]
    (found,) = [row for row in answer if row["id"] == item]
    assert found["verdict"] == "flagged"
    assert f'"item":{item},' in platform.get(f"/v1/batches/{batch}/manifest").text.replace(" ", "")
    moderator = client_of(world.app, world.sessions, Role.MODERATOR)
    listed = moderator.get(f"/v1/batches/{batch}/items?limit=1000").json()["items"]
    assert item not in [row["id"] for row in listed]


def test_a_forgotten_vector_is_not_enough_to_find_it(world: World) -> None:
    """Were its vector still there, the search would not tell of it either."""
    item = locked(world)
    with world.sessions.begin() as session:
        image = session.get_one(Item, item).image_id
        kept = session.scalars(select(Embedding).limit(1)).one()
        session.add(
            Embedding(
                encoder_id=kept.encoder_id,
                image_id=image,
                frame=0,
                vector=kept.vector,
                exact_vector=kept.exact_vector,
            )
        )
        z, encoder_id = kept.vector, kept.encoder_id

    class Near:
        def text(self, text: str) -> QueryVector:
            return QueryVector(encoder_id, z, 1.0)

        def image(self, data: bytes) -> QueryVector:
            raise NotImplementedError

    object.__setattr__(world.service, "seeker", Near())
    client = key_client(world.app, world.sessions)
    found = client.get("/v1/search?text=anything&limit=10").json()["images"]
    assert found and digest(file(guilty()[0])) not in {image["digest"] for image in found}


def test_a_custodian_sees_what_is_known(world: World) -> None:
    item = locked(world)
    client = client_of(world.app, world.sessions, Role.CUSTODIAN)
    assert client.get("/").url.path == "/sealed"
    assert f"/sealed/{item}" in client.get("/sealed").text
    page = client.get(f"/sealed/{item}").text
    assert digest(file(guilty()[0])) in page and guilty()[1] in page
    assert "<img" not in page and "/pictures/" not in page
    assert client.get(f"/sealed/{world.item('notes.jpg')}").status_code == 404
    for closed in (f"/items/{item}", f"/pictures/{item}/blurred", "/queue"):
        assert client.get(closed).status_code == 403


def test_a_custodian_sees_their_classes_only(world: World) -> None:
    item = locked(world)
    client = client_of(world.app, world.sessions, Role.CUSTODIAN, classes=("nothing",))
    assert f"/sealed/{item}" not in client.get("/sealed").text
    assert client.get(f"/sealed/{item}").status_code == 403
    answer = client.post(f"/sealed/{item}/file", data={"reason": "asked for by the police"})
    assert answer.status_code == 403
    assert Event.SEALED_READ not in events_of(world.sessions, item)


def test_the_list_goes_on_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filter_service.web.console.restricted.ROWS", 1)
    older, item = world.item(guilty()[0]), locked(world)
    with world.sessions.begin() as session:
        found = session.get_one(Item, older)
        assert found.image_id is not None
        away = restricted.RestrictedFlag(older, found.batch_id, found.image_id, "x", DAYS)
        restricted.lock_away(session, [away], "worker 1")
    client = client_of(world.app, world.sessions, Role.CUSTODIAN)
    first = client.get("/sealed").text
    assert f'/sealed/{item}"' in first and f'/sealed/{older}"' not in first
    following = first.split('rel="next" href="')[1].split('"')[0]
    assert f'/sealed/{older}"' in client.get(following).text


def test_the_file_comes_for_a_reason_and_is_never_shown(world: World) -> None:
    item = locked(world)
    client = client_of(world.app, world.sessions, Role.CUSTODIAN)
    refused = client.post(f"/sealed/{item}/file", data={"reason": " a "})
    assert refused.status_code == 422 and "reason" in refused.text
    assert Event.SEALED_READ not in events_of(world.sessions, item)
    answer = client.post(f"/sealed/{item}/file", data={"reason": "asked for by the police"})
    assert answer.content == file(guilty()[0])
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    with world.sessions.begin() as session:
        entry = ledger.of_item(session, item)[-1]
    assert entry.event == Event.SEALED_READ and entry.actor == "person custodian"
    assert entry.details == {"reason": "asked for by the police"}


def test_who_asked_is_written_down_before_anything_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = locked(world)
    seen: list[list[str]] = []

    def get(self: object, name: str) -> bytes:
        seen.append(events_of(world.sessions, item))  # in a transaction of its own
        return b""

    monkeypatch.setattr("filter_service.storage.Storage.get", get)
    restricted.original(world.sessions, world.service.storage, item, "a good reason", "person a")
    assert seen[0][-1] == Event.SEALED_READ


@pytest.mark.parametrize("reason", ["", "    ", "abcd", "x" * 501])
def test_a_reason_has_to_say_something(world: World, reason: str) -> None:
    with pytest.raises(InvalidRequest):
        restricted.original(world.sessions, world.service.storage, 1, reason, "person a")
