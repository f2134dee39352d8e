"""Erasure: nothing of the image is found anywhere afterwards, and the ledger still holds."""

import base64
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, Engine, func, select, text, update

from filter_service import accounts, ledger, retention, rollout, webhooks
from filter_service.accounts import Role
from filter_service.accounts.clients import client_named
from filter_service.cli.retention import _show
from filter_service.db.arrivals import expect
from filter_service.db.scope import only
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import (
    Appeal,
    Embedding,
    Erasure,
    Item,
    ItemAttribute,
    OutboxEvent,
    QueueEntry,
    Restriction,
    Review,
    ShadowFlag,
    StoredExplanation,
    StoredImage,
    StoredScore,
)
from filter_service.demo import POLICY, SAMPLES
from filter_service.errors import Conflict, StorageUnavailable, UnknownItem
from filter_service.images import digest
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.ledger import Event
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import signer_of
from filter_service.ledger.verification import verify
from filter_service.local import Services
from filter_service.policy import read_policy
from filter_service.rendering import renditions
from filter_service.retention import erasure
from filter_service.retention.erasure_steps import STEPS
from filter_service.reviews import case_claims, hash_lists
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.decisions import decide
from filter_service.reviews.hash_lists import NewListEntry
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.reviews.report_input import ReportInput, ReportSource
from filter_service.reviews.reports import report
from filter_service.reviews.settlement import Decision, settle
from filter_service.rollout.shadows import start_shadow
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.console_world import World, world_over
from tests.support.simple_classifier import POLICY as SIMPLE
from tests.support.web_clients import client_of, key_client, somebody, web_service

pytest_plugins = ["tests.support.console_fixtures"]

SAMPLE = "063.jpg"  # flagged for two classes
AGAIN = "portrait-of-jane.jpg"  # the same bytes, under another name
NOTE = "The man on the left is my neighbour."
REGION = "the Doe estate"
HOLD = "Doe against Roe, 3 C 114/26"
APPEAL = "I am Jane Doe and this is my kitchen."
REPORT = "This was taken in Jane's kitchen."
WHY = "somebody asked for it"


@dataclass(frozen=True)
class Case:
    """An image with a life, and everything that it could be known by."""

    world: World
    folder: Path
    owner: Engine
    items: tuple[int, int]  # the one that was judged, and the one that came later
    digest: str
    needles: dict[str, tuple[bytes, ...]]

    @property
    def sessions(self) -> Sessions:
        return self.world.sessions

    @property
    def storage(self) -> Storage:
        return self.world.service.storage

    def erase(self) -> retention.Receipt:
        return retention.erase(self.sessions, self.storage, self.items[0], WHY, "person admin")

    def found(self) -> set[str]:
        """Which of the needles are anywhere: in any column of any table, in any file."""
        with self.owner.connect() as connection:
            return self.among([*dumped(connection), *files(self.folder)])

    def among(self, hay: Iterable[bytes]) -> set[str]:
        """Which of the needles are in there."""
        stack = list(hay)
        return {
            name
            for name, needles in self.needles.items()
            if any(needle in straw for needle in needles for straw in stack)
        }


def dumped(connection: Connection) -> Iterator[bytes]:
    """Every row of every table, as text and in the wire's binary form."""
    tables = text(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    raw = connection.connection.driver_connection
    assert raw is not None
    for table in connection.scalars(tables).all():
        for form in ("text", "binary"):
            command = f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT {form})"
            with raw.cursor() as cursor, cursor.copy(command) as copy:
                yield b"".join(bytes(part) for part in copy)


def files(folder: Path) -> Iterator[bytes]:
    """Every file of the storage and beside it, by name and content."""
    for path in folder.rglob("*"):
        yield str(path).encode()
        if path.is_file():
            yield path.read_bytes()


def known_by(session_of: Sessions, image: int, data: bytes) -> dict[str, tuple[bytes, ...]]:
    """Everything that was computed of an image, in every form in which it might be kept."""
    with session_of.begin() as session:
        row = session.get_one(StoredImage, image)
        vector = session.execute(
            select(
                func.halfvec_send(Embedding.vector), func.vector_send(Embedding.exact_vector)
            ).where(Embedding.image_id == image)
        ).first()
        as_text = session.execute(
            text("SELECT vector::text, exact_vector::text FROM embeddings WHERE image_id = :i"),
            {"i": image},
        ).first()
        margins = session.scalars(select(StoredScore.margin).where(StoredScore.image_id == image))
        scores = tuple(repr(m).encode() for m in margins)
        record = session.scalars(
            select(StoredExplanation.record)
            .join(Item, Item.id == StoredExplanation.item_id)
            .where(Item.image_id == image)
        ).first()
    assert row.digest and row.pdq and vector and as_text and scores and record
    packed = np.packbits(np.array(list(row.pdq), dtype=np.uint8)).tobytes()
    raw = bytes.fromhex(row.digest)
    chunks = [data[at : at + 48] for at in range(len(data) // 2, len(data) - 48, len(data) // 12)]
    return {
        "bytes": tuple(f for c in chunks for f in (c, c.hex().encode(), base64.b64encode(c))),
        "digest": (raw, row.digest.encode(), base64.b64encode(raw)),
        "perceptual hash": (row.pdq.encode(), packed, packed.hex().encode()),
        "embedding": (
            *(bytes(v)[4:20] for v in vector if v is not None),
            *(",".join(t[1:].split(",")[:4]).encode() for t in as_text if t is not None),
        ),
        "scores": scores,
        "explanation": (repr(record["map"]["values"][0])[:40].encode(),)
        if record.get("map") and "values" in record["map"]
        else (repr(record["margin"]).encode(),),
    }


@pytest.fixture
def case(admin: Engine, servers: Services, judged: Path, tmp_path: Path) -> Iterator[Case]:
    """One that a test erases."""
    with copied(admin, servers, judged, tmp_path / "data") as found:
        yield found


@pytest.fixture(scope="module")
def kept(
    admin: Engine, servers: Services, judged: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """One that no test erases."""
    with copied(admin, servers, judged, tmp_path_factory.mktemp("kept") / "data") as found:
        yield found


@contextmanager
def copied(admin: Engine, servers: Services, judged: Path, folder: Path) -> Iterator[Case]:
    """A copy of what was judged, storage and all; one image of it has seen everything."""
    shutil.copytree(judged / "images", folder / "images")
    with world_over(admin, servers, folder) as world:
        url = world.sessions.kw["bind"].url
        owner = connect(url.render_as_string(hide_password=False), role=None)
        first = world.item(SAMPLE)
        webhooks.add_endpoint(
            world.sessions, world.service.settings, "https://shop.example/hook", None, "key shop"
        )
        with world.sessions.begin() as session:
            image = session.get_one(StoredImage, session.get_one(Item, first).image_id)
        assert image.digest is not None
        data = (SAMPLES / SAMPLE).read_bytes()
        needles = known_by(world.sessions, image.id, data)
        live(world, first)
        batch = submissions.accept(
            world.sessions,
            world.service.storage,
            lambda: None,
            [Submission(AGAIN, data)],
            read_policy(POLICY),
            actor="key shop",
        )
        with world.sessions.begin() as session:
            second = session.scalars(select(Item.id).where(Item.batch_id == batch)).one()
            for item in (first, second):
                session.add(ItemAttribute(item_id=item, name="region", value=REGION))
        words = {
            "name": (SAMPLE.encode(), AGAIN.encode()),
            "note": (NOTE.encode(),),
            "appeal": (APPEAL.encode(),),
            "report": (REPORT.encode(),),
            "hold": (HOLD.encode(),),
            "attribute": (REGION.encode(),),
        }
        try:
            found = Case(world, folder, owner, (first, second), image.digest, needles | words)
            look(found)
            yield found
        finally:
            owner.dispose()


def live(world: World, item: int) -> None:
    """It is held for a while, listed, decided with a note, appealed, and decided again."""
    retention.hold(world.sessions, item, HOLD, "person admin")
    retention.release(world.sessions, item, "settled", "person admin")
    sue = somebody(world.sessions, Role.SENIOR, "sue")
    entered = NewListEntry(
        ListKind.BLOCK, "gambling", Match.RADIUS, item, within=1.0, reason="like Jane's"
    )
    for match in Match:
        within = None if match is Match.DIGEST else 1.0
        hash_lists.add_entry(world.sessions, sue, replace(entered, match=match, within=within))
    known = digest((SAMPLES / SAMPLE).read_bytes())
    by_digest = NewListEntry(
        ListKind.BLOCK, "gambling", Match.DIGEST, digest=known, reason="seen before"
    )
    hash_lists.add_entry(world.sessions, sue, by_digest)
    for login in ("ben", "eva"):
        person = somebody(world.sessions, Role.MODERATOR, login)
        case_claims.claim(world.sessions, person, item, 60.0)
        decide(world.sessions, person, item, Decision.CONFIRMED, note=NOTE, undo_seconds=0)
        settle(world.sessions)
        if login == "ben":
            open_appeal(world.sessions, item, APPEAL, "key shop")
    said = ReportInput(source=ReportSource.USER, reason=REPORT, reference="Jane's ticket")
    report(world.sessions, item, said, "key shop", cap=1)
    shadowed(world, item)


def shadowed(world: World, item: int) -> None:
    """A version in the shadow has looked at it, too."""
    other = read_policy(POLICY).model_copy(update={"partial": "clear"})
    rollout.propose(
        world.sessions, other, rollout.Flags.KEEP, "to try it", "person admin", four_eyes=True
    )
    shadow = start_shadow(world.sessions, other.digest, "person admin")
    flag = ShadowFlag(shadow_id=shadow.id, item_id=item, class_name="gambling", by_shadow=True)
    flag.by_judge = False
    with world.sessions.begin() as session:
        session.add(flag)


def look(case: Case) -> dict[str, TestClient]:
    """Open every page that shows the image, so that whatever remembers it does."""
    item = case.items[0]
    browser = client_of(case.world.app, case.sessions, Role.ADMIN)
    person = somebody(case.sessions, Role.ADMIN)
    accounts.reveal(case.sessions, person, item, "weapons", None)
    pages = (f"/pictures/{item}/{p}" for p in ("blurred", "thumbnail", "original", "map"))
    for path in (*pages, f"/items/{item}", f"/search?like={item}", "/lists", "/queue"):
        assert browser.get(path).status_code == 200, path
    return {"browser": browser}


def test_before_everything_is_found(kept: Case) -> None:
    assert kept.found() == set(kept.needles)


def test_after_it_nothing_is_found_and_the_ledger_says_why(case: Case) -> None:
    receipt = case.erase()
    assert case.found() == set()
    assert (receipt.bytes, receipt.items) == ("deleted", case.items)
    assert receipt.done_at is not None
    done = {name for name, count in receipt.removed.items() if count}
    assert done == set(STEPS) - {"fetches", "open cases"}
    with case.sessions.begin() as session:
        entries = [e for i in case.items for e in ledger.of_item(session, i)]
        erased = [e for e in entries if e.event == Event.ERASED]
        assert [e.item_id for e in erased] == list(case.items)
        assert all(e.details is None for e in entries if e.event != Event.ERASED)
        assert tuple(sorted(e.id for e in entries if e.details is None)) == receipt.blanked
        assert session.scalar(select(QueueEntry).where(QueueEntry.item_id.in_(case.items))) is None
        told = session.scalars(select(OutboxEvent.payload).where(OutboxEvent.item_id.is_not(None)))
        assert all(p["source"] == "" and p["erased"] for p in told if p["item"] in case.items)
    assert [m.item for m in receipt.mentions] == list(case.items)


def test_the_ledger_is_whole_and_the_receipt_names_its_checkpoint(case: Case) -> None:
    settings = case.world.service.settings.model_copy(update={"data_dir": case.folder})
    signer = signer_of(case.sessions, settings)
    seal(case.sessions, signer)
    receipt = case.erase()
    assert {m.checkpoint for m in receipt.mentions} == {None}
    while seal(case.sessions, signer) is not None:
        pass
    report = verify(case.sessions)
    assert (report.faults, report.erased) == ((), len(receipt.blanked))
    sealed = retention.receipt(case.sessions, receipt.id)
    assert all(m.checkpoint and m.root for m in sealed.mentions)
    assert "not sealed yet" not in retention.as_text(sealed)


# What is found if one step were forgotten.
FORGOTTEN = {
    "list entries": {"digest", "perceptual hash", "embedding"},
    "payloads of ledger entries": {"digest", "scores"},
    "reasons and notes of reviews": {"note"},
    "statements of appeals": {"appeal"},
    "reasons of reports": {"report"},
    "contents of webhooks": {"name"},
    "reasons of legal holds": {"hold"},
    "explanations": {"explanation"},
    "embeddings": {"embedding"},
    "scores": {"scores"},
    "attributes": {"attribute"},
    "file names": {"name"},
    "digests and perceptual hashes": {"digest", "perceptual hash"},
}


def test_every_step_that_is_forgotten_is_found_out(
    kept: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = dict(STEPS)
    for step, expected in FORGOTTEN.items():
        left = {name: do for name, do in steps.items() if name != step}
        monkeypatch.setattr(erasure, "STEPS", left)
        assert expected <= without_trace(kept), step
    monkeypatch.setattr(erasure, "STEPS", steps)
    assert without_trace(kept) == set()


def without_trace(case: Case) -> set[str]:
    """What the tables still tell of an image whose erasure is not committed."""
    with sessions_of(case.owner)() as session:
        target, _ = erasure._lock(session, case.items[0], "service")
        erasure._erase(session, target, WHY)
        for told in ("DELETE FROM loose_bytes", "UPDATE erasures SET digest = NULL"):
            session.execute(text(told))  # as it is once the bytes are gone, too
        found = case.among(dumped(session.connection()))
        session.rollback()
    return found


def test_bytes_that_were_not_deleted_are_found_and_deleted_by_the_chore(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(storage: Storage, digest: str) -> None:
        raise StorageUnavailable("The store does not answer.")

    with monkeypatch.context() as broken:
        broken.setattr(Storage, "delete", refuse)
        receipt = case.erase()
    assert (receipt.done_at, receipt.bytes) == (None, "to be deleted")
    assert {"bytes", "digest"} <= case.found()
    assert retention.sweep(case.sessions, case.storage) == 1
    assert case.found() == set()
    assert retention.receipt(case.sessions, receipt.id).done_at is not None


def test_the_pages_say_that_it_was_erased(case: Case) -> None:
    browser = client_of(case.world.app, case.sessions, Role.ADMIN)
    item = case.items[0]
    etag = browser.get(f"/pictures/{item}/blurred").headers["etag"]
    assert renditions.points.cache_info().currsize > 0
    case.erase()
    assert "was erased on" in browser.get(f"/items/{item}").text
    old = browser.get(f"/pictures/{item}/blurred", headers={"If-None-Match": etag})
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-store")
    assert renditions.points.cache_info().currsize == 0
    for path in (f"/pictures/{item}/map", f"/v1/items/{item}/explanations"):
        gone = browser.get(path)
        assert (gone.status_code, "was erased on" in gone.json()["detail"]) == (410, True), path
    assert "was erased on" in browser.get(f"/search?like={item}").json()["detail"]
    picture = browser.get(f"/pictures/image/{case.digest}/blurred", headers={"Accept": "image/*"})
    assert (picture.status_code, picture.headers["content-type"]) == (404, "image/jpeg")
    for path in ("/lists", "/queue", "/overview", f"/v1/items/{item}", "/retention/erasures"):
        assert browser.get(path).status_code == 200, path


def test_what_was_erased_can_be_submitted_again(case: Case) -> None:
    case.erase()
    submissions.accept(
        case.sessions,
        case.storage,
        lambda: None,
        [Submission("again.jpg", (SAMPLES / SAMPLE).read_bytes())],
        read_policy(POLICY),
    )
    retention.sweep(case.sessions, case.storage)
    assert case.storage.has(case.digest)
    assert case.erase().bytes == "deleted"  # the same receipt: of the image that was erased


def test_a_submission_on_its_way_keeps_its_own_bytes(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep: Callable[..., object] = submissions._keep
    receipts = []

    def crossing(*args: object) -> object:
        kept = keep(*args)
        receipts.append(case.erase())
        return kept

    monkeypatch.setattr(submissions, "_keep", crossing)
    data = (SAMPLES / SAMPLE).read_bytes()
    submissions.accept(
        case.sessions, case.storage, lambda: None, [Submission("a", data)], read_policy(POLICY)
    )
    assert (receipts[0].done_at, receipts[0].bytes) == (None, "to be deleted")
    retention.sweep(case.sessions, case.storage)
    done = retention.receipt(case.sessions, receipts[0].id)
    assert done.done_at is not None and done.bytes.startswith("submitted again")
    assert case.storage.get(case.digest) == data


def test_a_receipt_waits_for_bytes_that_may_still_come(case: Case) -> None:
    """Whoever was about to keep them again is killed: they are deleted when that is late."""
    with case.sessions.begin() as session:
        expect(session, [case.digest])
    receipt = case.erase()
    assert retention.sweep(case.sessions, case.storage) == 0
    assert retention.receipt(case.sessions, receipt.id).done_at is None
    with case.owner.begin() as connection:
        connection.execute(text("UPDATE loose_bytes SET due_at = now()"))
    assert retention.sweep(case.sessions, case.storage) == 1
    done = retention.receipt(case.sessions, receipt.id)
    assert (done.bytes, done.done_at is None) == ("deleted", False)
    assert case.found() == set()


def test_asking_twice_gives_the_same_receipt(case: Case) -> None:
    assert case.erase().id == case.erase().id
    other = retention.erase(case.sessions, case.storage, case.items[1], WHY, "service")
    with case.sessions.begin() as session:
        assert session.scalars(select(Erasure.id)).all() == [other.id]


REFUSED = {
    "hold": "under a legal hold",
    "sealed": "to be preserved until",
    "judging": "just being judged",
    "appeal": "An appeal",
}


BETTER = (  # so that the next reason stands alone
    "UPDATE legal_holds SET released_at = now()",
    "DELETE FROM sealed_items",
    "UPDATE queue SET worker = NULL, leased_until = '-infinity'",
    "UPDATE appeals SET closed_at = now()",
)


@pytest.mark.parametrize("why", REFUSED)
def test_what_must_be_kept_is_not_erased(kept: Case, why: str) -> None:
    first, second = kept.items
    later = datetime.now(UTC) + timedelta(days=3)
    with kept.sessions.begin() as session:
        image = session.get_one(Item, first).image_id
        if why == "sealed":
            told = {"item_id": first, "image_id": image, "class_name": "x"}
            session.add(Restriction(**told, sealed_at=later, preserve_until=later))
        if why == "judging":
            leased = {"worker": uuid.uuid4(), "leased_until": later}
            session.execute(update(QueueEntry).where(QueueEntry.item_id == second).values(leased))
        if why == "appeal":
            session.add(Appeal(id=uuid.uuid4(), item_id=first, statement="s", opened_by="key a"))
    if why == "hold":
        retention.hold(kept.sessions, second, "a court", "service")
    with pytest.raises(Conflict, match=REFUSED[why]):
        kept.erase()
    with kept.owner.begin() as connection:
        for statement in BETTER:
            connection.execute(text(statement))
        assert connection.scalar(text("SELECT count(*) FROM erasures")) == 0


@pytest.mark.parametrize("table", [QueueEntry, Review, Item])
def test_whoever_works_on_it_is_not_waited_for(kept: Case, table: Any) -> None:
    column = table.id if table is Item else table.item_id
    with kept.sessions.begin() as session:
        session.execute(select(column).where(column.in_(kept.items)).with_for_update()).all()
        with pytest.raises(Conflict, match="at this moment"):
            kept.erase()


def test_a_platform_erases_what_it_submitted(sessions: Sessions, storage: Storage) -> None:
    app = create_app(web_service(sessions, storage))
    shop, other = (key_client(app, sessions, name, client=None) for name in ("shop", "other"))
    items = []
    for owners in (("shop",), ("other",), ("shop", "other")):
        for owner in owners:
            data = " ".join(owners).encode()
            sent = [Submission("a.jpg", data)]
            scope = only(client_named(sessions, owner).id)
            batch = submissions.accept(sessions, storage, lambda: None, sent, SIMPLE, scope=scope)
        with sessions.begin() as session:
            items.append(session.scalars(select(Item.id).where(Item.batch_id == batch)).one())
    mine, theirs, shared = items
    assert [shop.delete(f"/v1/items/{i}").status_code for i in (theirs, shared)] == [404, 404]
    answer = shop.delete(f"/v1/items/{mine}", params={"reason": "the user left"})
    assert answer.status_code == 202
    address = answer.headers["location"]
    assert shop.get(address).json()["done_at"] is None
    assert retention.sweep(sessions, storage) == 1
    receipt = shop.get(address).json()
    told = ("erased for this client", "the user left")
    assert (receipt["bytes"], receipt["reason"]) == told
    assert shop.delete(f"/v1/items/{mine}").json()["erasure"] == receipt["id"]
    assert other.get(address).status_code == 404
    assert shop.delete("/v1/items/999999").status_code == 404
    moderator = client_of(app, sessions, Role.MODERATOR)
    assert moderator.delete(f"/v1/items/{theirs}").status_code == 403


def test_an_item_that_never_had_an_image_is_erased(
    sessions: Sessions, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Submission("letter-of-jane.txt", error="letter-of-jane.txt cannot be read")
    submissions.accept(sessions, storage, lambda: None, [file], SIMPLE)
    with sessions.begin() as session:
        item = session.scalars(select(Item.id)).one()
    receipt = retention.erase(sessions, storage, item, WHY, "service")
    assert (receipt.image, receipt.bytes) == (None, "there were none")
    with sessions.begin() as session:
        row = session.get_one(Item, item)
        assert (row.source, row.reason) == ("", "erased")
    _show(receipt, json_=False)
    assert f"Receipt {receipt.id}" in capsys.readouterr().out
    _show(receipt, json_=True)
    assert str(receipt.id) in capsys.readouterr().out
    with pytest.raises(UnknownItem):
        retention.erase(sessions, storage, item + 1, WHY, "service")
    with pytest.raises(Conflict, match="was erased"):
        retention.hold(sessions, item, "a court", "service")


def test_an_image_that_arrives_meanwhile_is_not_forgotten(
    sessions: Sessions, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Submission("letter-of-jane.txt", error="letter-of-jane.txt cannot be read")
    submissions.accept(sessions, storage, lambda: None, [file], SIMPLE)
    take = erasure._take

    def crossing(*args: Any) -> None:
        at_once.setattr(erasure, "_take", take)
        with sessions.begin() as other:  # as what fetches it does
            image = StoredImage(digest="ab" * 32, bytes=1)
            other.add(image)
            other.flush()
            other.execute(update(Item).where(Item.id == item).values(image_id=image.id))
        take(*args)

    with sessions.begin() as session:
        item = session.scalars(select(Item.id)).one()
    with monkeypatch.context() as at_once:
        at_once.setattr(erasure, "_take", crossing)
        with pytest.raises(Conflict, match="has just arrived"):
            retention.erase(sessions, storage, item, WHY, "service")
    assert retention.erase(sessions, storage, item, WHY, "service").image is not None


def test_a_review_that_stands_is_changed_by_nothing_else(kept: Case) -> None:
    with pytest.raises(Exception, match="stays as it is"), kept.owner.begin() as connection:
        connection.execute(
            text(
                "UPDATE reviews SET decision = 'overturned', reason = NULL, "
                "note = NULL WHERE settled_at IS NOT NULL"
            )
        )


def test_a_neighbour_may_still_name_the_digest(case: Case) -> None:
    """As the receipt says: it is committed to, and leads to nothing."""
    with case.sessions.begin() as session:
        record = session.scalars(select(StoredExplanation.record)).first()
        assert record is not None
        near = next(i["digest"] for i in record["images"])
        item = session.scalars(
            select(Item.id).join(StoredImage).where(StoredImage.digest == near)
        ).first()
    assert item is not None
    receipt = retention.erase(case.sessions, case.storage, item, WHY, "service")
    with case.sessions.begin() as session:
        assert near in str(session.scalars(select(StoredExplanation.record)).first())
    assert any("Explanations of other images" in why for why in receipt.stays)
    assert not case.storage.has(near)
