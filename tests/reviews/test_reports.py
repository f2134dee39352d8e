"""Reports of pictures: before people in their order, joined, and answered by one decision."""

import uuid

import pytest
from sqlalchemy import func, select, update

from filter_service import retention
from filter_service.calibration.labels import LabelSource
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    Person,
    Report,
    ReviewCase,
    ReviewOutcome,
    StoredImage,
    StoredLabel,
    Tally,
)
from filter_service.errors import ContentGone, InvalidRequest, NotAllowed, TooManyTries, UnknownItem
from filter_service.reviews import report_cases, restricted
from filter_service.reviews.case_claims import claim
from filter_service.reviews.case_opening import ReviewChance
from filter_service.reviews.decisions import decide
from filter_service.reviews.queue import Filter, waiting
from filter_service.reviews.report_input import ReportInput, ReportSource
from filter_service.reviews.reports import report, report_of, reports_of
from filter_service.reviews.settlement import Decision, settle
from filter_service.verdicts import Verdict
from tests.support.review_cases import (
    LEASE,
    Wanted,
    cases_of,
    events_of,
    listening,
    reviews_of,
    same_picture,
    stage_of,
    told_to_platforms,
)

PLATFORM = "key platform"
USER, FLAGGER = ReportSource.USER, ReportSource.TRUSTED_FLAGGER
CONFIRMED, OVERTURNED = Decision.CONFIRMED, Decision.OVERTURNED
CLEAR = Wanted(margin=-1.0, sampled=True)


def say(
    sessions: Sessions,
    item: int,
    source: ReportSource = USER,
    class_name: str | None = None,
    reference: str | None = None,
) -> uuid.UUID:
    said = ReportInput(
        source=source, reason="It is a gun.", class_name=class_name, reference=reference
    )
    return report(sessions, item, said, PLATFORM, cap=100)


def judged(sessions: Sessions, *wanted: Wanted) -> list[int]:
    """Items that nobody was to look at."""
    return cases_of(sessions, wanted or [CLEAR], review=False)


def settled(sessions: Sessions, person: Person, item: int, decision: Decision) -> None:
    claim(sessions, person, item, LEASE)
    decide(sessions, person, item, decision, undo_seconds=0)
    settle(sessions)


def final(sessions: Sessions, made: uuid.UUID) -> str | None:
    return report_of(sessions, made).final


@pytest.mark.parametrize(("decision", "answer"), [(OVERTURNED, "flagged"), (CONFIRMED, "clear")])
def test_a_decision_about_a_missed_picture_answers_its_report(
    sessions: Sessions, ada: Person, decision: Decision, answer: str
) -> None:
    [item] = judged(sessions)
    listening(sessions)
    made = say(sessions, item, reference="4711")
    assert stage_of(sessions, item) == "first"
    assert final(sessions, made) is None
    settled(sessions, ada, item, decision)
    told = told_to_platforms(sessions)
    assert final(sessions, made) == answer
    assert [e.type for e in told] == ["report.opened", "review.decided", "report.closed"]
    assert (told[-1].payload["reference"], told[-1].payload["final"]) == ("4711", answer)
    assert events_of(sessions, item)[-2:] == ["report closed", "settled"]


def test_the_queue_begins_with_trusted_flaggers_and_puts_users_before_their_severity(
    sessions: Sessions, ada: Person
) -> None:
    high = cases_of(sessions, [Wanted("gun", 5.0)])[0]
    low = cases_of(sessions, [Wanted("knife", 5.0)])[0]
    by_user, by_flagger = judged(sessions, *[Wanted("knife", -3.0, sampled=True)] * 2)
    say(sessions, by_user)
    say(sessions, by_flagger, FLAGGER)
    page = waiting(sessions, ada, Filter(), limit=2)
    rest = waiting(sessions, ada, Filter(), page.next)
    found = [case.item_id for case in (*page.cases, *rest.cases)]
    assert found == [by_flagger, high, by_user, low]


def test_reports_of_one_picture_wait_for_one_case_and_one_decision_is_about_each_item(
    sessions: Sessions, ada: Person
) -> None:
    first, again = judged(sessions, CLEAR, CLEAR)
    same_picture(sessions, first, again)
    made = [say(sessions, first), say(sessions, again, FLAGGER)]
    assert (stage_of(sessions, first), stage_of(sessions, again)) == ("first", None)
    [case] = waiting(sessions, ada, Filter()).cases
    assert case.reported == FLAGGER.rank  # the higher of both
    settled(sessions, ada, first, OVERTURNED)
    assert [final(sessions, m) for m in made] == ["flagged", "flagged"]
    assert [r.decision for r in reviews_of(sessions, again)] == ["overturned"]
    with sessions.begin() as session:
        assert session.get_one(ReviewOutcome, again).decision == "overturned"


def test_another_clients_reports_of_the_same_picture_have_their_own_case(
    sessions: Sessions,
) -> None:
    ours, theirs = judged(sessions, CLEAR, CLEAR)
    same_picture(sessions, ours, theirs)
    with sessions.begin() as session:
        session.execute(update(Item).where(Item.id == theirs).values(client_id=2))
    say(sessions, ours)
    say(sessions, theirs)
    assert stage_of(sessions, ours) == stage_of(sessions, theirs) == "first"


def test_what_counts_as_forbidden_already_is_answered_at_once(
    sessions: Sessions, ada: Person
) -> None:
    [item] = cases_of(sessions, [Wanted()])
    settled(sessions, ada, item, CONFIRMED)
    assert final(sessions, say(sessions, item)) == "flagged"
    assert stage_of(sessions, item) is None


def test_a_flag_that_waits_is_reported_in_its_case(sessions: Sessions, ada: Person) -> None:
    [item] = cases_of(sessions, [Wanted()])
    made = say(sessions, item)
    [case] = waiting(sessions, ada, Filter()).cases
    assert (case.item_id, case.reported, case.sampled) == (item, 1, False)
    settled(sessions, ada, item, CONFIRMED)
    assert final(sessions, made) == "flagged"


def test_what_people_have_cleared_stands_for_users_and_is_looked_at_again_for_flaggers(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    [item] = cases_of(sessions, [CLEAR])
    settled(sessions, ada, item, CONFIRMED)
    assert final(sessions, say(sessions, item)) == "clear"
    assert stage_of(sessions, item) is None
    made = say(sessions, item, FLAGGER)
    assert stage_of(sessions, item) == "first"
    assert waiting(sessions, ada, Filter()).cases == []  # somebody else's
    settled(sessions, ben, item, OVERTURNED)
    assert final(sessions, made) == "flagged"


def test_clear_of_one_class_does_not_answer_a_report_of_another(
    sessions: Sessions, ada: Person
) -> None:
    [item] = judged(sessions)
    gun, knife = say(sessions, item, class_name="gun"), say(sessions, item, class_name="knife")
    settled(sessions, ada, item, CONFIRMED)
    assert (final(sessions, gun), final(sessions, knife)) == ("clear", None)
    with sessions.begin() as session:
        waits_for = select(ReviewCase.class_name).where(ReviewCase.item_id == item)
        assert session.scalar(waits_for) == "knife"


def test_the_same_reference_about_the_same_item_is_the_same_report(sessions: Sessions) -> None:
    one, other = judged(sessions, CLEAR, CLEAR)
    made = say(sessions, one, reference="4711")
    assert say(sessions, one, reference="4711") == made
    assert say(sessions, other, reference="4711") != made
    assert len(reports_of(sessions, one)) == 1
    with pytest.raises(InvalidRequest, match="'4711' is of another report about item"):
        say(sessions, one, FLAGGER, reference="4711")


def test_a_report_says_nothing_of_what_was_not_reported(sessions: Sessions, ada: Person) -> None:
    [item] = judged(sessions)
    say(sessions, item)
    settled(sessions, ada, item, OVERTURNED)
    with sessions.begin() as session:
        label = session.scalars(select(StoredLabel).where(StoredLabel.item_id == item)).one()
        kinds = set(session.scalars(select(Tally.kind).where(Tally.kind.like("%overturned"))))
        outcome = session.get_one(ReviewOutcome, item)
    assert (label.truth, label.source, label.chance) == (True, LabelSource.REPORT, None)
    assert (outcome.chance, outcome.evenly) == (None, False)
    assert kinds == {"reported:overturned"}


def test_what_was_drawn_keeps_its_chance_though_it_is_reported(
    sessions: Sessions, ada: Person
) -> None:
    drawn = Wanted(margin=-1.0, sampled=True, chance=ReviewChance(0.5, {"gun": 0.5}))
    [item] = cases_of(sessions, [drawn])
    say(sessions, item)
    settled(sessions, ada, item, CONFIRMED)
    with sessions.begin() as session:
        label = session.scalars(select(StoredLabel).where(StoredLabel.item_id == item)).one()
    assert (label.source, label.chance) == (LabelSource.SAMPLE, 0.5)


def test_nobody_floods_the_queue_with_reports(sessions: Sessions) -> None:
    items = judged(sessions, *[CLEAR] * 3)
    given = ReportInput(source=USER, reason="Spam.")
    for item in items[:2]:
        report(sessions, item, given, PLATFORM, cap=2)
    with pytest.raises(TooManyTries, match="may report 2 pictures in an hour"):
        report(sessions, items[2], given, PLATFORM, cap=2)
    report(sessions, items[2], given, "key other", cap=2)


def test_what_nobody_can_look_at_is_refused_with_a_sentence(sessions: Sessions) -> None:
    blurred, gone, erased, locked, fine = judged(sessions, *[CLEAR] * 5)
    retention.request(sessions, erased, "asked for", "service")
    with sessions.begin() as session:
        doubt = {"verdict": Verdict.UNDETERMINED, "reason": "it was too dark"}
        session.execute(update(Item).where(Item.id == blurred).values(doubt))
        found = session.get_one(Item, locked)
        assert found.image_id is not None
        away = restricted.RestrictedFlag(locked, found.batch_id, found.image_id, "gun", 30)
        restricted.lock_away(session, [away], "worker 1")
        image = session.get_one(Item, gone).image_id
        session.execute(
            update(StoredImage).where(StoredImage.id == image).values(bytes_gone_at=func.now())
        )
    with pytest.raises(InvalidRequest, match="is undetermined"):
        say(sessions, blurred)
    for deleted in (gone, erased):
        with pytest.raises(ContentGone, match="was deleted: submit it again"):
            say(sessions, deleted)
    with pytest.raises(NotAllowed, match="is locked away"):
        say(sessions, locked)
    with pytest.raises(InvalidRequest, match=r"'sword' is no class .* choose of gun, knife"):
        say(sessions, fine, class_name="sword")
    with pytest.raises(UnknownItem, match="no item 4711"):
        say(sessions, 4711)


def test_locking_a_picture_away_answers_its_reports(sessions: Sessions) -> None:
    [item] = judged(sessions)
    made = say(sessions, item)
    with sessions.begin() as session:
        found = session.get_one(Item, item)
        assert found.image_id is not None
        away = restricted.RestrictedFlag(item, found.batch_id, found.image_id, "gun", 30)
        restricted.lock_away(session, [away], "worker 1")
    assert final(sessions, made) == "flagged"


def test_erasing_a_picture_takes_away_what_was_reported(sessions: Sessions) -> None:
    [item] = judged(sessions)
    made = say(sessions, item, reference="4711")
    retention.request(sessions, item, "asked for", "service")
    found = report_of(sessions, made)
    assert (found.reason, found.reference, found.final) == ("", None, None)
    assert found.closed_at is not None


def test_a_report_that_was_left_behind_is_followed_later(sessions: Sessions) -> None:
    [item] = judged(sessions)
    with sessions.begin() as session:
        session.add(
            Report(
                id=uuid.uuid4(), item_id=item, source="user", reason="Left.", reported_by=PLATFORM
            )
        )
    assert report_cases.follow_left(sessions) == 1
    assert stage_of(sessions, item) == "first"
    assert report_cases.follow_left(sessions) == 0
