"""What is known of one class: the margins of images whose truth somebody has said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.errors import InvalidRequest

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MINIMUM_LABELS = 50  # fewer say too little of two numbers
MINIMUM_EACH = 5  # of those that show the class, and of those that do not


@dataclass(frozen=True, slots=True)
class LabelledMargins:
    """Images with a known truth for one class, in one encoder's margins."""

    margins: Floats  # (n,), logits
    truths: Bools  # (n,), whether the image shows the class
    # (n,): with what chance each came to be known; NaN: not by its margin, such as by an appeal.
    chances: Floats

    def __post_init__(self) -> None:
        if not len(self.margins) == len(self.truths) == len(self.chances):
            raise ValueError("margins, truths and chances are of different lengths")
        if not np.isfinite(self.margins).all():
            raise ValueError("a margin is no number")

    @classmethod
    def of(
        cls,
        margins: Sequence[float] | Floats,
        truths: Sequence[bool] | Bools,
        chances: Sequence[float] | Floats | float = 1.0,
    ) -> "LabelledMargins":
        """From anything that numpy takes; one chance stands for all."""
        m = np.asarray(margins, np.float64)
        return cls(
            m,
            np.asarray(truths, np.bool_),
            np.broadcast_to(np.asarray(chances, np.float64), m.shape).copy(),
        )

    def __len__(self) -> int:
        return len(self.margins)

    @property
    def positives(self) -> int:
        return int(self.truths.sum())

    def drawn(self) -> "LabelledMargins":
        """Those that were chosen by their margin, or at random: the others bias every fit."""
        return self.among(np.isfinite(self.chances))

    def among(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "LabelledMargins":
        return LabelledMargins(self.margins[rows], self.truths[rows], self.chances[rows])


def require_enough(labels: LabelledMargins, class_name: str) -> None:
    """InvalidRequest with a sentence where the labels of a class say too little to fit on."""
    n, shown = len(labels), labels.positives
    least = min(shown, n - shown)
    if n < MINIMUM_LABELS or least < MINIMUM_EACH:
        raise InvalidRequest(
            f"{class_name} stays uncalibrated: {n} labels, of which {shown} show it and "
            f"{n - shown} do not, say too little; review until there are {MINIMUM_LABELS}, with "
            f"{MINIMUM_EACH} or more of each."
        )
    if np.ptp(labels.margins) == 0:
        raise InvalidRequest(
            f"{class_name} stays uncalibrated: all {n} labels have the margin "
            f"{labels.margins[0]:.3f}, so that nothing tells them apart; check the prompts."
        )
