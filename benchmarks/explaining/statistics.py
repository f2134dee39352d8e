"""Paired bootstrap over images: confidence intervals for differences between methods."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]

DRAWS = 1000
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Zero lies outside."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def resamples(images: Rows) -> list[Rows]:
    """For every draw, the rows whose image was drawn, as often as it was; the same every time."""
    rng = np.random.default_rng(SEED)
    distinct = np.unique(images)
    rows = {image: np.flatnonzero(images == image) for image in distinct}
    return [
        np.concatenate([rows[i] for i in rng.choice(distinct, len(distinct))]) for _ in range(DRAWS)
    ]


def interval(figure: Callable[[Rows], float], draws: list[Rows], everything: Rows) -> Interval:
    """Of a figure of rows, such as the difference of two methods on the same rows."""
    values = [figure(rows) for rows in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(figure(everything), float(low), float(high))
