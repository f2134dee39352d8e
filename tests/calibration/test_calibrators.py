"""Calibrators: enough labels or a sentence, near the truth, and moved by each label as they say."""

import numpy as np
import pytest

from filter_service.calibration.calibrators import (
    common_line,
    fit_calibrator,
    label_influence,
)
from filter_service.calibration.labelled_margins import LabelledMargins
from filter_service.errors import InvalidRequest
from tests.support.margin_worlds import reviewed, stream

NOTHING_SHARED = common_line({})


def test_a_thousand_reviews_find_the_offset_that_the_margins_lack() -> None:
    labels = reviewed(1, 1_000)
    fitted = fit_calibrator(labels, common_line({"weapons": labels}), "weapons")
    margins, truths = stream(np.random.default_rng(2), 200_000)
    flagged = margins >= 1.386
    promised = fitted.probability(margins[flagged]).mean()
    assert promised == pytest.approx(truths[flagged].mean(), abs=0.04)
    assert fitted.b < -3
    assert fitted.margin_at(0.5) == pytest.approx(3.01, abs=0.3)


def test_few_labels_lean_on_the_line_that_all_classes_share() -> None:
    others = {str(i): reviewed(100 + i, 200) for i in range(11)}
    errors = []
    for seed in range(20):
        labels = reviewed(seed, 50)
        shared = common_line({**others, "weapons": labels})
        halves = [
            fit_calibrator(labels, line, "weapons").margin_at(0.5)
            for line in (shared, common_line({"weapons": labels}))
        ]
        errors.append([abs(h - 3.01) for h in halves])
    leaning, alone = np.mean(errors, axis=0)
    assert leaning < 0.9 * alone


def test_an_interval_narrows_with_labels_and_holds_the_probability() -> None:
    margins = np.array([0.0, 2.0, 4.0])
    widths = []
    for count in (60, 1_000):
        fitted = fit_calibrator(reviewed(3, count), NOTHING_SHARED, "weapons")
        low, high = fitted.interval(margins)
        assert (low < fitted.probability(margins)).all()
        assert (fitted.probability(margins) < high).all()
        widths.append(high - low)
    assert (widths[1] < widths[0]).all()


def test_what_did_not_come_by_the_margin_stays_out_of_the_fit() -> None:
    labels = reviewed(4, 300)
    appealed = LabelledMargins.of(
        np.concatenate([labels.margins, np.full(200, 3.0)]),
        np.concatenate([labels.truths, np.zeros(200, np.bool_)]),
        np.concatenate([labels.chances, np.full(200, np.nan)]),
    )
    fits = [fit_calibrator(x, NOTHING_SHARED, "weapons") for x in (appealed, labels)]
    assert fits[0].a == fits[1].a
    assert fits[0].labels == fits[1].labels == 300


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LabelledMargins.of([], []), "0 labels"),
        (LabelledMargins.of([1.0], [True]), "1 labels"),
        (reviewed(5, 49), "49 labels"),
        (LabelledMargins.of(np.arange(60.0), np.zeros(60, np.bool_)), "0 show it"),
        (LabelledMargins.of(np.arange(60.0), np.arange(60) < 4), "4 show it"),
        (LabelledMargins.of(np.ones(60), np.arange(60) < 30), "the margin 1.000"),
        (LabelledMargins.of(np.arange(60.0), np.arange(60) < 30), "the wrong way round"),
    ],
)
def test_labels_that_say_too_little_are_refused_with_a_sentence(
    labels: LabelledMargins, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        fit_calibrator(labels, NOTHING_SHARED, "weapons")


def test_the_influence_of_a_label_is_what_fitting_without_it_changes() -> None:
    labels = reviewed(6, 60)
    fitted = fit_calibrator(labels, NOTHING_SHARED, "weapons")
    at = np.array([2.5])
    again = []
    for i in range(60):
        rest = labels.among(np.arange(60) != i)
        line = fit_calibrator(rest, NOTHING_SHARED, "weapons")
        again.append(fitted.probability(at)[0] - line.probability(at)[0])
    told = label_influence(labels, NOTHING_SHARED, "weapons", 2.5)
    assert np.abs(told - again).max() < 1e-3
    assert np.abs(again).max() > 0.01  # it is something that can be told
