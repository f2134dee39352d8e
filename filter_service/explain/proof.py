"""The test of a map: does the marked tenth matter more to the served model than a random tenth?"""

from collections.abc import Sequence

import numpy as np

from filter_service.explain.regions import Screen, Suspect, margins

SHARE = 0.1  # of the places
RANDOM = 4  # draws
SEED = 0


def drops(
    screen: Screen, suspects: Sequence[Suspect], served: Sequence[float]
) -> list[tuple[float, tuple[float, ...]]]:
    """Margin lost without the top tenth of places, and without each random tenth, per image."""
    masked = []
    for s in suspects:
        k = max(1, round(SHARE * s.grid.size))
        rng = np.random.default_rng(SEED)
        picks = [s.order[:k]] + [rng.permutation(s.grid.size)[:k] for _ in range(RANDOM)]
        masked += [(s, s.without(places)) for places in picks]
    rows = np.reshape(margins(screen, masked), (len(suspects), 1 + RANDOM))  # (n, 1 + RANDOM)
    lost = np.asarray(served)[:, None] - rows  # (n, 1 + RANDOM)
    return [(float(row[0]), tuple(map(float, row[1:]))) for row in lost]
