"""Figures of calibration: those of scikit-learn, with intervals that hold their value."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from filter_service.calibration.reliability import (
    average_precision,
    brier,
    calibration_error,
    log_loss,
    reliability,
    with_interval,
)

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.random(2_000).round(2)  # with equals
TRUTHS = RNG.random(2_000) < PROBABILITIES**2


def test_the_figures_are_those_of_scikit_learn() -> None:
    assert brier(PROBABILITIES, TRUTHS) == pytest.approx(brier_score_loss(TRUTHS, PROBABILITIES))
    inner = np.clip(PROBABILITIES, 0.01, 0.99)
    assert log_loss(inner, TRUTHS) == pytest.approx(sklearn_log_loss(TRUTHS, inner))
    ours = average_precision(PROBABILITIES, TRUTHS)
    assert ours == pytest.approx(average_precision_score(TRUTHS, PROBABILITIES))


def test_the_calibration_error_is_the_mean_gap_of_the_diagram() -> None:
    promised = np.array([0.2] * 50 + [0.8] * 50)
    truths = np.array([True] * 10 + [False] * 40 + [True] * 20 + [False] * 30)
    assert [b.found for b in reliability(promised, truths, bins=2)] == [0.2, 0.4]
    assert calibration_error(promised, truths, bins=2) == pytest.approx(0.2)


def test_an_interval_holds_the_value_and_narrows_with_images() -> None:
    wide = with_interval(brier, PROBABILITIES[:100], TRUTHS[:100])
    narrow = with_interval(brier, PROBABILITIES, TRUTHS)
    assert wide.low < wide.value < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 3
