"""Estimates: intervals that hold what they say, and none where nothing can be claimed."""

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.estimates import THRESHOLD, coverage, reviewed, truth
from filter_service.accounts import Role
from filter_service.calibration.estimates import class_estimates, share, stratified_share, sum_of
from filter_service.calibration.intervals import wilson
from filter_service.db.session import Sessions
from filter_service.reviews.agreement import ReviewerAgreement, agreement
from filter_service.reviews.case_claims import claim
from filter_service.reviews.decisions import decide
from filter_service.reviews.review_rules import RuleKind, add_rule
from filter_service.reviews.settlement import Decision, settle
from tests.support.review_cases import LEASE, colleague, one_case


@pytest.mark.parametrize(
    ("repeats", "items", "leaning"), [(800, 5_000, 0.0), (800, 5_000, 0.2), (400, 20_000, 0.2)]
)
def test_nine_of_ten_intervals_hold_the_truth(repeats: int, items: int, leaning: float) -> None:
    found = coverage(repeats, items, leaning, seed=3)
    held = {name: row[0] for name, row in found.items()}
    assert set(held) == {"precision", "recall", "prevalence"}
    assert all(0.86 <= part <= 0.94 for part in held.values()), held


def test_estimates_are_near_the_truth_where_much_was_reviewed() -> None:
    found = class_estimates(*reviewed(np.random.default_rng(1), 400_000), THRESHOLD)
    for name, true in truth().items():
        assert getattr(found, name).value == pytest.approx(true, rel=0.08)


def test_without_weights_recall_would_look_far_better() -> None:
    margins, truths, chances = reviewed(np.random.default_rng(1), 100_000)
    found = class_estimates(margins, truths, chances, THRESHOLD)
    naive = (truths & (margins >= THRESHOLD)).sum() / truths.sum()
    assert found.recall.high is not None
    assert naive > found.recall.high


def test_recall_is_not_claimed_from_flags_alone() -> None:
    margins, truths, chances = reviewed(np.random.default_rng(1), 20_000)
    flags = margins >= THRESHOLD
    found = class_estimates(margins[flags], truths[flags], chances[flags], THRESHOLD)
    assert found.precision.value is not None
    for none in (found.recall, found.prevalence):
        assert (none.value, none.low, none.high) == (None, None, None)
        assert "Only flags were reviewed" in none.why_none


@pytest.mark.parametrize(("positives", "claimed"), [(19, False), (20, True)])
def test_nothing_is_claimed_below_twenty_positives(positives: int, claimed: bool) -> None:
    truths = np.arange(60) < positives
    margins = np.where(truths, 2.0, np.where(np.arange(60) < 40, 2.0, 0.0))
    found = class_estimates(margins, truths, np.ones(60), 1.0)
    for one in (found.precision, found.recall, found.prevalence):
        assert (one.value is not None) is claimed
        assert claimed or "19 drawn or flagged images show it, and 20 are the least" in one.why_none


def test_labels_of_unknown_chance_are_left_out() -> None:
    margins, truths, chances = reviewed(np.random.default_rng(1), 20_000)
    asked = np.full(500, np.nan)
    more = class_estimates(
        np.concatenate([margins, np.full(500, 9.0)]),
        np.concatenate([truths, np.zeros(500, bool)]),
        np.concatenate([chances, asked]),
        THRESHOLD,
    )
    assert more == class_estimates(margins, truths, chances, THRESHOLD)


def test_a_sample_without_a_miss_still_bounds_the_misses() -> None:
    """Of 400 clear items, one in fifty drawn, none was missed: recall need not be 1."""
    margins, truths = np.repeat([2.0, -1.0], [100, 400]), np.repeat([True, False], [100, 400])
    found = class_estimates(margins, truths, np.repeat([1.0, 0.02], [100, 400]), 1.0).recall
    assert found.value == found.high == 1.0
    # At most 2.7 of those drawn, which stand for 135 misses beside the 100 that were found.
    assert found.low == pytest.approx(100 / 235, abs=0.03)


def test_one_weight_for_all_gives_a_share_like_wilsons() -> None:
    hits = np.arange(200) < 37
    found = share(sum_of(np.ones(200), hits), sum_of(np.ones(200), ~hits))
    expected = binomtest(37, 200).proportion_ci(0.9, method="wilson")
    assert found == pytest.approx((37 / 200, expected.low, expected.high), abs=0.004)


def test_barnetts_review_of_a_view_rate_is_reproduced() -> None:
    """Table 2B: the population rate and its standard deviation at 4,000 reviews."""
    weights, rates = (0.8, 0.1, 0.05, 0.01, 0.04), (0.0005, 0.005, 0.01, 0.05, 0.0025)
    value, error = stratified_share(weights, rates, (2098, 828, 584, 256, 234))
    assert (round(100 * value, 4), round(100 * error, 4)) == (0.2, 0.0539)
    even = stratified_share(weights, rates, (3200, 400, 200, 40, 160))[1]
    assert error < even


def test_wilsons_interval_is_for_any_confidence() -> None:
    found = wilson(13, 200, 1.6448536269514722)
    expected = binomtest(13, 200).proportion_ci(0.9, method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_reviewers_are_compared_with_what_stood_in_the_end(sessions: Sessions) -> None:
    ada, ben = colleague(sessions, "ada"), colleague(sessions, "ben")
    sue = colleague(sessions, "sue", Role.SENIOR)
    add_rule(sessions, colleague(sessions, "boss", Role.ADMIN), RuleKind.SECOND_LOOK)
    right, wrong = Decision.OVERTURNED, Decision.CONFIRMED
    for second in (right, wrong):
        item = one_case(sessions)
        decisions = [(ada, right), (ben, second)] + ([(sue, right)] if second is wrong else [])
        for person, decision in decisions:
            claim(sessions, person, item, LEASE)
            decide(sessions, person, item, decision, undo_seconds=0)
            settle(sessions)
    waiting = one_case(sessions)  # decided once: nobody has looked at it again
    claim(sessions, ada, waiting, LEASE)
    decide(sessions, ada, waiting, wrong, undo_seconds=0)
    settle(sessions)
    found = agreement(sessions)
    assert found == [ReviewerAgreement("ada", 2, 2), ReviewerAgreement("ben", 1, 2)]
    assert found[1].share == wilson(1, 2, 1.6448536269514722)
