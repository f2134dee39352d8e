"""Whether the intervals of precision, recall and prevalence hold what they say.

    python -m benchmarks.estimates [--repeats 1000]

A stream of margins, reviewed as a console reviews it: every flag, a share of the clear items, and
more of those near the threshold. Prints by size of the stream and way of drawing how many of the
90 % intervals hold the truth, and how wide they are.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from filter_service.calibration.estimates import class_estimates

THRESHOLD = 1.386  # logits: a probability of 0.8
PRESENT = 0.025  # of all items
SHOWN, CLEAR = (3.1, 2.4), (-1.8, 1.7)  # mean and deviation of the margins
EVEN, LEANING, NEAR = 0.02, 0.2, 2.0  # shares that are drawn; logits under the threshold
NAMES = ("precision", "recall", "prevalence")

Floats = npt.NDArray[np.float64]
Reviewed = tuple[Floats, npt.NDArray[np.bool_], Floats]  # margins, truths, chances


def truth() -> dict[str, float]:
    """What the stream is like."""
    found = PRESENT * float(norm.sf(THRESHOLD, *SHOWN))
    wrong = (1 - PRESENT) * float(norm.sf(THRESHOLD, *CLEAR))
    return {
        "precision": found / (found + wrong),
        "recall": found / PRESENT,
        "prevalence": PRESENT,
    }


def reviewed(rng: np.random.Generator, items: int, leaning: float = LEANING) -> Reviewed:
    """What is known of a stream of so many items after review."""
    shown = rng.random(items) < PRESENT  # (items,)
    margins = np.where(shown, rng.normal(*SHOWN, items), rng.normal(*CLEAR, items))
    near = margins >= THRESHOLD - NEAR
    chances = np.where(near, 1 - (1 - EVEN) * (1 - leaning), EVEN)
    chances[margins >= THRESHOLD] = 1.0
    drawn = rng.random(items) < chances
    return margins[drawn], shown[drawn], chances[drawn]


def coverage(repeats: int, items: int, leaning: float, seed: int = 0) -> dict[str, Sequence[float]]:
    """Share of intervals that hold the truth, their mean width and number, by quantity."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in NAMES}
    for _ in range(repeats):
        estimates = class_estimates(*reviewed(rng, items, leaning), THRESHOLD)
        for name, true in truth().items():
            one = getattr(estimates, name)
            if one.value is not None:
                found[name].append((one.low <= true <= one.high, one.high - one.low))
    return {n: (*np.mean(some, axis=0), len(some)) for n, some in found.items() if some}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    print("90 % intervals that hold the truth, %; their mean width; of how many repeats")
    for items in (2_000, 5_000, 20_000, 100_000):
        for leaning in (0.0, LEANING):
            rows = coverage(repeats, items, leaning)
            told = "  ".join(
                f"{name} {100 * held:.1f} {width:.3f} {count}"
                for name, (held, width, count) in rows.items()
            )
            print(f"{items:>7,} items, {leaning:.0%} more near the threshold: {told}", flush=True)


if __name__ == "__main__":
    main()
