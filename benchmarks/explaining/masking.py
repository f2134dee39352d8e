"""Margins of flagged images after masking by right, wrong and random relevance maps."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.explaining.trials import Array, encode, pixels_of
from filter_service.demo.samples import moderation_scenes
from filter_service.demo.scenes import Sizes
from filter_service.encoder import Encoder
from filter_service.explain.relevance import capture
from filter_service.policy import Policy
from filter_service.scoring import FloatArray, PolicyVectors
from filter_service.verdicts import threshold_margin

SHARES = (0.1, 0.2, 0.4)  # of the places that are taken away
RANDOM = 8  # orders without a pattern
CHUNK = 128
MAPS = ("right", "shuffled", "another picture's", "another class's", "centred blob")


@dataclass(frozen=True)
class Masked:
    """Margins of right flags after masking; classes in the policy's order."""

    served: Array  # (n, classes)
    blank: Array  # (n, classes): with every place filled
    own: Array  # (n,) index of the flagged class
    other: Array  # (n,) index of the next-highest class
    threshold: Array  # (n,) logits
    removed: Array  # (n, maps, 2, shares, classes): the first places of each map, and the last
    random: Array  # (n, RANDOM, shares, classes)
    moved: Array  # (n, maps, moved, shares, classes): each map somewhere else

    def keep(self, file: Path) -> None:
        np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def kept(cls, file: Path) -> "Masked":
        with np.load(file) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Flags:
    """Right flags of scenes, with the right map of each and those of other classes."""

    pixels: Tensor  # (n, 3, h, w)
    served: Array  # (n, classes)
    own: Array  # (n,)
    maps: FloatArray  # (n, classes, gh, gw)
    threshold: Array  # (n,)

    @property
    def other(self) -> Array:
        rest = self.served.copy()
        rest[np.arange(len(rest)), self.own] = -np.inf
        return np.asarray(rest.argmax(axis=1))


def flags(encoder: Encoder, policy: Policy, first_seed: int, count: int, sizes: Sizes) -> Flags:
    """The first `count` right flags of the scenes from a seed on."""
    vectors = encoder.vectors(policy)
    thresholds = np.array([threshold_margin(c) for c in policy.classes])
    names = [c.name for c in policy.classes]
    drawn = list(moderation_scenes(first_seed, 5 * count, sizes=sizes))
    pixels = pixels_of(encoder, [s.scene for s in drawn])
    margins = vectors.margins(encode(encoder, pixels))  # (scenes, classes)
    right = [
        (row, names.index(name))
        for row, sample in enumerate(drawn)
        for name in sample.classes
        if margins[row, names.index(name)] >= thresholds[names.index(name)]
    ][:count]
    rows, own = (np.array(column) for column in zip(*right, strict=True))
    return Flags(
        pixels[rows], margins[rows], own, _maps(encoder, vectors, pixels[rows]), thresholds[own]
    )


def _maps(encoder: Encoder, vectors: PolicyVectors, pixels: Tensor) -> FloatArray:
    """The map of every class: (n, classes, gh, gw)."""
    grids = []
    for part in pixels.split(CHUNK):
        seen = capture(encoder, part)
        u = np.stack([[c.direction(z) for c in vectors.classes] for z in seen.z])  # (b, classes, d)
        grids += [found.grid for found in seen.maps(range(len(part)), u)]
    return np.stack(grids)


def wrong_maps(found: Flags, rng: np.random.Generator) -> FloatArray:
    """Each flag's map and the wrong ones, as `MAPS` names them: (n, maps, gh, gw)."""
    rows = np.arange(len(found.own))
    right = found.maps[rows, found.own]  # (n, gh, gw)
    shuffled = rng.permuted(right.reshape(len(rows), -1), axis=1).reshape(right.shape)
    others = right[(rows + 1 + rng.integers(len(rows) - 1, size=len(rows))) % len(rows)]
    h, w = right.shape[1:]
    y, x = np.mgrid[:h, :w]
    blob = -np.hypot(y - (h - 1) / 2, x - (w - 1) / 2).astype(np.float32)
    blobs = np.broadcast_to(blob, right.shape)
    return np.stack([right, shuffled, others, found.maps[rows, found.other], blobs], axis=1)


def moved(grid: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A map somewhere else, its pattern kept: shifted round the edges, turned, mirrored."""
    h, w = grid.shape
    there = np.roll(grid, (rng.integers(h), rng.integers(w)), axis=(0, 1))
    there = np.rot90(there, 2 * int(rng.integers(2)) if h != w else int(rng.integers(4)))
    return there[:, ::-1] if rng.random() < 0.5 else there


def mask(encoder: Encoder, policy: Policy, found: Flags, seed: int, moves: int = 0) -> Masked:
    """Take places away, one flag after another; each map is tried elsewhere `moves` times, too."""
    rng = np.random.default_rng(seed)
    maps = wrong_maps(found, rng)  # (n, maps, gh, gw)
    answer = _answers(encoder, encoder.vectors(policy), maps.shape[2:])
    rows = [_one(answer, x, grids, moves, rng) for x, grids in zip(found.pixels, maps, strict=True)]
    blank, removed, random, displaced = (np.stack(column) for column in zip(*rows, strict=True))
    return Masked(
        found.served, blank, found.own, found.other, found.threshold, removed, random, displaced
    )


Order = npt.NDArray[np.intp]
Answers = Callable[[Tensor, list[Order]], Array]


def _answers(encoder: Encoder, vectors: PolicyVectors, grid: tuple[int, ...]) -> Answers:
    def answer(x: Tensor, gone: list[Order]) -> Array:
        """(3, h, w), places gone of each masked image -> (masked, classes) margins."""
        lost = torch.zeros(len(gone), grid[0] * grid[1])
        for row, places in enumerate(gone):
            lost[row, torch.from_numpy(places)] = 1
        cover = F.interpolate(lost.reshape(-1, 1, *grid), size=x.shape[1:], mode="nearest")
        mean = x.mean(dim=(1, 2), keepdim=True)
        images = torch.lerp(x[None], mean[None], cover)  # (masked, 3, h, w)
        z = np.concatenate([encoder.encode(part) for part in images.split(CHUNK)])
        return vectors.margins(z)

    return answer


def _one(
    answer: Answers, x: Tensor, grids: FloatArray, moves: int, rng: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    places = grids[0].size
    sizes = [max(1, round(share * places)) for share in SHARES]
    ways = [order for grid in grids for order in (_order(grid), _order(grid)[::-1].copy())]
    ways += [rng.permutation(places) for _ in range(RANDOM)]
    ways += [_order(moved(grid, rng)) for grid in grids for _ in range(moves)]
    gone = [np.arange(places), *(order[:k] for order in ways for k in sizes)]
    answers = answer(x, gone)  # (masked, classes)
    blank, rest = answers[0], answers[1:].reshape(len(ways), len(sizes), -1)
    ends = np.cumsum([2 * len(grids), RANDOM])
    removed, random, displaced = np.split(rest, ends)
    return (
        blank,
        removed.reshape(len(grids), 2, *removed.shape[1:]),
        random,
        displaced.reshape(len(grids), moves, *displaced.shape[1:]),
    )


def _order(grid: FloatArray) -> Order:
    """Places from the most to the least incriminating."""
    return np.argsort(-grid.ravel(), kind="stable")
