"""Decisions: written at once, undone in time, and what becomes of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from filter_service.accounts import Role, reveal
from filter_service.db.session import Sessions
from filter_service.db.tables import Person, Review, ReviewOutcome, StoredImage, Tally
from filter_service.errors import Conflict, InvalidRequest, NotAllowed, UnknownEntry
from filter_service.reviews.case_claims import claim, claim_next
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.decisions import DecisionReceipt, decide, undo
from filter_service.reviews.queue import Filter, case_of, waiting
from filter_service.reviews.review_rules import RuleKind, add_rule
from filter_service.reviews.settlement import Decision, settle
from filter_service.reviews.visible_decisions import visible_decisions
from tests.support.review_cases import (
    LEASE,
    Wanted,
    cases_of,
    colleague,
    events_of,
    leave,
    listening,
    one_case,
    reviews_of,
    stage_of,
    told_to_platforms,
)

ANY = Filter()
CONFIRMED, OVERTURNED = Decision.CONFIRMED, Decision.OVERTURNED


def second_looks(sessions: Sessions, class_name: str | None = None) -> None:
    add_rule(
        sessions,
        colleague(sessions, "boss", Role.ADMIN),
        RuleKind.SECOND_LOOK,
        class_name=class_name,
    )


def say(
    sessions: Sessions,
    person: Person,
    item: int,
    decision: Decision = CONFIRMED,
    undo_seconds: float = 0,
) -> list[DecisionReceipt]:
    """Claim and decide."""
    claim(sessions, person, item, LEASE)
    reason = "too hard" if decision in (Decision.ESCALATED, Decision.SKIPPED) else None
    return decide(sessions, person, item, decision, reason=reason, undo_seconds=undo_seconds)


def outcome(sessions: Sessions, item: int) -> str | None:
    with sessions.begin() as session:
        return session.scalar(select(ReviewOutcome.decision).where(ReviewOutcome.item_id == item))


def tally(sessions: Sessions, kind: str) -> float:
    with sessions.begin() as session:
        return sum(session.scalars(select(Tally.amount).where(Tally.kind == kind)))


def test_a_decision_takes_effect(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    say(sessions, ada, item, OVERTURNED)
    assert outcome(sessions, item) is None
    assert settle(sessions) == 1
    assert outcome(sessions, item) == "overturned"
    assert stage_of(sessions, item) is None
    assert tally(sessions, "overturned") == 1
    assert events_of(sessions, item) == ["opened", "claimed", "decided", "settled"]
    assert settle(sessions) == 0


def test_the_platform_is_told(sessions: Sessions, ada: Person) -> None:
    listening(sessions)
    item = one_case(sessions)
    say(sessions, ada, item, OVERTURNED)
    settle(sessions)
    (event,) = told_to_platforms(sessions)
    assert (event.type, event.item_id) == ("review.decided", item)
    assert event.payload["decision"] == "overturned"
    assert (event.payload["verdict"], event.payload["final"]) == ("flagged", "clear")


def test_a_decision_waits_until_it_cannot_be_undone(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = one_case(sessions)
    say(sessions, ada, item, undo_seconds=60)
    assert settle(sessions) == 0
    assert claim_next(sessions, ben, ANY, LEASE) is None
    assert waiting(sessions, ben, Filter(held="all")).cases == []
    with pytest.raises(Conflict, match="has just been decided"):
        claim(sessions, ben, item, LEASE)
    (mine,) = waiting(sessions, ada, Filter(held="mine")).cases
    assert mine.pending


def test_undoing_gives_the_case_back(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    (decided,) = say(sessions, ada, item, undo_seconds=60)
    undo(sessions, ada, [decided.review_id])
    undo(sessions, ada, [decided.review_id])
    case = case_of(sessions, item)
    assert case is not None and case.holder == "ada" and not case.pending
    assert claim_next(sessions, ben, ANY, LEASE) is None
    assert events_of(sessions, item) == ["opened", "claimed", "decided", "undone"]
    decide(sessions, ada, item, OVERTURNED, undo_seconds=0)
    settle(sessions)
    assert outcome(sessions, item) == "overturned"


def test_undoing_too_late_is_refused(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    (decided,) = say(sessions, ada, item)
    with pytest.raises(Conflict, match="too late to undo"):
        undo(sessions, ada, [decided.review_id])
    settle(sessions)
    with pytest.raises(Conflict, match="too late to undo"):
        undo(sessions, ada, [decided.review_id])
    assert outcome(sessions, item) == "confirmed"


def test_nobody_undoes_what_another_decided(sessions: Sessions, ada: Person, ben: Person) -> None:
    (decided,) = say(sessions, ada, one_case(sessions), undo_seconds=60)
    with pytest.raises(UnknownEntry, match="ben made no decision"):
        undo(sessions, ben, [decided.review_id])


def test_pressing_twice_decides_once(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    ready = threading.Barrier(4)

    def press(_: int) -> list[DecisionReceipt]:
        ready.wait()
        return decide(sessions, ada, item, CONFIRMED, undo_seconds=60)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(press, range(4)))
    assert all(a == answers[0] for a in answers)
    assert len(reviews_of(sessions, item)) == 1
    assert events_of(sessions, item).count("decided") == 1


def test_pressing_again_after_it_took_effect_changes_nothing(
    sessions: Sessions, ada: Person
) -> None:
    item = one_case(sessions)
    first = say(sessions, ada, item)
    settle(sessions)
    assert decide(sessions, ada, item, CONFIRMED, undo_seconds=0) == first
    assert len(reviews_of(sessions, item)) == 1


def test_changing_ones_mind_needs_an_undo(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    say(sessions, ada, item, undo_seconds=60)
    with pytest.raises(Conflict, match="undo that first"):
        decide(sessions, ada, item, OVERTURNED, undo_seconds=60)


def test_only_the_holder_decides(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    with pytest.raises(Conflict, match="claim it first"):
        decide(sessions, ada, item, CONFIRMED, undo_seconds=0)
    claim(sessions, ada, item, LEASE)
    with pytest.raises(Conflict, match="ada has taken item"):
        decide(sessions, ben, item, CONFIRMED, undo_seconds=0)
    assert reviews_of(sessions, item) == []


def test_a_lapsed_lease_loses_no_work(sessions: Sessions, ada: Person, ben: Person) -> None:
    kept, lost = cases_of(sessions, [Wanted(), Wanted()])
    for item in (kept, lost):
        claim(sessions, ada, item, LEASE)
        leave(sessions, item)
    claim(sessions, ben, lost, LEASE)
    assert decide(sessions, ada, kept, CONFIRMED, undo_seconds=0)
    with pytest.raises(Conflict, match="ben has taken item"):
        decide(sessions, ada, lost, CONFIRMED, undo_seconds=0)


@pytest.mark.parametrize("decision", [Decision.ESCALATED, Decision.SKIPPED])
def test_escalating_and_skipping_need_a_reason(
    sessions: Sessions, ada: Person, decision: Decision
) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    with pytest.raises(InvalidRequest, match="without a reason"):
        decide(sessions, ada, item, decision, reason="  ", undo_seconds=0)


@pytest.mark.parametrize(
    ("reason", "note"), [("x" * 501, None), ("no\x00", None), (None, "y" * 5_001)]
)
def test_unfit_words_are_refused(
    sessions: Sessions, ada: Person, reason: str | None, note: str | None
) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    with pytest.raises(InvalidRequest):
        decide(sessions, ada, item, CONFIRMED, reason=reason, note=note, undo_seconds=0)


def test_an_escalated_case_is_decided_by_a_senior(
    sessions: Sessions, ada: Person, ben: Person, sue: Person
) -> None:
    item = one_case(sessions)
    say(sessions, ada, item, Decision.ESCALATED)
    settle(sessions)
    assert stage_of(sessions, item) == "senior"
    assert claim_next(sessions, ben, ANY, LEASE) is None
    say(sessions, sue, item, OVERTURNED)
    settle(sessions)
    assert outcome(sessions, item) == "overturned"


def test_a_senior_does_not_escalate_further(sessions: Sessions, ada: Person, sue: Person) -> None:
    item = one_case(sessions)
    say(sessions, ada, item, Decision.ESCALATED)
    settle(sessions)
    with pytest.raises(InvalidRequest, match="waits for a senior already"):
        say(sessions, sue, item, Decision.ESCALATED)


def test_a_second_look_that_agrees_is_final(sessions: Sessions, ada: Person, ben: Person) -> None:
    second_looks(sessions)
    item = one_case(sessions)
    say(sessions, ada, item)
    settle(sessions)
    assert (stage_of(sessions, item), outcome(sessions, item)) == ("second", None)
    say(sessions, ben, item)
    settle(sessions)
    assert (stage_of(sessions, item), outcome(sessions, item)) == (None, "confirmed")
    assert tally(sessions, "confirmed") == 1


def test_a_second_look_that_disagrees_goes_to_a_senior(
    sessions: Sessions, ada: Person, ben: Person, sue: Person
) -> None:
    second_looks(sessions)
    item = one_case(sessions)
    for person, decision in ((ada, CONFIRMED), (ben, OVERTURNED)):
        say(sessions, person, item, decision)
        settle(sessions)
    assert (stage_of(sessions, item), outcome(sessions, item)) == ("senior", None)
    say(sessions, sue, item, CONFIRMED)
    settle(sessions)
    assert outcome(sessions, item) == "confirmed"


def test_rules_ask_for_second_looks_at_their_class_only(sessions: Sessions, ada: Person) -> None:
    second_looks(sessions, "knife")
    gun, knife = one_case(sessions, "gun"), one_case(sessions, "knife")
    for item in (gun, knife):
        say(sessions, ada, item)
    settle(sessions)
    assert (stage_of(sessions, gun), stage_of(sessions, knife)) == (None, "second")


def test_a_second_look_is_another_persons(sessions: Sessions, ada: Person) -> None:
    second_looks(sessions)
    item = one_case(sessions)
    say(sessions, ada, item)
    settle(sessions)
    assert waiting(sessions, ada, ANY).cases == []
    assert claim_next(sessions, ada, ANY, LEASE) is None
    with pytest.raises(Conflict, match="has decided item"):
        claim(sessions, ada, item, LEASE)


def test_the_database_refuses_a_second_decision_by_one_person(
    sessions: Sessions, ada: Person, owner: Engine
) -> None:
    item = one_case(sessions)
    say(sessions, ada, item)
    settle(sessions)
    again = text(
        "INSERT INTO reviews (item_id, stage, person_id, decision, revealed, effective_at)"
        " VALUES (:item, 'second', :person, 'overturned', false, now())"
    )
    with pytest.raises(IntegrityError) as refused, owner.begin() as connection:
        connection.execute(again, {"item": item, "person": ada.id})
    assert isinstance(refused.value.orig, psycopg.errors.UniqueViolation)


def test_a_second_look_is_blind(sessions: Sessions, ada: Person, ben: Person, sue: Person) -> None:
    second_looks(sessions)
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    decide(sessions, ada, item, OVERTURNED, note="a toy", undo_seconds=0)
    settle(sessions)
    amy = colleague(sessions, "amy", Role.AUDITOR)
    assert visible_decisions(sessions, ben, item) == visible_decisions(sessions, sue, item) == []
    assert [t.note for t in visible_decisions(sessions, ada, item)] == ["a toy"]
    assert [t.login for t in visible_decisions(sessions, amy, item)] == ["ada"]
    assert "toy" not in repr(claim(sessions, ben, item, LEASE))
    assert "overturned" not in repr(case_of(sessions, item))
    decide(sessions, ben, item, OVERTURNED, undo_seconds=0)
    settle(sessions)
    assert [t.login for t in visible_decisions(sessions, sue, item)] == ["ada", "ben"]


def test_lookalikes_are_decided_in_one_go(sessions: Sessions, ada: Person) -> None:
    main, *others = items = cases_of(sessions, [Wanted()] * 4)
    claim(sessions, ada, main, LEASE)
    decided = decide(sessions, ada, main, CONFIRMED, undo_seconds=0, also=others)
    assert {d.item_id for d in decided} == set(items)
    assert settle(sessions) == 4
    reviews = [r for item in items for r in reviews_of(sessions, item)]
    assert len(reviews) == 4
    assert len({r.group_id for r in reviews} - {None}) == 1
    for item in items:
        assert outcome(sessions, item) == "confirmed"
        assert events_of(sessions, item).count("decided") == 1


def test_lookalikes_that_others_work_on_are_left_out(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    main, held, done, free = cases_of(sessions, [Wanted()] * 4)
    knife, sample = one_case(sessions, "knife"), one_case(sessions, sampled=True)
    claim(sessions, ada, main, LEASE)
    claim(sessions, ben, held, LEASE)
    say(sessions, ben, done, undo_seconds=60)
    also = [held, done, free, knife, sample, 4711]
    decided = decide(sessions, ada, main, CONFIRMED, undo_seconds=60, also=also)
    assert {d.item_id for d in decided} == {main, free}
    case = case_of(sessions, held)
    assert case is not None and case.holder == "ben"
    again = decide(sessions, ada, main, CONFIRMED, undo_seconds=60, also=also)
    assert again == decided


def test_undoing_a_group_frees_the_lookalikes(sessions: Sessions, ada: Person, ben: Person) -> None:
    main, other = cases_of(sessions, [Wanted()] * 2)
    claim(sessions, ada, main, LEASE)
    decided = decide(sessions, ada, main, CONFIRMED, undo_seconds=60, also=[other])
    undo(sessions, ada, [d.review_id for d in decided])
    taken = claim_next(sessions, ben, ANY, LEASE)
    assert taken is not None and taken.item_id == other


def test_too_many_lookalikes_are_refused(sessions: Sessions, ada: Person) -> None:
    with pytest.raises(InvalidRequest, match="201 look-alikes"):
        decide(sessions, ada, 1, CONFIRMED, undo_seconds=0, also=range(201))


def test_samples_of_clear_items_are_counted_by_themselves(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions, sampled=True)
    say(sessions, ada, item, OVERTURNED)
    settle(sessions)
    assert outcome(sessions, item) == "overturned"
    assert tally(sessions, "overturned") == 0
    assert tally(sessions, "sampled:overturned") == 1


def test_who_saw_the_original_is_on_record(sessions: Sessions, ada: Person, ben: Person) -> None:
    seen, unseen = cases_of(sessions, [Wanted()] * 2)
    reveal(sessions, ada, seen, "gun", None)
    reveal(sessions, ben, unseen, "gun", None)
    for item in (seen, unseen):
        say(sessions, ada, item)
    assert [reviews_of(sessions, i)[0].revealed for i in (seen, unseen)] == [True, False]


def test_somebody_who_may_no_longer_review_decides_nothing(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    ada.role = Role.AUDITOR
    with pytest.raises(NotAllowed, match="may not review"):
        decide(sessions, ada, item, CONFIRMED, undo_seconds=0)


def test_several_settle_at_once(sessions: Sessions, ada: Person) -> None:
    main, *others = items = cases_of(sessions, [Wanted()] * 30)
    claim(sessions, ada, main, LEASE)
    decide(sessions, ada, main, CONFIRMED, undo_seconds=0, also=others)
    with ThreadPoolExecutor(4) as threads:
        settled = sum(threads.map(lambda _: settle(sessions), range(4)))
    assert settled == 30
    assert tally(sessions, "confirmed") == 30
    assert all(events_of(sessions, i).count("settled") == 1 for i in items)


def test_what_took_effect_stays_as_it_is(sessions: Sessions, ada: Person, owner: Engine) -> None:
    (decided,) = say(sessions, ada, one_case(sessions))
    settle(sessions)
    change = text("UPDATE reviews SET decision = 'overturned' WHERE id = :id")
    with pytest.raises(ProgrammingError, match="taken effect"), owner.begin() as connection:
        connection.execute(change, {"id": decided.review_id})
    with sessions.begin() as session:
        review = session.get(Review, decided.review_id)
    assert review is not None and review.effective_at - review.decided_at == timedelta(0)


def test_the_outcome_is_of_the_image(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    case = claim(sessions, ada, item, LEASE)
    assert case.stage is Stage.FIRST
    decide(sessions, ada, item, CONFIRMED, undo_seconds=0)
    settle(sessions)
    with sessions.begin() as session:
        found = session.get(ReviewOutcome, item)
        assert found is not None
        image = session.get(StoredImage, found.image_id)
        assert image is not None and image.digest == case.digest


def test_a_decision_that_cannot_take_effect_stops_no_other(
    sessions: Sessions, ada: Person, owner: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = cases_of(sessions, [Wanted(), Wanted()])
    refuse = f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON review_outcomes FOR EACH ROW
        WHEN (NEW.item_id = {first}) EXECUTE FUNCTION refuse();
    """
    with owner.begin() as connection:
        connection.execute(text(refuse))
    say(sessions, ada, first)
    say(sessions, ada, second)
    assert settle(sessions) == 1
    assert (outcome(sessions, first), outcome(sessions, second)) == (None, CONFIRMED)
    assert "could not take effect" in caplog.text
    with owner.begin() as connection:
        connection.execute(text("DROP TRIGGER refuse ON review_outcomes"))
    assert settle(sessions) == 1
    assert outcome(sessions, first) == CONFIRMED
