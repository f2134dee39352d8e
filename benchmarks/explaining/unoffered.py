"""Relevance-map methods that are measured and not offered: occlusion, Grad-CAM, raw attention.

They beat neither a map of the centre nor one of the edges (docs/explanations-benchmark.md).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from filter_service.encoder import Encoder
from filter_service.errors import NotExplainable
from filter_service.explain.activations import ActivationTape, Keep, Reading
from filter_service.explain.relevance import RelevanceMap, checked_scores, read_one
from filter_service.explain.relevance_rules import Shares
from filter_service.explain.study.gradients import encode_with_graph
from filter_service.explain.study.methods import (
    METHODS,
    ByGradient,
    Method,
    OnePass,
    remainder_maps,
)
from filter_service.explain.study.perturbation import Array, encode_masked
from filter_service.scoring import FloatArray


@dataclass(frozen=True)
class RawAttention:
    """Where the pooled token looks in the last layer, whatever the class: a baseline."""

    name: str = "raw attention"

    def shares(self, reading: Reading, g: Tensor, u: Tensor) -> Shares:
        row = reading.sites[-1].row().mean(dim=1)  # (n, j)
        return Shares(row[:, None].expand(-1, g.shape[1], -1).double())


def grad_cam(encoder: Encoder, pixels: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM (Selvaraju et al. 2017) at the last spatial features, signed.

    Per token, (n, c, j), and the embeddings (n, d). By hand: captum's takes the second dimension
    for channels, which holds for convolutions only.
    """
    layer, keep = _last_features(encoder.model.visual)
    with torch.enable_grad(), ActivationTape({layer: keep}, graph=True) as tape:
        z = encode_with_graph(encoder, pixels.clone().requires_grad_())  # (n, d)
        features = tape.activations()[layer]  # (n, j, e), or (n, e, h, w)
        gradients = [
            torch.autograd.grad((z * u).sum(), features, retain_graph=True)[0]
            for u in directions.unbind(dim=1)
        ]
    tokens = _as_tokens(features.detach())  # (n, j, e)
    columns = [torch.einsum("nje,ne->nj", tokens, _as_tokens(g).mean(dim=1)) for g in gradients]
    return torch.stack(columns, dim=1), z.detach()


def _as_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x  # (n, j, e)


def _last_features(tower: Any) -> tuple[nn.Module, Keep]:  # noqa: ANN401  (towers carry no types)
    """The last features that still have places: a module, and which of its tensors they are."""
    if hasattr(tower, "layer4"):  # ResNet: the feature map
        return tower.layer4, lambda _, out: out
    if hasattr(tower, "transformer"):  # open_clip's transformer: what enters the last block
        return tower.transformer.resblocks[-1], lambda given, _: given[0]
    blocks = getattr(getattr(tower, "trunk", None), "blocks", None)
    if blocks is None:
        raise NotExplainable(
            f"{type(tower).__name__} has no last block that Grad-CAM could look into."
        )
    return blocks[-1], lambda given, _: given[0]


@dataclass(frozen=True)
class Occlusion:
    """From filling one place after another."""

    name: str = "occlusion"

    def __call__(
        self, encoder: Encoder, pixels: Tensor, directions: FloatArray
    ) -> list[RelevanceMap]:
        shape = read_one(encoder, pixels)
        rows = [
            occlusion(encoder, x, shape.grid, us) for x, us in zip(pixels, directions, strict=True)
        ]
        z = encoder.encode(pixels)
        scores = checked_scores(self.name, encoder, pixels, directions, z)
        grids = np.reshape(rows, (*directions.shape[:2], *shape.grid))
        return remainder_maps(self.name, grids, scores)


def occlusion(encoder: Encoder, pixels: Tensor, grid: tuple[int, int], u: FloatArray) -> Array:
    """Score lost when one place alone is filled (Zeiler and Fergus 2014): (c, d) -> (c, places)."""
    places = grid[0] * grid[1]
    present = np.concatenate([np.ones((1, places), dtype=bool), ~np.eye(places, dtype=bool)])
    scores = encode_masked(encoder, pixels, present, grid) @ u.astype(np.float64).T
    return np.asarray(scores[0] - scores[1:]).T  # scores: (1 + places, c)


UNOFFERED: dict[str, Method] = {
    "raw-attention": OnePass(RawAttention()),
    "grad-cam": ByGradient("Grad-CAM", grad_cam),
    "occlusion": Occlusion(),
}
EVERY: dict[str, Method] = {**METHODS, **UNOFFERED}
"""What is measured, the default first."""
