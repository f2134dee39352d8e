"""Lists decide as somebody said, at recording and for what waits already, and only there."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import func, select, update

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    LedgerEntry,
    OutboxEvent,
    Person,
    Restriction,
    ReviewCase,
    ReviewOutcome,
    WebhookEndpoint,
)
from filter_service.errors import InvalidRequest, NotAllowed, UnknownEntry, UnknownItem
from filter_service.ledger import Event
from filter_service.reviews.hash_lists import (
    NewListEntry,
    add_entry,
    entries,
    preview,
    remove_entry,
)
from filter_service.reviews.hash_matching import ImageHashes, ListKind, Match
from filter_service.verdicts import Verdict
from tests.support.listed_items import Desk, bits, desk_of, person_of, turned

CLEAR, KNIFE, GUN, BOTH = (-1.0, -5.0), (2.0, -5.0), (-5.0, 3.0), (2.0, 1.0)
ONE, TWO, THREE = "ab" * 32, "cd" * 32, "ef" * 32

Enter = Callable[..., int]


@pytest.fixture
def desk(sessions: Sessions) -> Desk:
    return desk_of(sessions)


@pytest.fixture
def senior(sessions: Sessions) -> Person:
    return person_of(sessions, "kim")


@pytest.fixture
def enter(sessions: Sessions, senior: Person) -> Enter:
    def enter(
        kind: ListKind, match: Match = Match.DIGEST, name: str = "knife", **known: object
    ) -> int:
        entered = NewListEntry(kind, name, match, reason="known", **known)  # type: ignore[arg-type]
        return add_entry(sessions, senior, entered).entry.id

    return enter


def item(sessions: Sessions, item_id: int) -> Item:
    with sessions.begin() as session:
        return session.scalars(select(Item).where(Item.id == item_id)).one()


def outcomes(sessions: Sessions) -> dict[int, tuple[str, str]]:
    columns = (ReviewOutcome.item_id, ReviewOutcome.class_name, ReviewOutcome.decision)
    with sessions.begin() as session:
        return {i: (name, said) for i, name, said in session.execute(select(*columns))}


def waiting(sessions: Sessions) -> dict[int, str]:
    with sessions.begin() as session:
        rows = session.execute(select(ReviewCase.item_id, ReviewCase.class_name))
        return {i: name for i, name in rows}


def events(sessions: Sessions, item_id: int) -> list[str]:
    with sessions.begin() as session:
        return [e.event for e in ledger.of_item(session, item_id)]


def test_a_blocked_image_is_flagged_whatever_the_model_says(
    sessions: Sessions, desk: Desk, enter: Enter
) -> None:
    entry = enter(ListKind.BLOCK, digest=ONE)
    (clear,) = desk.judge(CLEAR, digests=[ONE])
    found = item(sessions, clear)
    assert (found.verdict, found.list_entry_id, found.margin) == (Verdict.FLAGGED, entry, -1.0)
    assert outcomes(sessions) == {clear: ("knife", "confirmed")}
    assert waiting(sessions) == {}
    assert events(sessions, clear) == ["judged", "list decided"]


def test_a_blocked_image_that_cannot_be_read_is_flagged_too(
    sessions: Sessions, desk: Desk, enter: Enter
) -> None:
    enter(ListKind.BLOCK, digest=ONE)
    (broken,) = desk.judge(None, digests=[ONE])
    found = item(sessions, broken)
    assert (found.verdict, found.reason, found.margin) == (Verdict.FLAGGED, None, None)


def test_an_allowed_image_stays_flagged_and_waits_for_nobody(
    sessions: Sessions, desk: Desk, enter: Enter
) -> None:
    entry = enter(ListKind.ALLOW, digest=ONE)
    with sessions.begin() as session:
        session.add(WebhookEndpoint(url="https://a.example", secret="whsec_", created_by="x"))
    (flagged,) = desk.judge(KNIFE, digests=[ONE])
    found = item(sessions, flagged)
    assert (found.verdict, found.list_entry_id) == (Verdict.FLAGGED, entry)
    assert outcomes(sessions) == {flagged: ("knife", "overturned")}
    assert waiting(sessions) == {}
    with sessions.begin() as session:
        assert session.scalars(select(OutboxEvent)).all() == []  # nobody is to remove it


def test_an_allowance_takes_away_one_class_only(
    sessions: Sessions, desk: Desk, enter: Enter
) -> None:
    enter(ListKind.ALLOW, digest=ONE)
    (both,) = desk.judge(BOTH, digests=[ONE])
    assert waiting(sessions) == {both: "gun"}
    assert item(sessions, both).list_entry_id is None
    assert outcomes(sessions) == {}


def test_a_block_wins_over_an_allowance(sessions: Sessions, desk: Desk, enter: Enter) -> None:
    enter(ListKind.ALLOW, digest=ONE)
    block = enter(ListKind.BLOCK, digest=ONE)
    (flagged,) = desk.judge(KNIFE, digests=[ONE])
    assert item(sessions, flagged).list_entry_id == block


@pytest.mark.parametrize("kind", list(ListKind))
def test_a_class_that_the_policy_does_not_forbid_is_left_alone(
    sessions: Sessions, desk: Desk, enter: Enter, kind: ListKind
) -> None:
    enter(kind, name="spoon", digest=ONE)
    clear, flagged = desk.judge(CLEAR, KNIFE, digests=[ONE, ONE])
    assert item(sessions, clear).verdict is Verdict.CLEAR
    assert waiting(sessions) == {flagged: "knife"}


def test_copies_are_matched_within_some_bits(sessions: Sessions, desk: Desk, enter: Enter) -> None:
    (first,) = desk.judge(KNIFE, hashes=[bits(1)])
    enter(ListKind.BLOCK, Match.PDQ, item_id=first)
    near, far = desk.judge(CLEAR, CLEAR, hashes=[bits(1, 31), bits(1, 32)])
    assert item(sessions, near).verdict is Verdict.FLAGGED
    assert item(sessions, far).verdict is Verdict.CLEAR


def test_embeddings_are_matched_within_some_degrees(
    sessions: Sessions, desk: Desk, enter: Enter
) -> None:
    z = turned([0, 9.9, 10.1])
    (first,) = desk.judge(KNIFE, vectors=z[:1])
    enter(ListKind.BLOCK, Match.RADIUS, item_id=first, within=10.0)
    near, far = desk.judge(CLEAR, CLEAR, vectors=z[1:])
    assert item(sessions, near).verdict is Verdict.FLAGGED
    assert item(sessions, far).verdict is Verdict.CLEAR


@pytest.mark.parametrize("match", list(Match))
def test_an_image_known_from_before_is_matched_without_being_computed(
    sessions: Sessions, desk: Desk, enter: Enter, match: Match
) -> None:
    (first,) = desk.judge(KNIFE, digests=[ONE], hashes=[bits(1)], vectors=turned([0]))
    enter(ListKind.BLOCK, match, item_id=first)
    (again,) = desk.judge(CLEAR, digests=[ONE])
    assert item(sessions, again).verdict is Verdict.FLAGGED


def test_any_frame_of_an_animation_is_matched(sessions: Sessions, desk: Desk, enter: Enter) -> None:
    (first,) = desk.judge(KNIFE, vectors=turned([0]))
    enter(ListKind.BLOCK, Match.RADIUS, item_id=first)
    with sessions.begin() as session:
        lists = desk.matcher.lists(session)
    frames = np.concatenate([turned([0, 90])[1:], turned([5])])  # (2, d)
    assert lists.hits(ImageHashes(TWO, vectors=frames)) and not lists.hits(
        ImageHashes(TWO, vectors=frames[:1])
    )


def test_a_removed_entry_matches_no_more(
    sessions: Sessions, desk: Desk, enter: Enter, senior: Person
) -> None:
    entry = enter(ListKind.BLOCK, digest=ONE)
    desk.judge(CLEAR, digests=[ONE])
    remove_entry(sessions, senior, entry)
    (later,) = desk.judge(CLEAR, digests=[ONE])
    assert item(sessions, later).verdict is Verdict.CLEAR
    with pytest.raises(UnknownEntry):
        remove_entry(sessions, senior, entry)


def test_a_list_that_did_not_change_is_not_read_again(
    sessions: Sessions, desk: Desk, enter: Enter, senior: Person
) -> None:
    entry = enter(ListKind.BLOCK, digest=ONE)
    with sessions.begin() as session:
        first = desk.matcher.lists(session)
        assert desk.matcher.lists(session) is first
    remove_entry(sessions, senior, entry)
    with sessions.begin() as session:
        assert desk.matcher.lists(session) is not first


def waiting_ones(desk: Desk) -> list[int]:
    """Three near each other, one far from them, one for another class."""
    return desk.judge(
        KNIFE, KNIFE, KNIFE, KNIFE, GUN,
        digests=[ONE, ONE, TWO, THREE, ONE],
        hashes=[bits(1), None, bits(1, 9), bits(2), None],
        vectors=turned([0, 0, 9, 60, 0]),
    )  # fmt: skip


@pytest.mark.parametrize(("match", "matched"), [("digest", 2), ("pdq", 3), ("radius", 3)])
def test_an_entry_decides_what_waits_as_its_preview_said(
    sessions: Sessions, desk: Desk, senior: Person, match: str, matched: int
) -> None:
    items = waiting_ones(desk)
    entered = NewListEntry(ListKind.ALLOW, "knife", Match(match), item_id=items[0], reason="a logo")
    seen = preview(sessions, senior, entered)
    assert seen == items[:matched]
    assert add_entry(sessions, senior, entered, decide_waiting=True).decided == matched
    assert outcomes(sessions) == {i: ("knife", "overturned") for i in seen}
    assert sorted(waiting(sessions)) == items[matched:]
    assert events(sessions, items[1])[-1] == "list decided"


def test_what_somebody_works_on_is_left_to_them(
    sessions: Sessions, desk: Desk, senior: Person
) -> None:
    held, free = desk.judge(KNIFE, KNIFE, digests=[ONE, ONE])
    with sessions.begin() as session:
        session.execute(
            update(ReviewCase)
            .where(ReviewCase.item_id == held)
            .values(leased_until=func.now() + timedelta(minutes=1))
        )
    entered = NewListEntry(ListKind.BLOCK, "knife", Match.DIGEST, digest=ONE, reason="known")
    assert add_entry(sessions, senior, entered, decide_waiting=True).decided == 1
    assert list(outcomes(sessions)) == [free]


def test_entries_come_newest_first_and_page_by_page(sessions: Sessions, enter: Enter) -> None:
    ids = [enter(kind, digest=ONE) for kind in (ListKind.BLOCK, ListKind.ALLOW, ListKind.BLOCK)]
    first = entries(sessions, limit=2)
    rest = entries(sessions, after=first[-1].id, limit=2)
    assert [e.id for e in first + rest] == ids[::-1]
    assert [e.id for e in entries(sessions, kind=ListKind.ALLOW)] == [ids[1]]


@pytest.mark.parametrize(
    "entered",
    [
        NewListEntry(ListKind.BLOCK, "Knife!", Match.DIGEST, digest=ONE, reason="x"),
        NewListEntry(ListKind.BLOCK, "knife", Match.DIGEST, digest=ONE, reason=" "),
        NewListEntry(ListKind.BLOCK, "knife", Match.DIGEST, digest="ab", reason="x"),
        NewListEntry(ListKind.BLOCK, "knife", Match.DIGEST, reason="x"),
        NewListEntry(ListKind.BLOCK, "knife", Match.DIGEST, item_id=1, digest=ONE, reason="x"),
        NewListEntry(ListKind.BLOCK, "knife", Match.DIGEST, digest=ONE, within=3, reason="x"),
        NewListEntry(ListKind.BLOCK, "knife", Match.PDQ, item_id=1, within=65, reason="x"),
        NewListEntry(
            ListKind.BLOCK, "knife", Match.RADIUS, item_id=1, within=float("nan"), reason="x"
        ),
        NewListEntry(ListKind.BLOCK, "knife", Match.PDQ, digest=TWO, reason="x"),
        NewListEntry(ListKind.BLOCK, "knife", Match.PDQ, item_id=1, reason="x"),
        NewListEntry(ListKind.BLOCK, "knife", Match.RADIUS, item_id=1, reason="x"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(
    sessions: Sessions, desk: Desk, senior: Person, entered: NewListEntry
) -> None:
    assert desk.judge(None) == [1]
    with pytest.raises(InvalidRequest):
        add_entry(sessions, senior, entered)
    assert entries(sessions) == []


def test_an_unknown_item_is_refused(sessions: Sessions, senior: Person) -> None:
    with pytest.raises(UnknownItem):
        add_entry(
            sessions,
            senior,
            NewListEntry(ListKind.BLOCK, "knife", Match.PDQ, item_id=9, reason="x"),
        )


@pytest.mark.parametrize("match", list(Match))
def test_what_is_locked_away_is_not_listed(
    sessions: Sessions, desk: Desk, senior: Person, match: Match
) -> None:
    (first,) = desk.judge(KNIFE, digests=[ONE], hashes=[bits(1)], vectors=turned([0]))
    with sessions.begin() as session:
        image = session.get_one(Item, first).image_id
        session.add(
            Restriction(
                item_id=first,
                image_id=image,
                class_name="knife",
                sealed_at=datetime.now(UTC),
                preserve_until=datetime.now(UTC),
            )
        )
    for ask in (preview, add_entry):
        with pytest.raises(NotAllowed, match="is locked away") as refused:
            ask(sessions, senior, NewListEntry(ListKind.BLOCK, "knife", match, first, reason="x"))
        assert ONE not in str(refused.value)
    if match is not Match.DIGEST:
        known = NewListEntry(ListKind.BLOCK, "knife", match, digest=ONE, reason="x")
        with pytest.raises(InvalidRequest, match="No image is stored"):
            preview(sessions, senior, known)


def test_a_refusal_names_no_digest_that_was_not_given(
    sessions: Sessions, desk: Desk, senior: Person
) -> None:
    (plain,) = desk.judge(KNIFE, digests=[ONE])
    with pytest.raises(InvalidRequest, match=f"image of item {plain} has no perceptual hash"):
        preview(
            sessions, senior, NewListEntry(ListKind.BLOCK, "knife", Match.PDQ, plain, reason="x")
        )


@pytest.mark.parametrize("known", [True, False])
def test_an_entry_by_digest_tells_of_its_item(
    sessions: Sessions, desk: Desk, enter: Enter, known: bool
) -> None:
    """So that its payload goes when that is erased."""
    (first, _) = desk.judge(KNIFE, KNIFE, digests=[ONE, TWO])
    enter(ListKind.BLOCK, digest=ONE if known else THREE)
    with sessions.begin() as session:
        listed = select(LedgerEntry.item_id).where(LedgerEntry.event == Event.LISTED.value)
        assert session.scalars(listed).all() == [first if known else None]


def test_who_may_not_change_lists_is_refused(sessions: Sessions) -> None:
    entered = NewListEntry(ListKind.BLOCK, "knife", Match.DIGEST, digest=ONE, reason="x")
    moderator = person_of(sessions, "lee", "moderator")
    blind = person_of(sessions, "sam")
    blind.classes = ["gun"]
    for person in (moderator, blind):
        with pytest.raises(NotAllowed):
            add_entry(sessions, person, entered)
