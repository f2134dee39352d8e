"""Perturbation-based maps from masked images: RISE, Kernel SHAP and LIME.

One set of masked embeddings, drawn once per image, serves every class and every regression on it.
For the audit, since it costs hundreds of forward passes.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from filter_service.scoring import FloatArray

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

COUNT = 1024  # masked images
CHUNK = 64  # in one forward pass
SEED = 0
HELD_OUT = 0.25  # of the masked images, on which a fit is tried
PAIRED = 16  # places among whose pairs interactions are sought
RIDGE = 1.0  # of the regressions, in units of one masked image
WIDTH = 0.25  # of LIME's kernel, in shares of the places

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MaskedAnswers:
    """What the model made of one image with some of its places filled with its mean colour."""

    present: npt.NDArray[np.bool_]  # (m, places)
    z: FloatArray  # (m, d) unit
    full: FloatArray  # (d,) of the whole image
    empty: FloatArray  # (d,) of the filled one

    @classmethod
    def of(
        cls, encoder: "Encoder", pixels: Tensor, grid: tuple[int, int], count: int = COUNT
    ) -> "MaskedAnswers":
        """Of one image (3, h, w); masks come in pairs, one the other's complement."""
        places = grid[0] * grid[1]
        present = _coalitions(places, count)
        ends = np.stack([np.ones(places, dtype=bool), np.zeros(places, dtype=bool)])
        z = encode_masked(encoder, pixels, np.concatenate([ends, present]), grid)
        return cls(present, z[2:], z[0], z[1])

    def scores(self, u: FloatArray) -> tuple[Array, float, float]:
        """Of one direction (d,): masked (m,), whole, empty."""
        v = u.astype(np.float64)
        return self.z @ v, float(self.full @ v), float(self.empty @ v)


@dataclass(frozen=True)
class Fit:
    """A linear account of masked scores, and how well it tells those that it never saw."""

    weights: Array  # (places,) logits
    r_squared: float  # on held-out masks
    with_pairs: float  # on held-out masks, with interactions of the strongest places
    pairs: tuple[tuple[int, int, float], ...]  # the strongest interactions, in logits


def rise(answers: MaskedAnswers, u: FloatArray) -> Array:
    """Mean score with a place less the mean without it, after RISE (Petsiuk et al. 2018)."""
    y, _, _ = answers.scores(u)
    there = answers.present.astype(np.float64)  # (m, places)
    with_it = there.T @ y / np.maximum(there.sum(axis=0), 1)
    without = (1 - there).T @ y / np.maximum((1 - there).sum(axis=0), 1)
    return np.asarray(with_it - without)


def kernel_shap(answers: MaskedAnswers, u: FloatArray) -> Array:
    """Shapley values by regression (Lundberg and Lee 2017); they add up to full less empty.

    Coalitions were drawn by their Shapley weight, so that all count alike here; the sum is kept by
    solving for all places but the last.
    """
    y, full, empty = answers.scores(u)
    there = answers.present.astype(np.float64)  # (m, places)
    x = there[:, :-1] - there[:, -1:]
    target = y - empty - there[:, -1] * (full - empty)
    most = _ridge(x, target, np.ones(len(x)))
    return np.append(most, full - empty - most.sum())


def lime(answers: MaskedAnswers, u: FloatArray) -> Array:
    """A local linear fit, nearer masks counting more, after LIME (Ribeiro et al. 2016)."""
    y, full, _ = answers.scores(u)
    gone = 1 - answers.present.astype(np.float64)  # (m, places)
    weight = np.exp(-((gone.mean(axis=1) / WIDTH) ** 2))  # (m,)
    return -_ridge(gone, y - full, weight)


def fitted(answers: MaskedAnswers, u: FloatArray) -> Fit:
    """First-order effects and the pairs of the strongest places, tried on held-out masks."""
    y, _, _ = answers.scores(u)
    there = answers.present.astype(np.float64) - 0.5  # (m, places)
    held = np.arange(len(y)) % round(1 / HELD_OUT) == 0
    weights = _linear(there[~held], y[~held])  # (1 + places,)
    strongest = np.argsort(-np.abs(weights[1:]), kind="stable")[:PAIRED]
    a, b = (strongest[i] for i in np.triu_indices(len(strongest), 1))
    both = np.concatenate([there, there[:, a] * there[:, b]], axis=1)  # (m, places + pairs)
    joint = _linear(both[~held], y[~held])
    effects = joint[1 + there.shape[1] :]  # (pairs,)
    order = np.argsort(-np.abs(effects), kind="stable")[:10]
    return Fit(
        weights=weights[1:],
        r_squared=_r_squared(y[held], there[held], weights),
        with_pairs=_r_squared(y[held], both[held], joint),
        pairs=tuple((int(a[i]), int(b[i]), float(effects[i])) for i in order),
    )


def _coalitions(places: int, count: int) -> npt.NDArray[np.bool_]:
    """Sizes by the Shapley kernel, members at random; every second the complement: (m, places)."""
    rng = np.random.default_rng(SEED)
    sizes = np.arange(1, places)
    weight = 1 / (sizes * (places - sizes))
    drawn = rng.choice(sizes, count // 2, p=weight / weight.sum())
    ranks = rng.random((len(drawn), places)).argsort(axis=1)
    first = ranks < drawn[:, None]
    return np.stack([first, ~first], axis=1).reshape(-1, places)


def encode_masked(
    encoder: "Encoder", pixels: Tensor, present: npt.NDArray[np.bool_], grid: tuple[int, int]
) -> FloatArray:
    """(3, h, w), (m, places) -> (m, d)."""
    fill = pixels.mean(dim=(1, 2), keepdim=True)  # (3, 1, 1)
    gone = torch.from_numpy(~present).float().reshape(-1, 1, *grid)  # (m, 1, gh, gw)
    rows = []
    for part in gone.split(CHUNK):
        mask = F.interpolate(part, size=pixels.shape[1:], mode="nearest")  # (m, 1, h, w)
        rows.append(encoder.encode(torch.lerp(pixels, fill, mask)))
    return np.concatenate(rows)


def _ridge(x: Array, y: Array, weight: Array) -> Array:
    """Weighted least squares with a small penalty: (m, k), (m,), (m,) -> (k,)."""
    scaled = x * weight[:, None]
    return np.asarray(np.linalg.solve(x.T @ scaled + RIDGE * np.eye(x.shape[1]), scaled.T @ y))


def _linear(x: Array, y: Array) -> Array:
    """With an intercept, which is not penalised: (m, k), (m,) -> (1 + k,)."""
    centre, middle = x.mean(axis=0), float(y.mean())
    weights = _ridge(x - centre, y - middle, np.ones(len(y)))
    return np.append(middle - centre @ weights, weights)


def _r_squared(y: Array, x: Array, weights: Array) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    error = float(((y - weights[0] - x @ weights[1:]) ** 2).sum())
    return 1 - error / spread if spread > 0 else math.nan
