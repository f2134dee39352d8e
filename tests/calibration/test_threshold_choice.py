"""Thresholds by what people want: promises that hold, or a sentence that none can be given."""

import math

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController
from scipy.stats import norm

from filter_service.calibration.calibrators import common_line, fit_calibrator
from filter_service.calibration.labelled_margins import LabelledMargins
from filter_service.calibration.threshold_choice import (
    fewest_positives,
    for_budget,
    for_certain,
    for_cost,
    for_miss_rate,
    for_precision,
)
from filter_service.errors import InvalidRequest
from tests.support.margin_worlds import FLAGGED, reviewed, stream


def uniform(seed: int, positives: int) -> LabelledMargins:
    """A random sample of a stream with so many positives."""
    rng = np.random.default_rng(seed)
    clear = rng.normal(-1.8, 1.7, 4 * positives)
    margins = np.concatenate([rng.normal(3.1, 2.4, positives), clear])
    return LabelledMargins.of(margins, np.arange(len(margins)) < positives, 0.02)


def audit(seed: int) -> LabelledMargins:
    """All flags, a tenth of the rest, and more near the threshold."""
    rng = np.random.default_rng(seed)
    margins, truths = stream(rng, 40_000)
    near = np.where(margins > -1, 0.55, 0.1)
    chances = np.where(margins >= FLAGGED, 1.0, near)
    rows = rng.random(len(margins)) < chances
    return LabelledMargins(margins[rows], truths[rows], chances[rows])


def missed(margin: float) -> float:
    """The true share of the forbidden below a margin."""
    return float(norm.cdf(margin, 3.1, 2.4))


def test_the_least_numbers_of_positives_are_those_of_the_literature() -> None:
    assert [fewest_positives(a) for a in (0.10, 0.05)] == [22, 45]


@pytest.mark.parametrize("draw", [lambda i: uniform(i, 25), lambda i: uniform(i, 100), audit])
def test_a_promised_miss_rate_is_broken_in_one_of_ten_at_most(draw: object) -> None:
    assert callable(draw)
    given = [for_miss_rate(draw(i), 0.1, reviewed_from=FLAGGED).margin for i in range(100)]
    assert np.mean([missed(m) > 0.1 for m in given]) <= 0.13  # two deviations over a twentieth
    assert np.mean([missed(m) for m in given]) > 0.02  # and no threshold that flags everything


def right(margin: float) -> float:
    """The true share of the stream above a margin that shows the class."""
    shown, other = norm.sf(margin, 3.1, 2.4), norm.sf(margin, -1.8, 1.7)
    return float(0.025 * shown / (0.025 * shown + 0.975 * other))


@pytest.mark.parametrize("kept_above", [1.0, 0.3])
def test_flags_that_act_are_as_right_as_promised(kept_above: float) -> None:
    """Also where of those far above only a sample is reviewed, as once they act by themselves."""
    given, refused = [], 0
    for seed in range(40):
        labels = reviewed(seed, 1_000)
        chances = np.where(labels.margins >= 5, kept_above, labels.chances)
        rows = np.random.default_rng(seed).random(len(labels)) < chances / labels.chances
        known = LabelledMargins(labels.margins[rows], labels.truths[rows], chances[rows])
        calibrator = fit_calibrator(known, common_line({"x": known}), "x")
        try:
            margins = stream(np.random.default_rng(seed + 1_000), 10_000)[0]
            given.append(for_certain(known, calibrator, margins, 0.9).margin)
        except InvalidRequest as said:
            refused += 1
            assert "ask for less, or review more" in str(said)
    assert np.mean([right(m) < 0.9 for m in given]) <= 0.1
    assert refused < 20


def test_mapies_controller_allows_as_many_misses_on_a_uniform_sample_or_few_less() -> None:
    labels = uniform(0, 100)
    margins = np.linspace(-4, 4, 161)
    controller = BinaryClassificationController(
        lambda x: np.stack([1 - x[:, 0], x[:, 0]], axis=1),
        risk="recall",
        target_level=0.9,
        confidence_level=0.9,
        fwer_method="fixed_sequence",
        list_predict_params=1 / (1 + np.exp(-margins)),
    )
    probabilities = 1 / (1 + np.exp(-labels.margins))
    controller.calibrate(probabilities[:, None], labels.truths.astype(int))
    theirs = math.log(1 / (1 / np.max(controller.valid_predict_params) - 1))
    ours = for_miss_rate(labels, 0.1, reviewed_from=FLAGGED)
    # Its bound is Hoeffding and Bentkus's for any loss, which is a little wider for counts.
    allowed = (labels.margins[labels.truths] < theirs).sum()
    assert 0 <= ours.missed - allowed <= 2


def test_flags_alone_promise_nothing() -> None:
    flags = LabelledMargins.of(np.linspace(2, 6, 200), np.ones(200, np.bool_))
    with pytest.raises(InvalidRequest, match="draw clear images for review"):
        for_miss_rate(flags, 0.1, reviewed_from=FLAGGED)


def test_positives_found_among_flags_only_are_too_few_however_many() -> None:
    flags = stream(np.random.default_rng(0), 10_000, present=1.0)[0]
    clear = np.full(200, -2.0)
    labels = LabelledMargins.of(
        np.concatenate([flags[flags >= FLAGGED], clear]),
        np.concatenate([np.ones((flags >= FLAGGED).sum()), np.zeros(200)]),
        np.concatenate([np.ones((flags >= FLAGGED).sum()), np.full(200, 0.0001)]),
    )
    with pytest.raises(InvalidRequest, match="positives are too few"):
        for_miss_rate(labels, 0.1, reviewed_from=FLAGGED)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidRequest, match="between 0 and 1"):
        for_miss_rate(uniform(0, 30), share, reviewed_from=FLAGGED)


def test_too_few_positives_are_counted_in_the_refusal() -> None:
    with pytest.raises(InvalidRequest, match=r"21 positives .* 22 are the least"):
        for_miss_rate(uniform(0, 21), 0.1, reviewed_from=FLAGGED)


def test_a_promised_precision_is_reached() -> None:
    margins, truths = stream(np.random.default_rng(7), 100_000)
    broken = 0
    for seed in range(20):
        labels = reviewed(seed, 400)
        fitted = fit_calibrator(labels, common_line({"weapons": labels}), "weapons")
        over = margins >= for_precision(fitted, margins, 0.7)
        broken += truths[over].mean() < 0.68
    assert broken <= 3


def test_a_precision_that_nothing_reaches_is_refused() -> None:
    fitted = fit_calibrator(reviewed(1, 60), common_line({}), "weapons")
    with pytest.raises(InvalidRequest, match=r"No threshold promises a precision of 0.99"):
        for_precision(fitted, np.linspace(-5, 1, 500), 0.99)


def test_the_cheapest_threshold_is_where_a_review_pays() -> None:
    fitted = fit_calibrator(reviewed(1, 400), common_line({}), "weapons")
    margin = for_cost(fitted, miss=20, review=1)
    assert fitted.probability(np.array([margin]))[0] == pytest.approx(1 / 20)
    with pytest.raises(InvalidRequest, match="a miss has to cost more"):
        for_cost(fitted, miss=1, review=2)


def test_a_budget_of_reviews_is_what_lies_over_its_threshold() -> None:
    margins = np.random.default_rng(0).normal(size=10_000)
    over = (margins >= for_budget(margins, images_a_day=50_000, reviews_a_day=500)).mean()
    assert over == pytest.approx(0.01, abs=1e-4)
    assert for_budget(margins, images_a_day=10, reviews_a_day=20) == -math.inf
