"""The queue: what waits for whom, in what order, and who works on it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest
from sqlalchemy import func, select

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Person, ReviewCase
from filter_service.errors import Conflict, InvalidRequest, NotAllowed, UnknownItem, UnknownPerson
from filter_service.reviews import tallies
from filter_service.reviews.case_claims import claim, claim_next, extend, free, hand_over, release
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.decisions import decide
from filter_service.reviews.queue import Filter, QueuedCase, ahead, case_of, waiting
from filter_service.reviews.settlement import Decision, settle
from tests.support.review_cases import (
    LEASE,
    POLICY,
    Wanted,
    cases_of,
    colleague,
    events_of,
    leave,
    one_case,
)

ANY = Filter()


def put_in(sessions: Sessions, item: int, stage: Stage) -> None:
    with sessions.begin() as session:
        free(session, [item], stage)


def shown(sessions: Sessions, person: Person, wanted: Filter = ANY) -> list[int]:
    return [c.item_id for c in waiting(sessions, person, wanted).cases]


def test_severe_and_clear_cut_cases_come_first(sessions: Sessions, ada: Person) -> None:
    low, near, far = cases_of(
        sessions, [Wanted("knife", 9.0), Wanted("gun", 0.5), Wanted("gun", 3.0)]
    )
    assert shown(sessions, ada) == [far, near, low]


def test_by_age_the_oldest_comes_first(sessions: Sessions, ada: Person) -> None:
    items = [one_case(sessions, name) for name in ("knife", "gun", "knife")]
    assert shown(sessions, ada, Filter(order="age")) == items


def test_filters_leave_what_was_asked_for(sessions: Sessions, ada: Person) -> None:
    guns = cases_of(sessions, [Wanted("gun")])
    other = POLICY.model_copy(update={"name": "other"})
    knives = cases_of(sessions, [Wanted("knife")], other)
    put_in(sessions, knives[0], Stage.APPEAL)
    with sessions.begin() as session:
        batch = session.scalar(
            select(Batch.id).join(ReviewCase).where(ReviewCase.item_id == guns[0])
        )
    assert shown(sessions, ada, Filter(class_name="gun")) == guns
    assert shown(sessions, ada, Filter(policy="other")) == knives
    assert shown(sessions, ada, Filter(batch=batch)) == guns
    assert shown(sessions, ada, Filter(stage=Stage.APPEAL)) == knives


@pytest.mark.parametrize("order", ["urgency", "age"])
def test_pages_hold_every_case_once(sessions: Sessions, ada: Person, order: str) -> None:
    wanted = Filter(order="age" if order == "age" else "urgency")
    cases_of(sessions, [Wanted(n, m) for m in (1.0, 1.0, 2.5) for n in ("gun", "knife", "gun")])
    whole = shown(sessions, ada, wanted)
    paged, after = [], None
    while True:
        page = waiting(sessions, ada, wanted, after, limit=2)
        paged += [c.item_id for c in page.cases]
        after = page.next
        if after is None:
            break
    assert paged == whole
    assert len(set(paged)) == 9


@pytest.mark.parametrize("cursor", ["", "x", "W10=", "WyJhZ2UiLCAxXQ==", "é"])
def test_a_foreign_place_in_the_list_is_refused(
    sessions: Sessions, ada: Person, cursor: str
) -> None:
    with pytest.raises(InvalidRequest, match="no place in this list"):
        waiting(sessions, ada, ANY, cursor)


def test_people_see_only_their_classes(sessions: Sessions) -> None:
    gun, knife = one_case(sessions, "gun"), one_case(sessions, "knife")
    kim = colleague(sessions, "kim", classes=("knife",))
    assert shown(sessions, kim) == [knife]
    assert claim_next(sessions, kim, Filter(class_name="gun"), LEASE) is None
    with pytest.raises(NotAllowed, match="may not see class 'gun'"):
        claim(sessions, kim, gun, LEASE)


def test_senior_cases_are_for_seniors(sessions: Sessions, ada: Person, sue: Person) -> None:
    item = one_case(sessions)
    put_in(sessions, item, Stage.SENIOR)
    assert shown(sessions, ada) == []
    with pytest.raises(NotAllowed, match="waits for a senior"):
        claim(sessions, ada, item, LEASE)
    assert claim(sessions, sue, item, LEASE).stage is Stage.SENIOR


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.POLICY_EDITOR])
def test_readers_see_the_queue_but_claim_nothing(sessions: Sessions, role: Role) -> None:
    item = one_case(sessions)
    reader = colleague(sessions, "reader", role)
    assert shown(sessions, reader) == [item]
    with pytest.raises(NotAllowed, match="may not review"):
        claim_next(sessions, reader, ANY, LEASE)
    with pytest.raises(NotAllowed, match="may not review"):
        claim(sessions, reader, item, LEASE)


def test_a_case_says_nothing_that_others_decided() -> None:
    assert {f.name for f in fields(QueuedCase)} == {
        *("item_id", "stage", "sampled", "severity", "margin", "class_name", "policy_id"),
        *("batch_id", "image_id", "digest", "source", "opened_at", "holder", "pending"),
        *("client", "acted", "reported", "urgency"),
    }


def test_two_people_get_two_cases(sessions: Sessions, ada: Person, ben: Person) -> None:
    cases_of(sessions, [Wanted(), Wanted()])
    first = claim_next(sessions, ada, ANY, LEASE)
    second = claim_next(sessions, ben, ANY, LEASE)
    assert first and second
    assert first.item_id != second.item_id
    assert (first.holder, second.holder) == ("ada", "ben")


def test_only_one_of_many_at_once_gets_the_case(sessions: Sessions) -> None:
    one_case(sessions)
    crowd = [colleague(sessions, f"m{n}") for n in range(8)]
    ready = threading.Barrier(len(crowd))

    def rush(person: Person) -> QueuedCase | None:
        ready.wait()
        return claim_next(sessions, person, ANY, LEASE)

    with ThreadPoolExecutor(len(crowd)) as threads:
        got = list(threads.map(rush, crowd))
    assert len([c for c in got if c]) == 1


def test_what_one_holds_comes_first_again(sessions: Sessions, ada: Person) -> None:
    _, later = cases_of(sessions, [Wanted(margin=2.0), Wanted(margin=1.0)])
    claim(sessions, ada, later, LEASE)
    again = claim_next(sessions, ada, ANY, LEASE)
    assert again is not None and again.item_id == later
    assert events_of(sessions, later) == ["opened", "claimed"]


def test_a_held_case_is_refused_to_others(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    with pytest.raises(Conflict, match="ada is working on item"):
        claim(sessions, ben, item, LEASE)
    assert shown(sessions, ben) == []
    assert shown(sessions, ben, Filter(held="all")) == [item]
    assert shown(sessions, ada, Filter(held="mine")) == [item]
    assert shown(sessions, ben, Filter(held="mine")) == []


def test_a_page_that_is_alive_keeps_its_case(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, 0.01)
    extend(sessions, ada, item, LEASE)
    time.sleep(0.02)
    assert claim_next(sessions, ben, ANY, LEASE) is None


def test_a_case_is_free_once_its_owner_left(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    leave(sessions, item)
    taken = claim_next(sessions, ben, ANY, LEASE)
    assert taken is not None and taken.item_id == item
    with pytest.raises(Conflict, match="ben works on item"):
        extend(sessions, ada, item, LEASE)


def test_a_lapsed_lease_revives_while_nobody_took_the_case(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    leave(sessions, item)
    extend(sessions, ada, item, LEASE)
    assert claim_next(sessions, ben, ANY, LEASE) is None


def test_a_released_case_is_free_at_once(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    release(sessions, ada, item)
    assert claim_next(sessions, ben, ANY, LEASE) is not None
    assert events_of(sessions, item) == ["opened", "claimed", "released", "claimed"]
    with pytest.raises(Conflict, match="ben works on"):
        release(sessions, ada, item)


def test_a_case_is_handed_over_by_name(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    hand_over(sessions, ada, item, "Ben")
    case = case_of(sessions, item)
    assert case is not None and case.holder == "ben"
    with pytest.raises(Conflict):
        extend(sessions, ada, item, LEASE)
    taken = claim_next(sessions, ben, ANY, LEASE)
    assert taken is not None and taken.item_id == item
    assert events_of(sessions, item) == ["opened", "claimed", "handed over"]


def test_what_was_handed_over_waits_a_fair_time(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, 0.01)
    hand_over(sessions, ada, item, "ben")
    left = select(func.extract("epoch", ReviewCase.leased_until - func.now()))
    with sessions.begin() as session:
        assert session.scalars(left).one() > 600


def test_a_case_is_not_handed_to_somebody_unfit(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    colleague(sessions, "kim", classes=("knife",))
    colleague(sessions, "amy", Role.AUDITOR)
    claim(sessions, ada, item, LEASE)
    for login in ("kim", "amy"):
        with pytest.raises(NotAllowed):
            hand_over(sessions, ada, item, login)
    with pytest.raises(UnknownPerson, match="'nobody'"):
        hand_over(sessions, ada, item, "nobody")
    case = case_of(sessions, item)
    assert case is not None and case.holder == "ada"


def test_looking_ahead_claims_nothing(sessions: Sessions, ada: Person, ben: Person) -> None:
    items = cases_of(sessions, [Wanted(margin=m) for m in (4.0, 3.0, 2.0)])
    claim_next(sessions, ada, ANY, LEASE)
    assert [c.item_id for c in ahead(sessions, ada, ANY, limit=2)] == items[1:]
    taken = claim_next(sessions, ben, ANY, LEASE)
    assert taken is not None and taken.item_id == items[1]


def test_a_skipped_case_is_for_others(sessions: Sessions, ada: Person, ben: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    decide(sessions, ada, item, Decision.SKIPPED, reason="I know them", undo_seconds=0)
    assert claim_next(sessions, ben, ANY, LEASE) is None, "it can be undone until it takes effect"
    settle(sessions)
    assert shown(sessions, ada) == []
    assert claim_next(sessions, ada, ANY, LEASE) is None
    assert claim_next(sessions, ben, ANY, LEASE) is not None


def test_somebody_may_ask_for_what_they_skipped(sessions: Sessions, ada: Person) -> None:
    item = one_case(sessions)
    claim(sessions, ada, item, LEASE)
    decide(sessions, ada, item, Decision.SKIPPED, reason="unsure", undo_seconds=0)
    settle(sessions)
    claim(sessions, ada, item, LEASE)
    assert decide(sessions, ada, item, Decision.CONFIRMED, undo_seconds=0)


def test_what_does_not_wait_cannot_be_claimed(sessions: Sessions, ada: Person) -> None:
    (item,) = cases_of(sessions, [Wanted()], review=False)
    with pytest.raises(Conflict, match="does not wait for review"):
        claim(sessions, ada, item, LEASE)
    with pytest.raises(UnknownItem, match="no item 4711"):
        claim(sessions, ada, 4711, LEASE)


def test_how_many_wait_follows_every_step(sessions: Sessions, ada: Person) -> None:
    item, _ = cases_of(sessions, [Wanted(), Wanted("knife")])
    assert tallies.waiting_now(sessions).by_class == {"gun": 1, "knife": 1}
    claim(sessions, ada, item, LEASE)
    decide(sessions, ada, item, Decision.CONFIRMED, undo_seconds=0)
    assert tallies.waiting_now(sessions).by_class == {"knife": 1}
    settle(sessions)
    assert tallies.waiting_now(sessions).by_class == {"knife": 1}
