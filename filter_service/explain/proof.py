"""The test of a map: do the marked places matter more to the served model than random ones?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from filter_service.explain.regions import Screen, Suspect, margins

SHARES = (0.1, 0.2)  # of the places that are taken away
RANDOM = 3  # orders
SEED = 0


@dataclass(frozen=True, slots=True)
class Drops:
    """What a margin lost without the marked places, and without as many random ones."""

    marked: tuple[float, ...]  # logits, one per share
    random: tuple[tuple[float, ...], ...]  # likewise, one row per random order
    sizes: tuple[int, ...]  # places behind each share


def drops(screen: Screen, suspects: Sequence[Suspect], served: Sequence[float]) -> list[Drops]:
    """Take away each share of the places in the map's order and in random ones, per image."""
    if not suspects:
        return []
    masked = []
    for s in suspects:
        rng = np.random.default_rng(SEED)
        orders = [s.order, *(rng.permutation(s.grid.size) for _ in range(RANDOM))]
        masked += [(s, s.without(order[:k])) for order in orders for k in sizes(s)]
    answers = np.reshape(margins(screen, masked), (len(suspects), 1 + RANDOM, len(SHARES)))
    lost = np.asarray(served)[:, None, None] - answers  # (n, 1 + RANDOM, shares)
    return [
        Drops(tuple(rows[0].tolist()), tuple(map(tuple, rows[1:].tolist())), sizes(s))
        for s, rows in zip(suspects, lost, strict=True)
    ]


def sizes(suspect: Suspect) -> tuple[int, ...]:
    """How many places each share is; at least one."""
    return tuple(max(1, round(share * suspect.grid.size)) for share in SHARES)
