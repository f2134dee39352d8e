"""Evaluates the faithfulness test on right and wrong maps, for docs/faithfulness.md.

    python -m benchmarks.explaining.fine_tuning --name scale-10 --out build/scale-10
    python -m benchmarks.explaining.fine_tuning --name large --out build/large
    python -m benchmarks.faithfulness collect --split dev
    python -m benchmarks.faithfulness collect --split test
    python -m benchmarks.faithfulness table --split dev

Rules are chosen on the development split; the test splits are for the rule that was chosen.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.explaining.masking import MAPS, RANDOM, SHARES, Masked, flags, mask
from benchmarks.explaining.trials import Array
from filter_service.demo import POLICY
from filter_service.demo.scenes import DEV_SEEDS, LARGE, SIZES, TEST_SEEDS
from filter_service.encoder import load_encoder
from filter_service.policy import read_policy
from filter_service.verdicts.faithfulness import FAITHFUL, FLOOR, SPECIFIC, WEIGHTS

Accepted = npt.NDArray[np.bool_]  # (n, maps)

BUILD = Path("build")
MODELS = ("bundled", "scale-10", "large")
FIRST = {
    "dev": DEV_SEEDS + 70_000_000,
    "test": TEST_SEEDS + 110_000_000,
    "later": TEST_SEEDS + 130_000_000,  # since the bundled texts know an empty ground
}
SEED = 5  # of the random orders and the shuffled maps
TRIED_ORDERS, TRIED_FLOORS = (3, 4, 6, 8), (0.0, 0.02, 0.05, 0.07, 0.1, 0.2)
TRIED_WEIGHTS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (2, 1, 0), (0, 1, 1), (1, 1, 1))


def collect(name: str, split: str, count: int) -> Masked:
    """Margins of one model's right flags with places gone."""
    folder = BUILD / name
    model = "bundled" if name == "bundled" else f"local-dir:{folder}"
    policy = read_policy(POLICY if name == "bundled" else folder / "policy.yaml")
    encoder = load_encoder(model, device="cpu")
    sizes = LARGE if name == "large" else SIZES
    return mask(encoder, policy, flags(encoder, policy, FIRST[split], count, sizes), SEED)


@dataclass(frozen=True)
class Statistic:
    """A test statistic: a map's excess drop, in deviations of the drops of random masks."""

    weights: tuple[float, ...]  # of the shares, relative
    orders: int  # random ones
    floor: float  # least spread, as a share of the margin
    least: float = 0.0  # how much of what is subtracted is the map's weakest places' drop

    def __str__(self) -> str:
        weighed = ", ".join(
            f"{share:g}" if len(set(filter(None, self.weights))) == 1 else f"{weight} x {share:g}"
            for weight, share in zip(self.weights, SHARES, strict=True)
            if weight
        )
        return f"{weighed}; {self.orders}; {self.floor:g}; {'half' if self.least else 'none'}"

    @property
    def passes(self) -> int:
        """Forward passes of a flag."""
        return sum(w > 0 for w in self.weights) * (1 + self.orders + bool(self.least)) + 1


CHOSEN = Statistic((*WEIGHTS, 0), RANDOM, FLOOR, least=0.5)


class Drops:
    """The margins lost by masking, of the flagged class and of the next one."""

    def __init__(self, masked: Masked) -> None:
        self.own, self.next = _Of(masked, masked.own), _Of(masked, masked.other)

    def deviation(self, by: Statistic) -> Array:
        """Of what the flagged class lost: (n, maps)."""
        return _deviation(by, self.own.lost(by), self.own.served)

    def excess(self, by: Statistic) -> Array:
        """The same of what this class lost beyond the next one: (n, maps)."""
        pairs = zip(self.own.lost(by), self.next.lost(by), strict=True)
        return _deviation(by, [own - other for own, other in pairs], self.own.served)

    def over_best(self, by: Statistic) -> Array:
        """Drop over that of the best random order, as a share of the margin: (n, maps)."""
        marked, _, random = self.own.lost(by)
        best = random.max(axis=1)
        return np.asarray((marked - best[:, None]) / self.own.served[:, None])


class _Of:
    """Of one class."""

    def __init__(self, masked: Masked, index: Array) -> None:
        rows = np.arange(len(index))
        served = masked.served[rows, index]  # (n,)
        self.served = np.abs(served)
        self._removed = served[:, None, None, None] - _pick(masked.removed, index)
        self._random = served[:, None, None] - _pick(masked.random, index)

    def lost(self, by: Statistic) -> tuple[Array, Array, Array]:
        """Without the marked places, the weakest: (n, maps) each; at random: (n, orders)."""
        weights = np.asarray(by.weights) / sum(by.weights)  # (shares,)
        marked, least = (self._removed @ weights).transpose(2, 0, 1)
        return marked, least, self._random[:, : by.orders] @ weights


def _pick(margins: Array, index: Array) -> Array:
    """Of margins whose last axis is classes, one class for each row."""
    where = index.reshape(-1, *(1,) * (margins.ndim - 1))
    return np.take_along_axis(margins, where.astype(np.intp), axis=-1)[..., 0]


def _deviation(by: Statistic, lost: Sequence[Array], served: Array) -> Array:
    marked, least, random = lost
    spread = np.sqrt(random.var(axis=1, ddof=1) + (by.floor * served) ** 2)  # (n,)
    others = by.least * least + (1 - by.least) * random.mean(axis=1)[:, None]  # (n, maps)
    return np.asarray((marked - others) / spread[:, None])


def chosen(drops: Drops) -> tuple[Accepted, Accepted]:
    """By the service's own rule: which maps are called faithful, and specific: (n, maps)."""
    faithful = drops.deviation(CHOSEN) > FAITHFUL
    return faithful, faithful & (drops.excess(CHOSEN) > SPECIFIC)


def tried(models: dict[str, Drops]) -> Iterator[str]:
    """Every statistic, at the limit that catches 96 % of shuffled and 86 % of others' maps."""
    heading = "shares; random orders; floor; weakest places"
    yield f"| {heading} | forward passes | limit | {' | '.join(models)} |"
    yield "|---|---|---|" + "---|" * len(models)
    for weights, orders in product(TRIED_WEIGHTS, TRIED_ORDERS):
        for least, floor in product((0.0, 0.5), TRIED_FLOORS):
            by = Statistic(weights, orders, floor, least)
            found = {m: d.deviation(by) for m, d in models.items()}
            yield _row(str(by), by.passes, found)
        by = Statistic(weights, orders, 0)
        found = {m: d.over_best(by) for m, d in models.items()}
        yield _row(str(by).replace("; 0; none", ", over the best"), by.passes, found)


def _row(name: str, passes: int, found: dict[str, Array]) -> str:
    shuffled, others = MAPS.index("shuffled"), MAPS.index("another picture's")
    limit = max(
        max(np.quantile(v[:, shuffled], 0.96), np.quantile(v[:, others], 0.86))
        for v in found.values()
    )
    shares = (
        " / ".join(f"{x:.0f}" for x in 100 * (v > limit).mean(axis=0)) for v in found.values()
    )
    return f"| {name} | {passes} | {limit:.2f} | " + " | ".join(shares) + " |"


def outcome(models: dict[str, Drops]) -> Iterator[str]:
    """The chosen rule: shares of each kind of map called faithful, and faithful and specific."""
    yield "| model | flags | map | faithful | faithful and specific |"
    yield "|---|---|---|---|---|"
    for name, drops in models.items():
        faithful, specific = chosen(drops)
        for i, kind in enumerate(MAPS):
            shares = f"{faithful[:, i].mean():.1%} | {specific[:, i].mean():.1%}"
            yield f"| {name} | {len(faithful)} | {kind} | {shares} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("collect", "table"))
    parser.add_argument("--split", choices=FIRST, default="dev")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--flags", type=int, default=100)
    options = parser.parse_args()
    files = {m: BUILD / f"faithfulness-{m}-{options.split}.npz" for m in options.models}
    if options.step == "collect":
        BUILD.mkdir(exist_ok=True)
        for name, file in files.items():
            collect(name, options.split, options.flags).keep(file)
            print(f"written: {file}", flush=True)
        return
    models = {name: Drops(Masked.kept(file)) for name, file in files.items()}
    print("\n".join([*outcome(models), "", *(tried(models) if options.split == "dev" else ())]))


if __name__ == "__main__":
    main()
