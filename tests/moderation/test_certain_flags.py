"""Flags that act by themselves: who waits for whom, who is told what, and how many are reviewed."""

import pytest
from sqlalchemy import Engine, delete, insert, select

from filter_service import ledger
from filter_service.accounts import Role
from filter_service.calibration import labels
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    OutboxEvent,
    ReviewCase,
    ReviewRule,
    StoredExplanation,
    StoredLabel,
    StoredStatement,
    WebhookEndpoint,
)
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.hash_lists import NewListEntry, add_entry
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.reviews.missing_cases import open_missing
from filter_service.reviews.settlement import Decision
from filter_service.statements.issuance import issue_due
from tests.support.listed_items import Desk, desk_of, person_of
from tests.support.review_cases import colleague
from tests.support.simple_classifier import POLICY
from tests.support.statements import decided
from tests.support.statements import policy as stating

CERTAIN = {"knife": 0.99, "gun": 0.95}
SHOP = POLICY.model_copy(
    update={
        "classes": tuple(c.model_copy(update={"certain": CERTAIN[c.name]}) for c in POLICY.classes),
    }
)
FLAG, SURE, SURE_GUN = (2.0, -5.0), (5.0, -5.0), (-5.0, 3.0)  # logits; from 4.6 and 2.9 on it acts
KNIFE_BUT_SURELY_A_GUN = (4.0, 3.0)


@pytest.fixture
def desk(sessions: Sessions) -> Desk:
    return desk_of(sessions, SHOP)


def cases(sessions: Sessions) -> dict[int, tuple[str, bool, float | None]]:
    columns = (ReviewCase.item_id, ReviewCase.class_name, ReviewCase.sampled, ReviewCase.chance)
    with sessions.begin() as session:
        rows = session.execute(select(*columns)).all()
    return {item: (name, sampled, chance) for item, name, sampled, chance in rows}


def acted(sessions: Sessions) -> set[int]:
    with sessions.begin() as session:
        return set(session.scalars(select(Item.id).where(Item.fully_automated)))


def reviewed(sessions: Sessions, share: float, name: str | None = None) -> None:
    """A rule that draws flags that acted by themselves."""
    rule = {"kind": "certain_sample", "class_name": name, "share": share, "created_by": "x"}
    with sessions.begin() as session:
        session.execute(insert(ReviewRule), [rule])


def test_only_flags_under_certain_wait_for_a_person(sessions: Sessions, desk: Desk) -> None:
    reviewed(sessions, 1e-9)
    flag, sure = desk.judge(FLAG, SURE)
    assert cases(sessions) == {flag: ("knife", False, 1.0)}
    assert acted(sessions) == {sure}


def test_the_class_that_acts_is_the_one_that_counts(sessions: Sessions, desk: Desk) -> None:
    reviewed(sessions, 1.0)
    (item,) = desk.judge(KNIFE_BUT_SURELY_A_GUN)
    assert cases(sessions) == {item: ("gun", False, 1.0)}
    with sessions.begin() as session:
        (judged,) = [e for e in ledger.of_item(session, item) if e.event == "judged"]
    assert judged.details["class"] == "gun"
    assert (judged.details["certain"], judged.details["fully_automated"]) == (["gun"], True)


def test_a_sample_is_reviewed_all_the_same(sessions: Sessions, desk: Desk) -> None:
    items = desk.judge(*[SURE] * 400)
    found = cases(sessions)
    assert 8 <= len(found) <= 36  # one in twenty
    assert {(name, sampled) for name, sampled, _ in found.values()} == {("knife", False)}
    assert all(chance == pytest.approx(0.05) for _, _, chance in found.values())
    assert acted(sessions) == set(items)


def test_a_rule_says_how_many_are_reviewed(sessions: Sessions, desk: Desk) -> None:
    reviewed(sessions, 0.5, "knife")
    reviewed(sessions, 0.2)
    desk.judge(*[SURE, SURE_GUN] * 50)
    found = {name: chance for name, _, chance in cases(sessions).values()}
    assert found == pytest.approx({"knife": 0.6, "gun": 0.2})  # each rule draws by itself


def test_the_label_keeps_the_chance_of_the_draw(sessions: Sessions, desk: Desk) -> None:
    desk.judge(*[SURE] * 60)
    drawn = next(iter(cases(sessions)))
    decided(sessions, colleague(sessions, "ada"), drawn)
    with sessions.begin() as session:
        (label,) = session.scalars(select(StoredLabel))
    assert (label.truth, label.source) == (True, "flag")
    assert label.chance == pytest.approx(0.05)


def test_the_platform_is_told_that_nobody_has_looked(sessions: Sessions, desk: Desk) -> None:
    with sessions.begin() as session:
        session.add(WebhookEndpoint(url="https://a.example", secret="whsec_", created_by="x"))
    desk.judge(FLAG, SURE)
    with sessions.begin() as session:
        events = session.scalars(select(OutboxEvent).order_by(OutboxEvent.item_id)).all()
    assert [e.payload["fully_automated"] for e in events] == [False, True]


def test_an_allowed_class_leaves_the_rest_to_a_person(sessions: Sessions, desk: Desk) -> None:
    boss = person_of(sessions, "boss", "policy_editor")
    (first,) = desk.judge((5.0, 5.0), digests=["ab" * 32])
    add_entry(
        sessions,
        boss,
        NewListEntry(ListKind.ALLOW, "knife", Match.DIGEST, digest="ab" * 32, reason="ours"),
    )
    (again,) = desk.judge((5.0, 5.0), digests=["ab" * 32])
    assert acted(sessions) == {first}
    assert cases(sessions)[again] == ("gun", False, 1.0)


@pytest.mark.parametrize(("source", "acts"), [("flag", False), ("appeal", False), ("upload", True)])
def test_what_people_took_back_waits_for_a_person(
    sessions: Sessions, desk: Desk, source: str, acts: bool
) -> None:
    (item,) = desk.judge(FLAG, digests=["ab" * 32])
    with sessions.begin() as session:
        image = session.get_one(Item, item).image_id
        assert image is not None
        labels.keep(session, [ClassLabel(image, "knife", False, LabelSource(source))])
    reviewed(sessions, 1e-9)
    (again,) = desk.judge(SURE, digests=["ab" * 32])
    assert (again in acted(sessions)) is acts
    assert (again in cases(sessions)) is not acts


def test_nothing_that_acted_is_opened_afterwards(sessions: Sessions, desk: Desk) -> None:
    reviewed(sessions, 1e-9)
    desk.judge(SURE)
    assert open_missing(sessions) == 0
    assert cases(sessions) == {}


def test_an_appeal_goes_to_a_person(sessions: Sessions, desk: Desk) -> None:
    reviewed(sessions, 1e-9)
    (item,) = desk.judge(SURE)
    open_appeal(sessions, item, "It is a spoon.", "key shop")
    assert cases(sessions) == {item: ("knife", False, None)}
    decided(sessions, colleague(sessions, "ada"), item, Decision.OVERTURNED)
    with sessions.begin() as session:
        (label,) = session.scalars(select(StoredLabel))
    assert (label.source, label.chance) == ("appeal", None)


def test_a_flag_that_acts_is_stated_as_fully_automated(sessions: Sessions, owner: Engine) -> None:
    policy = stating()
    classes = tuple(
        c.model_copy(update={"certain": 0.95} if c.name == "gun" else {}) for c in policy.classes
    )
    desk = desk_of(sessions, policy.model_copy(update={"classes": classes}))
    reviewed(sessions, 1.0)
    (item,) = desk.judge((4.0, -5.0, -5.0))  # type: ignore[arg-type]
    with owner.begin() as connection:
        connection.execute(delete(StoredExplanation))  # they hold no more than rows need
    assert issue_due(sessions) == 1
    with sessions.begin() as session:
        stated = session.scalars(select(StoredStatement)).one()
    assert stated.document["automated_decision"] == "AUTOMATED_DECISION_FULLY"
    assert "The decision was made by a program, without a person." in stated.notice
    decided(sessions, colleague(sessions, "ada", Role.SENIOR), item, Decision.OVERTURNED)
    issue_due(sessions)
    with sessions.begin() as session:
        assert session.scalars(select(StoredStatement)).one().withdrawn_at is not None


def test_without_certain_nothing_says_so(sessions: Sessions) -> None:
    (item,) = desk_of(sessions, POLICY).judge(SURE)
    with sessions.begin() as session:
        (judged,) = [e for e in ledger.of_item(session, item) if e.event == "judged"]
    assert not {"certain", "fully_automated"} & judged.details.keys()
