"""Retention: which rule counts, what is never deleted, and bytes that nobody loses or leaves."""

import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, insert, select, text, update

from filter_service import ledger, retention
from filter_service.db.arrivals import arrived, enqueue, expect, keep_images
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Embedding,
    Item,
    LedgerEntry,
    LooseBytes,
    QueueEntry,
    Restriction,
    ReviewCase,
    ReviewOutcome,
    StoredExplanation,
    StoredImage,
)
from filter_service.errors import Conflict, InvalidRequest, StorageUnavailable, UnknownEntry
from filter_service.images import digest
from filter_service.intake import retries, submissions
from filter_service.intake.submissions import Submission
from filter_service.ledger import Event
from filter_service.moderation import drain
from filter_service.retention import ItemOutcome, RetainedPart, RetentionTerms, expire, sweep
from filter_service.retention import orphaned_bytes as room
from filter_service.retention.expiry import Facts, over
from filter_service.retention.retention_rules import EffectiveRetentionRule, winning
from filter_service.schedule import CHORES
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.review_cases import colleague, one_case
from tests.support.simple_classifier import POLICY, SimpleJudge, desk_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ALL = tuple(RetainedPart)
FLAGGED, CLEAR = b"3 a knife", b"-3 nothing"


def rule(
    id: int, days: int, parts: Sequence[RetainedPart] = ALL, **terms: object
) -> EffectiveRetentionRule:
    return EffectiveRetentionRule(days=days, parts=tuple(parts), id=id, **terms)  # type: ignore[arg-type]


def facts(item: int = 1, **changes: object) -> Facts:
    told: dict[str, object] = {
        "image_id": 1,
        "item_id": item,
        "batch_id": uuid.UUID(int=0),
        "class_name": None,
        "outcome": "clear",
        "last_at": NOW - timedelta(days=100),
        "preserve_until": None,
        "blocked": False,
    }
    return Facts(**told | changes)  # type: ignore[arg-type]


def judged(sessions: Sessions, storage: Storage, *files: bytes) -> list[int]:
    """Items of files that were judged; nobody has to review them."""
    batch = submissions.accept(
        sessions,
        storage,
        lambda: None,
        [Submission(f"{n}.jpg", data) for n, data in enumerate(files)],
        POLICY,
    )
    drain(desk_of(sessions, storage, SimpleJudge()))
    with sessions.begin() as session:
        items = list(session.scalars(select(Item.id).where(Item.batch_id == batch)))
        session.execute(ReviewCase.__table__.delete().where(ReviewCase.item_id.in_(items)))  # type: ignore[attr-defined]
    return sorted(items)


def age(owner: Engine, days: int) -> None:
    """As if everything had happened so many days ago."""
    with owner.begin() as connection:
        for table, column in (
            ("images", "created_at"),
            ("items", "judged_at"),
            ("review_outcomes", "at"),
            ("appeals", "closed_at"),
        ):
            earlier = f"UPDATE {table} SET {column} = {column} - :d * interval '1 day'"
            connection.execute(text(earlier), {"d": days})


def expired(sessions: Sessions, item: int) -> list[dict[str, object]]:
    with sessions.begin() as session:
        found = ledger.of_item(session, item)
        return [e.details for e in found if e.event == Event.EXPIRED]


def counts(sessions: Sessions) -> tuple[int, int]:
    """Embeddings and explanations that there are."""
    with sessions.begin() as session:
        tables = (Embedding, StoredExplanation)
        counted = [session.scalar(select(func.count()).select_from(t)) or 0 for t in tables]
    return counted[0], counted[1]


def decided(sessions: Sessions, item: int, decision: str, sampled: bool = False) -> None:
    with sessions.begin() as session:
        image = session.get_one(Item, item).image_id
        session.execute(
            insert(ReviewOutcome).values(
                item_id=item, image_id=image, class_name="gun", decision=decision, sampled=sampled
            )
        )


RULES = (
    rule(1, 400),
    rule(2, 30, outcome=ItemOutcome.CLEAR),
    rule(3, 365, outcome=ItemOutcome.CONFIRMED),
    rule(4, 700, class_name="gun"),
    rule(5, 90, [RetainedPart.BYTES], class_name="gun", outcome=ItemOutcome.OVERTURNED),
)


@pytest.mark.parametrize(
    ("class_name", "outcome", "bytes_rule", "vectors_rule"),
    [
        (None, "clear", 2, 2),
        (None, "undetermined", 1, 1),
        ("knife", "flagged", 1, 1),
        ("knife", "confirmed", 3, 3),
        ("knife", "overturned", 1, 1),
        ("gun", "confirmed", 4, 4),
        ("gun", "overturned", 5, 4),
        (None, None, 1, 1),
    ],
)
def test_the_most_specific_rule_wins_for_each_part(
    class_name: str | None, outcome: str | None, bytes_rule: int, vectors_rule: int
) -> None:
    found = winning(RULES, class_name, outcome)
    assert (found[RetainedPart.BYTES].id, found[RetainedPart.EMBEDDINGS].id) == (
        bytes_rule,
        vectors_rule,
    )


def test_of_two_rules_alike_the_longer_wins() -> None:
    assert winning([rule(1, 50), rule(2, 10)], None, "clear")[RetainedPart.BYTES].id == 1


def test_without_a_rule_nothing_is_deleted() -> None:
    assert over([], [facts()], NOW) == {}
    assert over([rule(1, 5, outcome=ItemOutcome.CONFIRMED)], [facts()], NOW) == {}


def test_a_shared_image_is_kept_as_long_as_the_longest() -> None:
    rules = [rule(1, 30), rule(2, 200, [RetainedPart.BYTES], outcome=ItemOutcome.OVERTURNED)]
    shared = [facts(1), facts(2, outcome="overturned")]
    kept = (RetainedPart.EMBEDDINGS, RetainedPart.EXPLANATIONS)
    assert over(rules, shared, NOW) == {1: dict.fromkeys(kept, 1), 2: dict.fromkeys(kept, 1)}
    assert over(rules, [facts(1), facts(2, blocked=True)], NOW) == {}
    assert over(rules, [facts(1), facts(2, last_at=None)], NOW) == {}


def test_what_is_sealed_goes_when_its_policy_says_so() -> None:
    later = facts(preserve_until=NOW + timedelta(days=1))
    assert over([rule(1, 0)], [later], NOW) == {}
    assert over([], [facts(preserve_until=NOW)], NOW) == {1: dict.fromkeys(ALL)}


@pytest.mark.parametrize(
    ("decision", "sampled", "outcome"),
    [
        (None, False, ItemOutcome.FLAGGED),
        ("confirmed", False, ItemOutcome.CONFIRMED),
        ("overturned", False, ItemOutcome.OVERTURNED),
        ("overturned", True, ItemOutcome.CONFIRMED),
    ],
)
def test_an_item_expires_under_the_rule_of_its_outcome(
    sessions: Sessions,
    storage: Storage,
    owner: Engine,
    decision: str | None,
    sampled: bool,
    outcome: ItemOutcome,
) -> None:
    (item,) = judged(sessions, storage, CLEAR if sampled else FLAGGED)
    if decision:
        decided(sessions, item, decision, sampled)
    others = [o for o in ItemOutcome if o is not outcome]
    for other in others:
        retention.add_rule(sessions, RetentionTerms(1, ALL, outcome=other), "service")
    age(owner, 20)
    assert expire(sessions) == 0
    mine = retention.add_rule(sessions, RetentionTerms(10, ALL, outcome=outcome), "service")
    assert expire(sessions) == 1
    assert expired(sessions, item) == [{"parts": [p.value for p in ALL], "rule": mine.id}]
    assert counts(sessions) == (0, 0)
    assert storage.has(digest(CLEAR if sampled else FLAGGED))  # until the commit has been seen
    assert sweep(sessions, storage) == 1
    assert not storage.has(digest(CLEAR if sampled else FLAGGED))
    assert expire(sessions) == 0


def test_each_part_has_its_own_time(sessions: Sessions, storage: Storage, owner: Engine) -> None:
    flagged, clear = judged(sessions, storage, FLAGGED, CLEAR)
    one = retention.add_rule(sessions, RetentionTerms(10, (RetainedPart.BYTES,)), "service")
    two = retention.add_rule(
        sessions, RetentionTerms(50, (RetainedPart.EMBEDDINGS, RetainedPart.BYTES)), "service"
    )
    retention.remove_rule(sessions, two.id, "service")
    age(owner, 20)
    assert expire(sessions) == 2
    assert counts(sessions) == (2, 1)
    assert expired(sessions, clear) == [{"parts": ["bytes"], "rule": one.id}]
    age(owner, 40)
    assert expire(sessions) == 0
    last = retention.add_rule(sessions, RetentionTerms(50, (RetainedPart.EMBEDDINGS,)), "service")
    assert expire(sessions) == 2
    assert expired(sessions, flagged)[1] == {"parts": ["embeddings"], "rule": last.id}
    assert counts(sessions) == (0, 1)


BLOCKS = ("case", "appeal", "queue", "hold", "sealed")


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_not_done_with_is_kept(
    sessions: Sessions, storage: Storage, owner: Engine, block: str
) -> None:
    (item, twin) = judged(sessions, storage, FLAGGED, FLAGGED)
    person = colleague(sessions, "anna")
    with sessions.begin() as session:
        image = session.get_one(Item, item).image_id
        of = {"item_id": item, "image_id": image}
        at = datetime.now(UTC)
        if block == "queue":
            enqueue(session, [item], 0)
        elif block == "appeal":
            session.add(Appeal(id=uuid.uuid4(), item_id=item, statement="s", opened_by="key a"))
        elif block == "sealed":
            until = at + timedelta(days=9)
            session.add(Restriction(**of, class_name="knife", sealed_at=at, preserve_until=until))
    if block == "hold":
        retention.hold(sessions, item, "a court", f"person {person.login}")
    if block == "case":
        item = one_case(sessions)
    retention.add_rule(sessions, RetentionTerms(1, ALL), "service")
    age(owner, 20)
    assert expire(sessions) == (1 if block == "case" else 0)  # the twins, without a case
    assert expired(sessions, item) == []
    assert bool(expired(sessions, twin)) == (block == "case")


def test_a_released_hold_lets_an_image_go(
    sessions: Sessions, storage: Storage, owner: Engine
) -> None:
    (item,) = judged(sessions, storage, CLEAR)
    retention.hold(sessions, item, "a court", "service")
    with pytest.raises(Conflict, match="already"):
        retention.hold(sessions, item, "a court", "service")
    assert [h.item_id for h in retention.holds(sessions)] == [item]
    retention.release(sessions, item, "it is over", "service")
    with pytest.raises(UnknownEntry, match="under no legal hold"):
        retention.release(sessions, item, "it is over", "service")
    retention.add_rule(sessions, RetentionTerms(0, ALL), "service")
    assert expire(sessions) == 1
    with sessions.begin() as session:
        events = [e.event for e in ledger.of_item(session, item)]
    assert events[-3:] == ["held", "hold released", "expired"]


def test_sealed_bytes_go_when_their_time_is_over(sessions: Sessions, storage: Storage) -> None:
    (item,) = judged(sessions, storage, FLAGGED)
    with sessions.begin() as session:
        image = session.get_one(Item, item).image_id
        until = func.now() - timedelta(seconds=1)
        sealed = {"item_id": item, "image_id": image, "class_name": "knife"}
        session.execute(insert(Restriction).values(**sealed, preserve_until=until))
    assert (expire(sessions), sweep(sessions, storage)) == (1, 1)
    assert expired(sessions, item) == [{"parts": [p.value for p in ALL], "rule": None}]
    assert not storage.has(digest(FLAGGED))


class Failing(Storage):
    """A storage that does not answer when it should forget."""

    def delete(self, digest: str) -> None:
        raise StorageUnavailable(f"Image {digest} cannot be deleted now.")


def test_bytes_whose_deletion_failed_are_deleted_later(
    sessions: Sessions, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    judged(sessions, storage, CLEAR)
    retention.add_rule(sessions, RetentionTerms(0, ALL), "service")
    expire(sessions)
    assert sweep(sessions, Failing(storage.url)) == 0
    assert "cannot be deleted now" in caplog.text
    assert storage.has(digest(CLEAR))
    assert sweep(sessions, storage) == 1
    assert not storage.has(digest(CLEAR))
    with sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(LooseBytes)) == 0


def test_what_was_killed_before_its_row_leaves_no_bytes(
    sessions: Sessions, storage: Storage, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submissions, "_add", killed)
    with pytest.raises(KeyboardInterrupt):
        judged(sessions, storage, CLEAR)
    assert sweep(sessions, storage) == 0
    with owner.begin() as connection:
        connection.execute(text("UPDATE loose_bytes SET due_at = now()"))
    assert sweep(sessions, storage) == 1
    assert not storage.has(digest(CLEAR))


def test_what_came_too_late_is_refused(
    sessions: Sessions, storage: Storage, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = submissions._keep

    def slow(*args: object) -> object:
        kept = keep(*args)  # type: ignore[arg-type]
        with owner.begin() as connection:
            connection.execute(text("UPDATE loose_bytes SET due_at = now()"))
        sweep(sessions, storage)
        return kept

    monkeypatch.setattr(submissions, "_keep", slow)
    with pytest.raises(StorageUnavailable, match="submit them again"):
        judged(sessions, storage, CLEAR)
    with sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(Item)) == 0


def test_what_arrives_at_the_last_moment_keeps_its_bytes(
    sessions: Sessions, storage: Storage, owner: Engine
) -> None:
    name = digest(CLEAR)
    with sessions.begin() as session:
        expected = expect(session, [name])
    storage.put(name, CLEAR)
    with owner.begin() as connection:
        connection.execute(text("UPDATE loose_bytes SET due_at = now()"))
    with ThreadPoolExecutor(1) as threads:
        with sessions.begin() as session:
            keep_images(session, {name: len(CLEAR)})
            arrived(session, expected)
            swept = threads.submit(sweep, sessions, storage)
            with pytest.raises(TimeoutError):
                swept.result(0.3)
        assert swept.result(10) == 0
    assert storage.has(name)


def test_an_image_submitted_again_has_its_bytes_again(sessions: Sessions, storage: Storage) -> None:
    (first,) = judged(sessions, storage, CLEAR)
    rule = retention.add_rule(sessions, RetentionTerms(0, ALL), "service")
    assert (expire(sessions), sweep(sessions, storage)) == (1, 1)
    with sessions.begin() as session:
        assert f"under retention rule {rule.id}" in (retention.why_gone(session, first) or "")
    retention.remove_rule(sessions, rule.id, "service")
    (second,) = judged(sessions, storage, CLEAR)
    with sessions.begin() as session:
        image = session.get_one(StoredImage, session.get_one(Item, second).image_id)
        assert session.get_one(Item, second).verdict is Verdict.CLEAR
        assert (image.bytes_gone_at, image.parts_gone) == (None, [])
        assert retention.why_gone(session, second) is None
    assert counts(sessions)[0] == 1
    assert (sweep(sessions, storage), storage.has(digest(CLEAR))) == (0, True)


@pytest.mark.parametrize("moment", ["before put", "after put", "after row"])
def test_a_submission_that_crosses_a_deletion_keeps_its_bytes(
    sessions: Sessions, storage: Storage, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    judged(sessions, storage, CLEAR)
    retention.add_rule(sessions, RetentionTerms(0, ALL, outcome=ItemOutcome.CLEAR), "service")
    keep, add = submissions._keep, submissions._add

    def delete() -> None:
        assert (expire(sessions), sweep(sessions, storage)) == (1, 0)

    def kept(*args: object) -> object:
        if moment == "before put":
            delete()
        found = keep(*args)  # type: ignore[arg-type]
        if moment == "after put":
            delete()
        return found

    def added(*args: object) -> None:
        if moment != "after row":
            return add(*args)  # type: ignore[arg-type]
        expire(sessions)  # the rows are gone, the bytes are still to be deleted
        add(*args)  # type: ignore[arg-type]
        assert sweep(sessions, storage) == 0
        return None

    monkeypatch.setattr(submissions, "_keep", kept)
    monkeypatch.setattr(submissions, "_add", added)
    (again,) = judged(sessions, storage, CLEAR)
    sweep(sessions, storage)
    assert storage.get(digest(CLEAR)) == CLEAR
    with sessions.begin() as session:
        assert session.get_one(Item, again).verdict is Verdict.CLEAR


def test_deleting_and_submitting_at_once_loses_nothing(
    sessions: Sessions, storage: Storage
) -> None:
    files = [b"-%d nothing" % n for n in range(1, 9)]
    judged(sessions, storage, *files)
    retention.add_rule(sessions, RetentionTerms(0, (RetainedPart.BYTES,)), "service")
    over = threading.Event()

    def forget() -> None:
        while not over.is_set():
            expire(sessions)
            sweep(sessions, storage)

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        for _ in range(6):
            submissions.accept(
                sessions, storage, lambda: None, [Submission("a", f) for f in files], POLICY
            )
            with sessions.begin() as session:
                assert session.scalar(select(func.count()).select_from(QueueEntry)) == len(files)
            for f in files:
                assert storage.get(digest(f)) == f  # queued: nothing deletes it
            drain(desk_of(sessions, storage, SimpleJudge()))
    finally:
        over.set()
        thread.join()
    with sessions.begin() as session:
        undetermined = select(func.count()).where(Item.verdict == Verdict.UNDETERMINED)
        assert session.scalar(undetermined.select_from(Item)) == 0


def test_two_who_expire_at_once_write_it_once(sessions: Sessions, storage: Storage) -> None:
    items = judged(sessions, storage, *[b"-%d nothing" % n for n in range(1, 30)])
    retention.add_rule(sessions, RetentionTerms(0, ALL), "service")
    threads = [threading.Thread(target=expire, args=[sessions]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(expired(sessions, item)) for item in items] == [1] * len(items)


def test_what_was_deleted_is_not_retried(
    sessions: Sessions, storage: Storage, owner: Engine
) -> None:
    (item,) = judged(sessions, storage, b"unreadable")
    retention.add_rule(sessions, RetentionTerms(0, ALL), "service")
    assert expire(sessions) == 1
    assert retries.retry_items(sessions, lambda: None, [item]) == 0
    with sessions.begin() as session:
        batch = session.get_one(Item, item).batch_id
    assert retries.retry(sessions, lambda: None, batch) == 0


def test_what_is_judged_again_has_its_own_time_again(sessions: Sessions, storage: Storage) -> None:
    (item,) = judged(sessions, storage, FLAGGED)
    retention.add_rule(
        sessions, RetentionTerms(0, (RetainedPart.EMBEDDINGS, RetainedPart.EXPLANATIONS)), "service"
    )
    assert expire(sessions) == 1
    with sessions.begin() as session:
        session.execute(update(Item).where(Item.id == item).values(verdict=None, judged_at=None))
        enqueue(session, [item], 0)
    drain(desk_of(sessions, storage, SimpleJudge()))
    with sessions.begin() as session:
        session.execute(ReviewCase.__table__.delete())  # type: ignore[attr-defined]
    assert counts(sessions) == (1, 1)
    assert expire(sessions) == 1
    assert counts(sessions) == (0, 0)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (RetentionTerms(-1, ALL), "days"),
        (RetentionTerms(10, ()), "deletes nothing"),
        (RetentionTerms(10, ALL, "gun", ItemOutcome.CLEAR), "is of no class"),
        (RetentionTerms(10, ALL, "A Gun"), "names no class"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(
    sessions: Sessions, terms: RetentionTerms, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        retention.add_rule(sessions, terms, "service")


def test_a_rule_within_the_time_for_complaints_is_warned_of() -> None:
    assert "six months" in (RetentionTerms(30, ALL).warning or "")
    assert "of confirmed items" in (
        RetentionTerms(182, ALL, outcome=ItemOutcome.CONFIRMED).warning or ""
    )
    assert RetentionTerms(183, ALL, outcome=ItemOutcome.CONFIRMED).warning is None
    assert RetentionTerms(1, ALL, outcome=ItemOutcome.CLEAR).warning is None


def test_nothing_is_deleted_without_an_entry(sessions: Sessions, storage: Storage) -> None:
    (item,) = judged(sessions, storage, FLAGGED)
    with sessions.begin() as session:
        image = session.get_one(Item, item).image_id
    for forbidden in (
        f"SELECT forget_image({image}, '{{explanations}}')",
        f"SELECT erase_payloads({item})",
        f"SELECT erase_words({item}, 'reviews')",
        f"SELECT erase_list_entries({item})",
        "DELETE FROM embeddings",
        "DELETE FROM explanations",
    ):
        with (
            pytest.raises(Exception, match=r"entry|permission denied"),
            sessions.begin() as session,
        ):
            session.execute(text(forbidden))
    assert counts(sessions) == (1, 1)


def test_the_chores_know_retention() -> None:
    assert {"expire", "erase"} <= set(CHORES)
    assert room.AT_ONCE


def test_rules_are_in_the_ledger(sessions: Sessions) -> None:
    added = retention.add_rule(sessions, RetentionTerms(400, ALL, "gun"), "person ada")
    retention.remove_rule(sessions, added.id, "person ada")
    with pytest.raises(UnknownEntry, match="no retention rule"):
        retention.remove_rule(sessions, added.id, "person ada")
    with sessions.begin() as session:
        rows = session.scalars(select(LedgerEntry).order_by(LedgerEntry.id)).all()
    assert [e.event for e in rows] == ["retention added", "retention removed"]
    assert rows[0].details["days"] == 400
