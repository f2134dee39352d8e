"""Margins of images whose truth is known: two normal distributions, reviewed as a console draws."""

import numpy as np
import numpy.typing as npt

from filter_service.calibration.labelled_margins import LabelledMargins

FLAGGED = 1.386  # the margin at which an uncalibrated probability is .8


def stream(
    rng: np.random.Generator, count: int, present: float = 0.025
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Margins in logits and truths, (count,) each."""
    truths = rng.random(count) < present
    return np.where(truths, rng.normal(3.1, 2.4, count), rng.normal(-1.8, 1.7, count)), truths


def reviewed(seed: int, count: int) -> LabelledMargins:
    """The first images of a stream that people look at: all flags, and 2 % of the rest."""
    rng = np.random.default_rng(seed)
    margins, truths = stream(rng, 40 * count + 5_000)
    chances = np.where(margins >= FLAGGED, 1.0, 0.02)
    rows = np.flatnonzero(rng.random(len(margins)) < chances)[:count]
    return LabelledMargins(margins[rows], truths[rows], chances[rows])
