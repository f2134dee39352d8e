"""Thresholds without labels: the share that they promise is the share that comes."""

import numpy as np
import pytest
from scipy.stats import norm

from filter_service.calibration.starting_thresholds import (
    CONFIDENCE,
    FEWEST,
    StartingThreshold,
    fewest_pictures,
    starting_threshold,
)
from filter_service.errors import InvalidRequest

REPEATS = 1_500


def drawn(pictures: int, share: float) -> list[StartingThreshold]:
    rng = np.random.default_rng(pictures)
    return [starting_threshold(rng.normal(-2, 1.7, pictures), share) for _ in range(REPEATS)]


@pytest.mark.parametrize(("pictures", "share"), [(200, 0.01), (200, 0.0123), (999, 0.001)])
def test_the_share_of_fresh_pictures_above_is_the_one_that_was_asked(
    pictures: int, share: float
) -> None:
    above = norm.sf([t.margin for t in drawn(pictures, share)], -2, 1.7)  # known exactly
    assert above.mean() == pytest.approx(share, rel=0.08)


@pytest.mark.parametrize(("pictures", "share"), [(200, 0.01), (1_000, 0.01), (200, 0.05)])
def test_the_interval_holds_the_share_as_often_as_it_says(pictures: int, share: float) -> None:
    found = drawn(pictures, share)
    above = norm.sf([t.margin for t in found], -2, 1.7)
    held = [t.low <= a <= t.high for t, a in zip(found, above, strict=True)]
    assert np.mean(held) == pytest.approx(CONFIDENCE, abs=0.025)


def test_too_few_pictures_are_refused_with_their_number() -> None:
    with pytest.raises(InvalidRequest, match=r"^199 different pictures are too few .* give 200 or"):
        starting_threshold(np.arange(199.0), 0.01)


def test_a_rare_share_needs_more_pictures() -> None:
    assert fewest_pictures(0.05) == FEWEST
    assert fewest_pictures(0.001) == 999
    with pytest.raises(InvalidRequest, match=r"998 .* above what 0.1 % .* give 999 or more, or"):
        starting_threshold(np.arange(998.0), 0.001)


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6, 1e-9, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(InvalidRequest, match="of the stream is no queue"):
        starting_threshold(np.arange(300.0), share)


def test_pictures_of_one_margin_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="All 300 pictures have the same margin"):
        starting_threshold(np.zeros(300), 0.01)
