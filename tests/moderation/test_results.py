"""What follows from a verdict, in the one transaction in which it is recorded."""

import uuid

import pytest
from sqlalchemy import func, insert, select, text

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    OutboxEvent,
    ReviewCase,
    ReviewRule,
    StoredExplanation,
    Tally,
    WebhookEndpoint,
)
from filter_service.moderation.disposition import JudgedItem
from filter_service.moderation.results import FailedItem, fail
from filter_service.verdicts import Verdict
from tests.support.listed_items import Desk, bits, desk_of, outcome, pictures

CLEAR, KNIFE, GUN, BOTH = (-1.0, -5.0), (2.0, -5.0), (-5.0, 3.0), (2.0, 1.0)


@pytest.fixture
def desk(sessions: Sessions) -> Desk:
    return desk_of(sessions)


def cases(sessions: Sessions) -> dict[int, tuple[str, float, bool]]:
    columns = (ReviewCase.item_id, ReviewCase.class_name, ReviewCase.margin, ReviewCase.sampled)
    with sessions.begin() as session:
        rows = session.execute(select(*columns)).all()
    return {item: (name, margin, sampled) for item, name, margin, sampled in rows}


def tallies(sessions: Sessions) -> dict[tuple[str, str], float]:
    sums = select(Tally.kind, Tally.class_name, func.sum(Tally.amount))
    with sessions.begin() as session:
        rows = session.execute(sums.group_by(Tally.kind, Tally.class_name)).all()
    return {(kind, name): amount for kind, name, amount in rows}


def test_every_flag_opens_one_case(sessions: Sessions, desk: Desk) -> None:
    _, knife, gun, both, _ = desk.judge(CLEAR, KNIFE, GUN, BOTH, None)
    assert cases(sessions) == {
        knife: ("knife", 2.0, False),
        gun: ("gun", 3.0, False),
        both: ("knife", 2.0, False),
    }


def test_verdicts_are_counted(sessions: Sessions, desk: Desk) -> None:
    desk.judge(CLEAR, KNIFE, GUN, BOTH, None)
    assert tallies(sessions) == {
        ("judged", ""): 4,
        ("flagged", "knife"): 2,
        ("flagged", "gun"): 1,
        ("undetermined", ""): 1,
        ("waiting:first", "knife"): 2,
        ("waiting:first", "gun"): 1,
    }


def test_a_platform_is_told_of_flags_and_failures(sessions: Sessions, desk: Desk) -> None:
    with sessions.begin() as session:
        session.add(WebhookEndpoint(url="https://a.example", secret="whsec_", created_by="x"))
    _, knife, broken = desk.judge(CLEAR, KNIFE, None)
    with sessions.begin() as session:
        events = session.scalars(select(OutboxEvent).order_by(OutboxEvent.item_id)).all()
    assert [(e.type, e.item_id, e.subject) for e in events] == [
        ("item.flagged", knife, f"item {knife}"),
        ("item.undetermined", broken, f"item {broken}"),
    ]
    assert events[0].payload["class"] == "knife"
    assert events[1].payload["reason"] == "the bytes are not an image"


def test_what_another_worker_took_has_no_consequence(sessions: Sessions, desk: Desk) -> None:
    (item,) = desk.judge(CLEAR)
    desk.queue([item])
    with sessions.begin() as session:
        session.execute(text("UPDATE queue SET worker = NULL"))
        image = session.scalars(select(Item.image_id)).one()
    before = tallies(sessions)
    assert image is not None
    again = JudgedItem(item, desk.batch, image, outcome("ab" * 32, KNIFE, None, None))
    assert desk.record([again]) == 0
    assert (cases(sessions), tallies(sessions)) == ({}, before)


def test_an_item_that_is_judged_again_opens_no_second_case(sessions: Sessions, desk: Desk) -> None:
    digest = uuid.uuid4().hex * 2
    (item,) = desk.judge(None, digests=[digest])
    with sessions.begin() as session:
        image = session.scalars(select(Item.image_id)).one()
    assert image is not None
    again = JudgedItem(item, desk.batch, image, outcome(digest, KNIFE, None, None))
    desk.queue([item])
    assert (desk.record([again]), desk.record([again])) == (1, 0)
    with sessions.begin() as session:
        opened = [e for e in ledger.of_item(session, item) if e.event == "opened"]
        explained = session.scalar(select(func.count()).select_from(StoredExplanation))
    assert (len(cases(sessions)), len(opened), explained) == (1, 1, 1)


def test_the_hash_is_kept_and_a_later_none_does_not_take_it(sessions: Sessions, desk: Desk) -> None:
    digests = ["ab" * 32, "cd" * 32]
    desk.judge(CLEAR, CLEAR, digests=digests, hashes=[bits(1), None])
    desk.judge(CLEAR, CLEAR, digests=digests, hashes=[None, bits(2)])
    assert pictures(sessions) == {"ab" * 32: bits(1), "cd" * 32: bits(2)}


@pytest.mark.parametrize(("of_rule", "expected"), [(None, "knife"), ("gun", "gun")])
def test_clear_items_are_drawn_for_the_class_of_the_rule(
    sessions: Sessions, desk: Desk, of_rule: str | None, expected: str
) -> None:
    rule = {"kind": "clear_sample", "class_name": of_rule, "share": 1.0, "created_by": "x"}
    with sessions.begin() as session:
        session.execute(insert(ReviewRule), [rule])
    clear, flagged = desk.judge(CLEAR, KNIFE)
    margin = -1.0 if expected == "knife" else -5.0
    assert cases(sessions) == {clear: (expected, margin, True), flagged: ("knife", 2.0, False)}


def test_a_case_remembers_how_likely_it_was(sessions: Sessions, desk: Desk) -> None:
    rules = [
        {"kind": "clear_sample", "class_name": name, "margin_below": near, "share": share}
        for name, near, share in ((None, None, 0.5), ("knife", 2.0, 0.25), ("gun", 2.0, 1.0))
    ]
    with sessions.begin() as session:
        session.execute(insert(ReviewRule), [rule | {"created_by": "x"} for rule in rules])
    desk.judge(*[CLEAR] * 40, KNIFE)  # clear: a logit under the knife's threshold, five the gun's
    columns = (ReviewCase.sampled, ReviewCase.chance, ReviewCase.class_chances, ReviewCase.evenly)
    with sessions.begin() as session:
        found = {str(row): row for row in session.execute(select(*columns))}
    assert sorted(map(tuple, found.values()), key=str) == [
        (False, 1.0, {"knife": 1.0}, True),
        (True, 0.625, {"gun": 0.5, "knife": 0.625}, True),
        (True, 0.625, {"knife": 0.625}, False),
    ]


def test_only_the_share_of_a_rule_is_drawn(sessions: Sessions, desk: Desk) -> None:
    rule = {"kind": "clear_sample", "share": 0.25, "created_by": "x"}
    with sessions.begin() as session:
        session.execute(insert(ReviewRule), [rule])
    desk.judge(*[CLEAR] * 200)
    assert 25 <= len(cases(sessions)) <= 80


def test_an_item_given_up_is_counted(sessions: Sessions, desk: Desk) -> None:
    (item,) = desk.judge(CLEAR)
    with sessions.begin() as session:
        fail(session, [FailedItem(item, "the worker died 6 times")], "worker test")
    assert tallies(sessions)["undetermined", ""] == 1
    with sessions.begin() as session:
        assert session.scalars(select(Item.verdict)).one() is Verdict.UNDETERMINED
