"""Drift: no alarm where nothing changed, and soon one where the margins moved."""

import numpy as np
import pytest

from filter_service.calibration.drift import (
    FALSE_ALARMS,
    DriftMonitor,
    ShareMonitor,
    class_drift_test,
)
from tests.support.margin_worlds import FLAGGED, stream


def test_quiet_months_give_no_alarm() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        monitor = DriftMonitor(reference=stream(rng, 1_000)[0])
        assert not any([monitor.update(stream(rng, 1_000)[0]) for _ in range(30)])


def test_half_a_deviation_is_found_within_two_thousand_items_after_a_quiet_time() -> None:
    rng = np.random.default_rng(1)
    for shift in (-0.94, 0.94):
        monitor = DriftMonitor(reference=stream(rng, 2_000)[0])
        assert not monitor.update(stream(rng, 10_000)[0])
        assert any([monitor.update(stream(rng, 100)[0] + shift) for _ in range(20)])


def test_a_small_reference_makes_the_monitor_doubt_and_not_cry() -> None:
    rng = np.random.default_rng(2)
    alarms = [
        any([monitor.update(stream(rng, 1_000)[0]) for _ in range(30)])
        for monitor in (DriftMonitor(reference=stream(rng, 100)[0]) for _ in range(10))
    ]
    assert not any(alarms)


def test_equal_margins_are_no_drift() -> None:
    monitor = DriftMonitor(reference=np.zeros(1_000))
    assert not monitor.update(np.zeros(10_000))


def test_twelve_quiet_classes_together_give_no_alarm() -> None:
    rng = np.random.default_rng(3)
    for _ in range(12):
        test = class_drift_test(stream(rng, 5_000)[0], FLAGGED, classes=12)
        assert not test.update(stream(rng, 30_000)[0])
        assert test.margins.false_alarms == FALSE_ALARMS / 24


@pytest.mark.parametrize("times", [1 / 4, 4])
def test_a_flagged_share_that_changes_is_found(times: float) -> None:
    rng = np.random.default_rng(4)
    monitor = ShareMonitor(flagged=400, of=10_000)
    assert not monitor.update(rng.random(10_000) < 0.04)
    assert monitor.update(rng.random(3_000) < 0.04 * times)


@pytest.mark.parametrize(("flagged", "share"), [(0, 0.004), (36, 0.05), (1_000, 0.996)])
def test_a_share_that_the_reference_allows_gives_no_alarm(flagged: int, share: float) -> None:
    """Of a thousand none, fewer than there should be, or all were flagged."""
    rng = np.random.default_rng(5)
    monitor = ShareMonitor(flagged=flagged, of=1_000)
    assert not monitor.update(rng.random(30_000) < share)
