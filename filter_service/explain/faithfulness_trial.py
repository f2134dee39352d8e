"""Tests a map: masking its marked places has to cost more margin than masking others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.explain.regions import Places, Screen, Suspect, vectors_of
from filter_service.scoring import ClassVectors, FloatArray
from filter_service.verdicts.faithfulness import Drops

SHARES = (0.1, 0.2)  # of the places that are taken away
RANDOM = 8  # orders, the first three of them those of schema 1
SEED = 0


@dataclass(frozen=True)
class Trial:
    """A flagged image whose map is tested, and the class that came next, if there is another."""

    suspect: Suspect
    z: FloatArray  # (d,) as served
    next: ClassVectors | None


@dataclass(frozen=True, slots=True)
class MapTest:
    """What was lost without the marked places, the least marked, and as many random ones."""

    drops: Drops
    next_drops: Drops | None  # of the next class, from the same masked images
    known: dict[int, float]  # places gone, in map order -> margin


def put_to_test(screen: Screen, trials: Sequence[Trial]) -> list[MapTest]:
    """Take places away in the map's order, in random ones and in its reverse, and all of them."""
    masked = [t.suspect.without(places) for t in trials for places in _gone(t.suspect)]
    z = vectors_of(screen, masked)  # (masked images of all trials, d)
    parts = np.split(z, len(trials)) if trials else []
    return [_tested(t, part) for t, part in zip(trials, parts, strict=True)]


def sizes(suspect: Suspect) -> list[int]:
    """How many places each share is; at least one."""
    return [max(1, round(share * suspect.grid.size)) for share in SHARES]


def _gone(suspect: Suspect) -> list[Places]:
    """What is taken away: shares of the map's order, of random ones, of its reverse; everything."""
    rng, order = np.random.default_rng(SEED), suspect.order
    random = [rng.permutation(order.size) for _ in range(RANDOM)]
    orders = [order, *random, order[::-1].copy()]
    return [*(places[:k] for places in orders for k in sizes(suspect)), order]


def _tested(trial: Trial, z: FloatArray) -> MapTest:
    suspect = trial.suspect
    margins = suspect.vectors.margins(z)  # (masked images,)
    known = dict(zip(sizes(suspect), margins.tolist(), strict=False))
    return MapTest(
        drops=_drops(suspect.vectors, trial.z, z),
        next_drops=_drops(trial.next, trial.z, z) if trial.next else None,
        known=known | {suspect.grid.size: float(margins[-1])},
    )


def _drops(vectors: ClassVectors, served: FloatArray, masked: FloatArray) -> Drops:
    margins = vectors.margins(np.concatenate([served[None], masked]))  # (1 + masked images,)
    lost: npt.NDArray[np.float64] = margins[0] - margins[1:]
    rows = lost[:-1].reshape(1 + RANDOM + 1, len(SHARES)).tolist()
    return Drops(
        marked=tuple(rows[0]),
        least=tuple(rows[-1]),
        random=tuple(map(tuple, rows[1:-1])),
        whole=float(lost[-1]),
        served=float(margins[0]),
    )
