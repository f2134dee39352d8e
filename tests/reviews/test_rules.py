"""Rules: which decisions are looked at twice, and which clear items are drawn."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry
from filter_service.errors import InvalidRequest, NotAllowed, UnknownEntry
from filter_service.reviews.review_rules import (
    RuleKind,
    SamplingRule,
    active_rules,
    add_rule,
    asks_second_look,
    draw_clear,
    remove_rule,
)
from tests.support.review_cases import colleague

LOOK = SamplingRule(1, RuleKind.SECOND_LOOK, None, None, 1.0, "person boss", datetime.now(UTC))
DRAW = replace(LOOK, kind=RuleKind.CLEAR_SAMPLE)


@dataclass(frozen=True)
class Seen:
    item_id: int = 1
    class_name: str = "gun"
    margin: float = 1.0


@pytest.mark.parametrize(
    ("rule", "case", "asked"),
    [
        (LOOK, Seen(), True),
        (DRAW, Seen(), False),
        (replace(LOOK, class_name="gun"), Seen(), True),
        (replace(LOOK, class_name="knife"), Seen(), False),
        (replace(LOOK, margin_below=2.0), Seen(margin=1.9), True),
        (replace(LOOK, margin_below=2.0), Seen(margin=2.0), False),
        (replace(LOOK, margin_below=2.0), Seen(margin=-1.0), True),
        (replace(LOOK, margin_below=2.0), Seen(margin=-3.0), False),
    ],
)
def test_rules_ask_for_class_and_margin(rule: SamplingRule, case: Seen, asked: bool) -> None:
    assert asks_second_look([rule], case) is asked
    assert asks_second_look([], case) is False


def test_a_share_is_drawn() -> None:
    rule = replace(LOOK, share=0.1)
    found = sum(asks_second_look([rule], Seen(item)) for item in range(10_000))
    assert 900 < found < 1_100


def drawn(rules: list[SamplingRule], class_names: list[str], item: int) -> bool:
    return draw_clear(rules, dict.fromkeys(class_names, 1.0), item) is not None


def test_what_is_drawn_never_changes() -> None:
    rule = replace(DRAW, share=0.05)
    found = [item for item in range(200) if drawn([rule], ["gun"], item)]
    assert found == [0, 9, 31, 36, 46, 55, 64, 107, 123, 157, 196]


def test_rules_draw_independently_of_each_other() -> None:
    one, two = replace(DRAW, id=1, share=0.5), replace(DRAW, id=2, share=0.5)
    both = [
        item for item in range(1_000) if drawn([one], ["gun"], item) and drawn([two], ["gun"], item)
    ]
    assert 200 < len(both) < 300


def test_clear_items_are_drawn_by_class() -> None:
    rule = replace(DRAW, class_name="gun")
    assert drawn([rule], ["knife", "gun"], 1)
    assert not drawn([rule], ["knife"], 1)
    assert drawn([DRAW], ["knife"], 1)
    assert not drawn([LOOK], ["gun"], 1)


EVEN = replace(DRAW, id=7, share=0.02)
LEANING = replace(DRAW, id=8, class_name="gun", margin_below=2.0, share=0.2)


def test_a_second_rule_leans_to_the_threshold() -> None:
    items = range(10_000)
    near = sum(draw_clear([EVEN, LEANING], {"gun": 1.9}, i) is not None for i in items)
    far = [i for i in items if draw_clear([EVEN, LEANING], {"gun": 2.0}, i) is not None]
    assert near / 10_000 == pytest.approx(1 - 0.98 * 0.8, abs=0.012)
    assert far == [i for i in items if draw_clear([EVEN], {"gun": 2.0}, i) is not None]


def test_a_draw_says_how_likely_it_was_for_each_class() -> None:
    draws = [draw_clear([EVEN, LEANING], {"knife": 0.5, "gun": 1.0}, i) for i in range(2_000)]
    found = [draw for draw in draws if draw is not None]
    both = [draw for draw in found if draw.chance.evenly]
    leaning = [draw for draw in found if not draw.chance.evenly]
    assert both and leaning
    assert all(d.chance.item == pytest.approx(0.216) for d in found)
    assert all(d.class_names == ("knife", "gun") for d in both)
    assert all(d.chance.classes == pytest.approx({"knife": 0.02, "gun": 0.216}) for d in both)
    # What only the rule for guns drew says nothing about knives: their margins had no part in it.
    assert all(d.class_names == ("gun",) for d in leaning)
    assert all(d.chance.classes == pytest.approx({"gun": 0.216}) for d in leaning)


def test_rules_hold_until_they_are_removed(sessions: Sessions) -> None:
    boss = colleague(sessions, "boss", Role.POLICY_EDITOR)
    rule = add_rule(sessions, boss, RuleKind.SECOND_LOOK, class_name="gun", share=0.25)
    with sessions.begin() as session:
        assert active_rules(session) == [rule]
    remove_rule(sessions, boss, rule.id)
    with sessions.begin() as session:
        assert active_rules(session) == []
        entries = session.execute(select(LedgerEntry.event, LedgerEntry.actor)).all()
    assert entries[-2:] == [("rule added", "person boss"), ("rule removed", "person boss")]
    with pytest.raises(UnknownEntry, match="no rule"):
        remove_rule(sessions, boss, rule.id)


def test_moderators_make_no_rules(sessions: Sessions) -> None:
    ada = colleague(sessions, "ada")
    with pytest.raises(NotAllowed, match="may not change rules"):
        add_rule(sessions, ada, RuleKind.SECOND_LOOK)
    with pytest.raises(NotAllowed, match="may not change rules"):
        remove_rule(sessions, ada, 1)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_an_impossible_share_is_refused(sessions: Sessions, share: float) -> None:
    boss = colleague(sessions, "boss", Role.ADMIN)
    with pytest.raises(InvalidRequest, match="The share is"):
        add_rule(sessions, boss, RuleKind.CLEAR_SAMPLE, share=share)


def test_flags_that_act_are_drawn_evenly(sessions: Sessions) -> None:
    boss = colleague(sessions, "boss", Role.ADMIN)
    kind = RuleKind.CERTAIN_SAMPLE
    with pytest.raises(InvalidRequest, match=r"are drawn evenly, .*: leave the margin out"):
        add_rule(sessions, boss, kind, margin_below=1.0)
    assert add_rule(sessions, boss, kind, class_name="gun", share=0.2).kind is kind


@pytest.mark.parametrize("margin", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_margin_is_refused(sessions: Sessions, margin: float) -> None:
    boss = colleague(sessions, "boss", Role.ADMIN)
    with pytest.raises(InvalidRequest, match="The margin is"):
        add_rule(sessions, boss, RuleKind.SECOND_LOOK, margin_below=margin)


@pytest.mark.parametrize("name", ["Gun", "", "a b", "x" * 65, "\x00"])
def test_an_impossible_class_is_refused(sessions: Sessions, name: str) -> None:
    boss = colleague(sessions, "boss", Role.ADMIN)
    with pytest.raises(InvalidRequest, match="names no class"):
        add_rule(sessions, boss, RuleKind.SECOND_LOOK, class_name=name)
