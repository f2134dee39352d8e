"""Evaluates relevance-map methods on one data split of one model, for paired comparison."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.explaining import candidates
from benchmarks.explaining.measures import (
    Located,
    Masker,
    Order,
    area,
    curve,
    greedy,
    masses,
    spearman,
)
from benchmarks.explaining.statistics import Interval, Rows, interval, resamples
from benchmarks.explaining.trials import Array, Pair, Trials
from filter_service.encoder import Encoder
from filter_service.explain.study.methods import Method

FILLS = ("mean", "blur", "drop")
ORACLE = 100  # pairs for which the best order is sought, by trying
SHUFFLED = 3  # random orders whose curves are averaged
DOWN, UP = 1, -1  # most relevant first: the margin should fall; least first: it should stay


@dataclass(frozen=True)
class Figures:
    """What one method scored, as it is published."""

    name: str
    causal: Interval
    pointing: float
    precision: float
    auc: float
    energy: float
    deletion: dict[str, float]  # by fill: (method - random) / (oracle - random)
    insertion: dict[str, float]
    curves: dict[str, list[float]]  # by fill: mean margin after each step, most relevant first


@dataclass(frozen=True)
class Measured:
    """The figures of a method, and what they were made of."""

    figures: Figures
    mass: Array  # (pairs x objects,) of the map on every object
    areas: dict[str, Array]  # by fill: (first pairs,) under the deletion curve


@dataclass(frozen=True)
class Gap:
    """How much better one method is than another, with 95 % intervals over images."""

    causal: Interval
    deletion: Interval


class Study:
    """The trials of one split, and what all methods share: random and oracle curves."""

    def __init__(self, encoder: Encoder, trials: Trials, grid: tuple[int, int]) -> None:
        self.encoder, self.trials, self.grid = encoder, trials, grid
        self.first = self._first_of_each_image()
        self.true = np.concatenate([p.drops for p in trials.pairs])  # (pairs x objects,)
        images = np.concatenate([np.full(len(p.drops), p.image) for p in trials.pairs])
        self._by_object = resamples(images)
        self._by_pair = resamples(np.array([p.image for p in self._pairs]))
        self.random: dict[tuple[str, int], Array] = {}
        self.best: dict[tuple[str, int], float] = {}  # mean area of the oracle less that of chance

    @property
    def _pairs(self) -> list[Pair]:
        return [self.trials.pairs[i] for i in self.first]

    def _first_of_each_image(self) -> list[int]:
        seen: dict[int, int] = {}
        for i, pair in enumerate(self.trials.pairs):
            seen.setdefault(pair.image, i)
        return list(seen.values())

    def prepare(self, fills: Iterable[str]) -> None:
        """Curves of chance and of the oracle, whose order is sought with the mean fill."""
        places, rng = self.grid[0] * self.grid[1], np.random.default_rng(2)
        orders = [np.stack([rng.permutation(places) for _ in self.first]) for _ in range(SHUFFLED)]
        some = self._pairs[:ORACLE]
        seeker = Masker(self.encoder, self.grid, "mean")
        found = {sign: greedy(seeker, self.trials, some, sign) for sign in (DOWN, UP)}
        for fill in fills:
            masker = Masker(self.encoder, self.grid, fill)
            chance = np.mean([self._areas(masker, o)[0] for o in orders], axis=0)  # (pairs,)
            for sign, order in found.items():
                self.random[fill, sign] = chance
                oracle = area(curve(masker, self.trials, some, order))
                self.best[fill, sign] = float((oracle - chance[: len(some)]).mean())

    def _areas(self, masker: Masker, order: Order) -> tuple[Array, Array]:
        curves = curve(masker, self.trials, self._pairs, order)
        return area(curves), curves.mean(axis=0)

    def measure(self, name: str, grids: Array, fills: Iterable[str]) -> Measured:
        """Grids (pairs, h, w) -> figures."""
        pairs, where = self.trials.pairs, Located()
        for pair, grid in zip(pairs, grids, strict=True):
            where.add(grid, self.trials.cover(pair, self.grid)[pair.target])
        mass = np.concatenate(
            [masses(self.trials, p, g) for p, g in zip(pairs, grids, strict=True)]
        )
        values = grids[self.first].reshape(len(self.first), -1)
        gains: dict[int, dict[str, float]] = {DOWN: {}, UP: {}}
        below, shapes = {}, {}
        for fill in fills:
            masker = Masker(self.encoder, self.grid, fill)
            for sign in (DOWN, UP):
                order = np.argsort(-sign * values, axis=1, kind="stable")
                areas, shape = self._areas(masker, order)
                gain = float((areas - self.random[fill, sign]).mean())
                gains[sign][fill] = gain / self.best[fill, sign]
                if sign == DOWN:
                    below[fill], shapes[fill] = areas, shape.tolist()
        figures = Figures(
            name=name,
            causal=interval(
                lambda rows: spearman(mass[rows], self.true[rows]),
                self._by_object,
                np.arange(len(mass)),
            ),
            pointing=float(np.mean(where.pointing)),
            precision=float(np.mean(where.precision)),
            auc=float(np.mean(where.auc)),
            energy=float(np.mean(where.energy)),
            deletion=gains[DOWN],
            insertion=gains[UP],
            curves=shapes,
        )
        return Measured(figures, mass, below)

    def gap(self, one: Measured, other: Measured) -> Gap:
        """By how much `one` is ahead; deletion as the mean over the fills."""
        better = np.mean(
            [(one.areas[f] - other.areas[f]) / self.best[f, DOWN] for f in one.areas], axis=0
        )  # (first pairs,)

        def causal(rows: Rows) -> float:
            mine = spearman(one.mass[rows], self.true[rows])
            return mine - spearman(other.mass[rows], self.true[rows])

        def deletion(rows: Rows) -> float:
            return float(better[rows].mean())

        return Gap(
            interval(causal, self._by_object, np.arange(len(self.true))),
            interval(deletion, self._by_pair, np.arange(len(better))),
        )


def measure_all(
    study: Study,
    methods: dict[str, Method],
    fills: Iterable[str],
    said: Callable[[Figures], None],
) -> dict[str, Measured]:
    """Every method's figures, one after the other."""
    found = {}
    for name, method in methods.items():
        grids = candidates.maps(study.encoder, method, study.trials)
        found[name] = study.measure(name, grids, fills)
        said(found[name].figures)
    return found


def grid_of(encoder: Encoder) -> tuple[int, int]:
    """Places of the encoder's maps."""
    from filter_service.explain.relevance import read_one

    side = encoder.input_size
    return read_one(encoder, torch.zeros(1, 3, side, side)).grid
