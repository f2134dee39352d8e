"""Appeals: opened by platforms, decided by somebody else, closed by that one decision."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from filter_service import retention
from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, Person, ReviewOutcome, StoredImage
from filter_service.errors import Conflict, InvalidRequest, NotAllowed, UnknownEntry, UnknownItem
from filter_service.reviews import restricted
from filter_service.reviews.appeals import appeal, appeals_of, open_appeal
from filter_service.reviews.case_claims import claim, claim_next, release
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.decisions import decide
from filter_service.reviews.queue import Filter
from filter_service.reviews.review_rules import RuleKind, add_rule
from filter_service.reviews.settlement import Decision, settle
from tests.support.review_cases import (
    LEASE,
    Wanted,
    cases_of,
    colleague,
    events_of,
    listening,
    one_case,
    stage_of,
    told_to_platforms,
)

ANY = Filter()
WORDS = "It is a toy."
PLATFORM = "key platform"
CONFIRMED, OVERTURNED = Decision.CONFIRMED, Decision.OVERTURNED


def say(sessions: Sessions, person: Person, item: int, decision: Decision = CONFIRMED) -> None:
    """Claim, decide, and let it take effect."""
    claim(sessions, person, item, LEASE)
    reason = "too hard" if decision is Decision.ESCALATED else None
    decide(sessions, person, item, decision, reason=reason, undo_seconds=0)
    settle(sessions)


def ask(sessions: Sessions, item: int, statement: str = WORDS) -> uuid.UUID:
    return open_appeal(sessions, item, statement, PLATFORM)


def outcome(sessions: Sessions, item: int) -> str | None:
    with sessions.begin() as session:
        return session.scalar(select(ReviewOutcome.decision).where(ReviewOutcome.item_id == item))


@pytest.mark.parametrize(("decision", "upheld"), [(CONFIRMED, True), (OVERTURNED, False)])
def test_one_decision_closes_the_appeal(
    sessions: Sessions, ada: Person, ben: Person, decision: Decision, upheld: bool
) -> None:
    item = one_case(sessions)
    say(sessions, ada, item)
    opened = ask(sessions, item)
    assert stage_of(sessions, item) == "appeal"
    say(sessions, ben, item, decision)
    closed = appeal(sessions, opened)
    assert (closed.upheld, closed.closed_at is None) == (upheld, False)
    assert outcome(sessions, item) == decision
    assert stage_of(sessions, item) is None
    assert events_of(sessions, item)[-2:] == ["appeal closed", "settled"]


def test_the_platform_is_told_of_an_appeal(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    say(sessions, ada, item)
    listening(sessions)
    opened = ask(sessions, item)
    say(sessions, ben, item, OVERTURNED)
    events = told_to_platforms(sessions)
    assert [e.type for e in events] == ["appeal.opened", "review.decided", "appeal.closed"]
    assert {e.subject for e in events} == {f"item {item}"}
    assert events[-1].payload["appeal"] == str(opened)
    assert (events[-1].payload["upheld"], events[-1].payload["final"]) == (False, "clear")


def test_whoever_decided_does_not_decide_the_appeal(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = one_case(sessions)
    say(sessions, ada, item)
    ask(sessions, item)
    assert claim_next(sessions, ada, ANY, LEASE) is None
    with pytest.raises(Conflict, match="has decided item"):
        claim(sessions, ada, item, LEASE)
    found = claim_next(sessions, ben, Filter(stage=Stage.APPEAL), LEASE)
    assert found is not None and found.item_id == item


def test_only_one_appeal_is_open_at_a_time(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    say(sessions, ada, item)

    def attempt(_: int) -> bool:
        try:
            ask(sessions, item)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(attempt, range(4))) == 1
    say(sessions, ben, item)
    ask(sessions, item, "Look again.")
    assert [a.upheld for a in appeals_of(sessions, item)] == [True, None]


@pytest.mark.parametrize("statement", ["", "  \n", "x" * 5_001, "NUL \x00"])
def test_an_unfit_statement_is_refused(sessions: Sessions, statement: str) -> None:
    with pytest.raises(InvalidRequest, match="The statement"):
        ask(sessions, one_case(sessions), statement)


def test_only_flags_are_appealed(sessions: Sessions, ada: Person) -> None:
    clear, cleared = one_case(sessions, sampled=True), one_case(sessions)
    say(sessions, ada, cleared, OVERTURNED)
    with pytest.raises(InvalidRequest, match="is clear: only flags"):
        ask(sessions, clear)
    with pytest.raises(InvalidRequest, match="was overturned"):
        ask(sessions, cleared)
    with pytest.raises(UnknownItem):
        ask(sessions, 4711)
    with pytest.raises(UnknownEntry):
        appeal(sessions, uuid.uuid4())


def test_what_was_erased_or_locked_away_is_not_appealed(sessions: Sessions) -> None:
    items = erased, locked = cases_of(sessions, [Wanted()] * 2, review=False)
    retention.request(sessions, erased, "asked for", "service")
    with sessions.begin() as session:
        found = session.get_one(Item, locked)
        assert found.image_id is not None
        away = restricted.RestrictedFlag(locked, found.batch_id, found.image_id, "gun", 30)
        restricted.lock_away(session, [away], "worker 1")
    with pytest.raises(Conflict, match="was erased"):
        ask(sessions, erased)
    with pytest.raises(NotAllowed, match="is locked away"):
        ask(sessions, locked)
    assert [appeals_of(sessions, item) for item in items] == [[], []]


def test_an_appeal_waits_for_an_erasure(sessions: Sessions) -> None:
    (item,) = cases_of(sessions, [Wanted()], review=False)
    with sessions.begin() as session:
        image = session.get_one(
            StoredImage, session.get_one(Item, item).image_id, with_for_update=True
        )
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(ask, sessions, item)
            with pytest.raises(TimeoutError):
                asked.result(0.3)
            image.digest, image.bytes_gone_at = None, datetime.now(UTC)
            session.commit()
            with pytest.raises(Conflict, match="was erased"):
                asked.result(10)
    assert appeals_of(sessions, item) == []


def test_what_a_sample_found_is_appealed_too(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions, sampled=True)
    say(sessions, ada, item, OVERTURNED)
    opened = ask(sessions, item)
    say(sessions, ben, item, OVERTURNED)
    assert appeal(sessions, opened).upheld, "it was not clear, so the image stays forbidden"


def test_an_item_nobody_reviewed_is_appealed(sessions: Sessions, ada: Person) -> None:
    (item,) = cases_of(sessions, [Wanted("knife", 2.0)], review=False)
    opened = ask(sessions, item)
    found = claim_next(sessions, ada, ANY, LEASE)
    assert found is not None
    assert (found.stage, found.class_name, found.margin) == (Stage.APPEAL, "knife", 2.0)
    decide(sessions, ada, item, CONFIRMED, undo_seconds=0)
    settle(sessions)
    assert appeal(sessions, opened).upheld


def test_a_waiting_case_becomes_the_appeal(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    opened = ask(sessions, item)
    assert stage_of(sessions, item) == "appeal"
    say(sessions, ada, item, OVERTURNED)
    assert appeal(sessions, opened).upheld is False


def test_an_appeal_takes_nobodys_case_away(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    opened = ask(sessions, item)
    assert stage_of(sessions, item) == "first"
    decide(sessions, ada, item, CONFIRMED, undo_seconds=0)
    settle(sessions)
    assert (stage_of(sessions, item), outcome(sessions, item)) == ("appeal", None)
    assert appeal(sessions, opened).closed_at is None, "ada could not read it before"
    say(sessions, ben, item)
    assert appeal(sessions, opened).upheld


def test_an_appeal_waits_for_a_decision_that_can_be_undone(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    decide(sessions, ada, item, OVERTURNED, undo_seconds=0)
    opened = ask(sessions, item)
    settle(sessions)
    assert stage_of(sessions, item) == "appeal"
    say(sessions, ben, item, OVERTURNED)
    assert appeal(sessions, opened).upheld is False


def test_a_case_taken_after_the_appeal_answers_it(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    opened = ask(sessions, item)
    release(sessions, ada, item)
    say(sessions, ben, item)
    assert appeal(sessions, opened).upheld


def test_an_appeal_needs_no_second_look(sessions: Sessions, ada: Person) -> None:
    add_rule(sessions, colleague(sessions, "boss", Role.ADMIN), RuleKind.SECOND_LOOK)
    item = one_case(sessions)
    ask(sessions, item)
    say(sessions, ada, item)
    assert (stage_of(sessions, item), outcome(sessions, item)) == (None, "confirmed")


def test_an_escalated_appeal_is_answered_by_a_senior(
    sessions: Sessions, ada: Person, sue: Person
) -> None:
    item = one_case(sessions)
    opened = ask(sessions, item)
    say(sessions, ada, item, Decision.ESCALATED)
    assert stage_of(sessions, item) == "senior"
    say(sessions, sue, item)
    assert appeal(sessions, opened).upheld


def test_an_appeal_about_an_escalated_case_stays_with_seniors(
    sessions: Sessions, ada: Person, sue: Person
) -> None:
    item = one_case(sessions)
    say(sessions, ada, item, Decision.ESCALATED)
    opened = ask(sessions, item)
    assert stage_of(sessions, item) == "senior"
    say(sessions, sue, item, OVERTURNED)
    assert appeal(sessions, opened).upheld is False


def test_appeals_are_not_decided_in_groups(sessions: Sessions, ada: Person) -> None:
    main, appealed, other = cases_of(sessions, [Wanted()] * 3)
    ask(sessions, appealed)
    claim(sessions, ada, main, LEASE)
    decided = decide(sessions, ada, main, CONFIRMED, undo_seconds=0, also=[appealed, other])
    assert {d.item_id for d in decided} == {main, other}
