"""Figures of calibration: those of scikit-learn, with intervals that hold their value."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from filter_service.calibration.reliability import (
    MeasuredValue,
    average_precision,
    average_precision_interval,
    brier,
    calibration_error,
    calibration_error_interval,
    log_loss,
    reliability,
)

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.random(2_000).round(2)  # with equals
TRUTHS = RNG.random(2_000) < PROBABILITIES**2

Measure = Callable[[npt.NDArray[np.float64], npt.NDArray[np.bool_]], MeasuredValue]
_P = np.random.default_rng(1).random(400_000)
_T = np.random.default_rng(2).random(400_000) < _P**2
EXPECTED = {  # of the world that the samples come from
    "brier": brier(_P, _T).value,
    "log_loss": log_loss(_P, _T).value,
    "calibration_error_interval": calibration_error(_P, _T),
    "average_precision_interval": average_precision(_P, _T),
}


def test_the_figures_are_those_of_scikit_learn() -> None:
    assert brier(PROBABILITIES, TRUTHS).value == pytest.approx(
        brier_score_loss(TRUTHS, PROBABILITIES)
    )
    inner = np.clip(PROBABILITIES, 0.01, 0.99)
    assert log_loss(inner, TRUTHS).value == pytest.approx(sklearn_log_loss(TRUTHS, inner))
    ours = average_precision(PROBABILITIES, TRUTHS)
    assert ours == pytest.approx(average_precision_score(TRUTHS, PROBABILITIES))


def test_the_calibration_error_is_the_mean_gap_of_the_diagram() -> None:
    promised = np.array([0.2] * 50 + [0.8] * 50)
    truths = np.array([True] * 10 + [False] * 40 + [True] * 20 + [False] * 30)
    assert [b.found for b in reliability(promised, truths, bins=2)] == [0.2, 0.4]
    assert calibration_error(promised, truths, bins=2) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "measure", [brier, log_loss, calibration_error_interval, average_precision_interval]
)
def test_an_interval_holds_the_value_of_nearly_all_samples(measure: Measure) -> None:
    whole = measure(PROBABILITIES, TRUTHS)
    assert whole.low < whole.value < whole.high
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p = rng.random(400)
        t = rng.random(400) < p**2
        found = measure(p, t)
        held += found.low <= EXPECTED[measure.__name__] <= found.high
    assert 48 <= held <= 60
