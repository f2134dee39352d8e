"""Metrics for relevance maps: deletion curves, localisation, rank correlation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from benchmarks.explaining.trials import Array, Pair, Trials
from filter_service.encoder import Encoder
from filter_service.scoring import FloatArray

STEPS = 8  # of a deletion curve, in equal parts of the places
CHUNK = 128
COVERED = 0.25  # of a place, from which it counts as the object's
Order = npt.NDArray[np.intp]  # (pairs, places), the first to go first


@dataclass
class Masker:
    """Encodes images with places masked, in one of three ways."""

    encoder: Encoder
    grid: tuple[int, int]
    fill: str  # "mean", "blur" or "drop"

    def __call__(self, pixels: Tensor, gone: Tensor) -> FloatArray:
        """(n, 3, h, w), (n, places) bool -> (n, d)."""
        if self.fill == "drop":
            return self._dropped(pixels, gone)
        mask = gone.float().reshape(-1, 1, *self.grid)  # (n, 1, gh, gw)
        mask = F.interpolate(mask, size=pixels.shape[2:], mode="nearest")  # (n, 1, h, w)
        if self.fill == "mean":
            other = pixels.mean(dim=(2, 3), keepdim=True)
        else:
            few = F.adaptive_avg_pool2d(pixels, 4)
            other = F.interpolate(few, size=pixels.shape[2:], mode="bicubic")
        masked = torch.lerp(pixels, other.expand_as(pixels), mask)
        return np.concatenate([self.encoder.encode(part) for part in masked.split(CHUNK)])

    @torch.inference_mode()
    def _dropped(self, pixels: Tensor, gone: Tensor) -> FloatArray:
        """The tower itself on the tokens that are left (open_clip ViT with a class token)."""
        tower: Any = self.encoder.model.visual
        rows = []
        for part, lost in zip(pixels.split(CHUNK), gone.split(CHUNK), strict=True):
            x = tower._embeds(part)  # (n, 1 + places, e)
            kept = torch.cat([torch.zeros(len(lost), 1, dtype=torch.bool), lost], dim=1)
            count = int((~kept[0]).sum())  # the same in every row of a step
            order = kept.to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
            x = x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))
            pooled, _ = tower._pool(tower.transformer(x))
            rows.append(F.normalize(pooled @ tower.proj, dim=-1).numpy())
        return np.concatenate(rows)


def margins(pairs: Sequence[Pair], z: FloatArray) -> Array:
    """(pairs,) margins of one image vector each."""
    return np.array([float(p.vectors.margins(v[None])[0]) for p, v in zip(pairs, z, strict=True)])


def curve(masker: Masker, trials: Trials, pairs: Sequence[Pair], order: Order) -> Array:
    """Margins after 0, 1, ... all steps of removal in this order: (pairs, STEPS + 1)."""
    places = order.shape[1]
    pixels = trials.pixels[[p.image for p in pairs]]  # (n, 3, h, w)
    columns = [np.array([p.margin for p in pairs])]
    for step in range(1, STEPS + 1):
        gone = torch.zeros(len(pairs), places, dtype=torch.bool)
        first = torch.from_numpy(order[:, : round(step * places / STEPS)].copy())
        gone.scatter_(1, first, True)
        columns.append(margins(pairs, masker(pixels, gone)))
    return np.stack(columns, axis=1)


def area(curves: Array) -> Array:
    """Mean margin along each curve, the ends counted half: (pairs,)."""
    return np.asarray(np.trapezoid(curves, axis=1) / (curves.shape[1] - 1))


def greedy(masker: Masker, trials: Trials, pairs: Sequence[Pair], sign: int) -> Order:
    """The oracle's order: at each step the places whose removal alone lowers (1) or keeps (-1)
    the margin most, given what is gone already; (pairs, places)."""
    h, w = masker.grid
    places, size = h * w, h * w // STEPS
    rows = []
    for p in pairs:
        pixels = trials.pixels[p.image][None]  # (1, 3, h, w)
        gone = torch.zeros(places, dtype=torch.bool)
        order: list[int] = []
        while len(order) < places:
            left = torch.nonzero(~gone)[:, 0]  # (m,)
            tried = gone.repeat(len(left), 1)
            tried[torch.arange(len(left)), left] = True
            z = masker(pixels.expand(len(left), -1, -1, -1), tried)
            m = p.vectors.margins(z)  # (m,)
            best = left[torch.from_numpy(np.argsort(sign * m, kind="stable")[:size].copy())]
            order += best.tolist()
            gone[best] = True
        rows.append(order)
    return np.array(rows)


@dataclass
class Located:
    """Localisation metrics of a map, one number per pair."""

    pointing: list[float] = field(default_factory=list)
    precision: list[float] = field(default_factory=list)  # average precision
    auc: list[float] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)

    def add(self, grid: Array, cover: Array) -> None:
        """A map (h, w) and the object's share of every place (h, w)."""
        inside, values = (cover >= COVERED).ravel(), grid.ravel()
        if not inside.any() or inside.all():
            return
        self.pointing.append(float(inside[values.argmax()]))
        ranks = rankdata(values)
        n, m = int(inside.sum()), int((~inside).sum())
        self.auc.append(float((ranks[inside].sum() - n * (n + 1) / 2) / (n * m)))
        hits = inside[np.argsort(-values, kind="stable")]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        self.precision.append(float(precision[hits].mean()))
        positive = values.clip(min=0)
        self.energy.append(float((positive * cover.ravel()).sum() / max(positive.sum(), 1e-9)))


def masses(trials: Trials, pair: Pair, grid: Array) -> Array:
    """Evidence on each object of the pair's scene: (objects,)."""
    cover = trials.cover(pair, (grid.shape[0], grid.shape[1]))  # (objects, h, w)
    return np.asarray((cover * grid).sum(axis=(1, 2)))


def spearman(x: Array, y: Array) -> float:
    """Rank correlation."""
    rx, ry = rankdata(x), rankdata(y)
    return float(np.corrcoef(rx, ry)[0, 1]) if rx.std() and ry.std() else 0.0
