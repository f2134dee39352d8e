"""Drift: no alarm where nothing changed, and soon one where the margins moved."""

import numpy as np

from filter_service.calibration.drift import DriftMonitor
from tests.support.margin_worlds import stream


def test_quiet_months_give_no_alarm() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        monitor = DriftMonitor(stream(rng, 1_000)[0])
        assert not any([monitor.update(stream(rng, 1_000)[0]) for _ in range(30)])


def test_half_a_deviation_is_found_within_two_thousand_items_after_a_quiet_time() -> None:
    rng = np.random.default_rng(1)
    for shift in (-0.94, 0.94):
        monitor = DriftMonitor(stream(rng, 2_000)[0])
        assert not monitor.update(stream(rng, 10_000)[0])
        assert any([monitor.update(stream(rng, 100)[0] + shift) for _ in range(20)])


def test_a_small_reference_makes_the_monitor_doubt_and_not_cry() -> None:
    rng = np.random.default_rng(2)
    alarms = [
        any([monitor.update(stream(rng, 1_000)[0]) for _ in range(30)])
        for monitor in (DriftMonitor(stream(rng, 100)[0]) for _ in range(10))
    ]
    assert not any(alarms)


def test_equal_margins_are_no_drift() -> None:
    monitor = DriftMonitor(np.zeros(1_000))
    assert not monitor.update(np.zeros(10_000))
