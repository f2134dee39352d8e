"""All relevance-map methods by name, behind one interface.

The default is the service's; the others are for the audit, and to be measured against. What a
method cannot do on a tower, it refuses with a sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filter_service.explain.relevance import RelevanceMap, capture, checked_scores, read_one
from filter_service.explain.relevance_rules import (
    DEFAULT,
    Kernel,
    RelevanceRule,
    ValueProjection,
    alike,
    evenly,
)
from filter_service.explain.study import gradients, perturbation
from filter_service.explain.study.gradients import BASELINES
from filter_service.explain.study.perturbation import MaskedAnswers
from filter_service.scoring import FloatArray

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

_OfTokens = Callable[["Encoder", Tensor, Tensor], tuple[Tensor, Tensor]]
_OfAnswers = Callable[[MaskedAnswers, FloatArray], perturbation.Array]


class Method(Protocol):
    """One way to make maps."""

    def __call__(
        self, encoder: "Encoder", pixels: Tensor, directions: FloatArray
    ) -> list[RelevanceMap]:
        """Pixels (n, 3, h, w) and directions (n, c, d) -> one map per image.

        Raises NotExplainable where the method does not know the tower.
        """


@dataclass(frozen=True)
class OnePass:
    """From what the served forward pass showed, and nothing else."""

    rule: RelevanceRule

    def __call__(
        self, encoder: "Encoder", pixels: Tensor, directions: FloatArray
    ) -> list[RelevanceMap]:
        return capture(encoder, pixels).maps(range(len(pixels)), directions, self.rule)


@dataclass(frozen=True)
class ByGradient:
    """From values per token, or per pixel, that gradients gave."""

    name: str
    values: _OfTokens

    def __call__(
        self, encoder: "Encoder", pixels: Tensor, directions: FloatArray
    ) -> list[RelevanceMap]:
        shape = read_one(encoder, pixels)
        x = pixels.to(encoder.device)
        values, z = self.values(encoder, x, torch.from_numpy(directions).to(x))
        if values.ndim == 4:  # (n, c, h, w) pixels
            area = values.shape[2] * values.shape[3] / (shape.grid[0] * shape.grid[1])
            grids = area * F.adaptive_avg_pool2d(values, shape.grid)  # (n, c, gh, gw)
        else:
            places = values[..., values.shape[-1] - shape.grid[0] * shape.grid[1] :]
            grids = places.unflatten(-1, shape.grid)
        scores = checked_scores(self.name, encoder, pixels, directions, z.cpu().numpy())
        return remainder_maps(self.name, grids.cpu().numpy(), scores)


@dataclass(frozen=True)
class ByMasking:
    """From a regression on what the model made of masked images."""

    name: str
    values: _OfAnswers
    count: int = perturbation.COUNT

    def __call__(
        self, encoder: "Encoder", pixels: Tensor, directions: FloatArray
    ) -> list[RelevanceMap]:
        shape = read_one(encoder, pixels)
        answers = [self.answers(encoder, x, shape.grid) for x in pixels]
        rows = [[self.values(a, u) for u in us] for a, us in zip(answers, directions, strict=True)]
        z = np.stack([a.full for a in answers])  # (n, d)
        scores = checked_scores(self.name, encoder, pixels, directions, z)
        return remainder_maps(
            self.name, np.reshape(rows, (*directions.shape[:2], *shape.grid)), scores
        )

    def answers(self, encoder: "Encoder", x: Tensor, grid: tuple[int, int]) -> MaskedAnswers:
        """One image's, (3, h, w)."""
        return MaskedAnswers.of(encoder, x, grid, self.count)


METHODS: dict[str, Method] = {
    "decomposition": OnePass(DEFAULT),
    "exact-decomposition": OnePass(Kernel("exact decomposition")),
    "last-four": OnePass(Kernel("decomposition of the last four layers", last=4)),
    "gradient-attention": OnePass(Kernel("gradient times attention, last layer", last=1)),
    "attention-gradient": OnePass(Kernel("gradient by attention, last layer", 1, evenly)),
    "grad-eclip": OnePass(Kernel("query-key kernel, last layer", 1, alike)),
    "maskclip": OnePass(ValueProjection()),
    "chefer": ByGradient("gradient times attention, all layers", gradients.rolled_out),
    "legrad": ByGradient("attention gradients layer by layer", gradients.layer_by_layer),
    **{
        f"ig-{name.replace(' ', '-')}": ByGradient(
            f"integrated gradients from {name}", partial(gradients.integrated, baseline=baseline)
        )
        for name, baseline in BASELINES.items()
    },
    "rise": ByMasking("RISE", perturbation.rise),
    "kernel-shap": ByMasking("kernel SHAP", perturbation.kernel_shap),
    "lime": ByMasking("LIME", perturbation.lime),
}
"""What a person may ask for, the default first: those that beat a map of the centre and one of the
edges, in causal agreement and in deletion (docs/explanations-benchmark.md)."""


def remainder_maps(name: str, grids: np.ndarray, scores: np.ndarray) -> list[RelevanceMap]:
    """(n, c, h, w) and (n, c): what the grid leaves of the score is the remainder."""
    return [
        RelevanceMap(
            grid=grid.astype(np.float32),
            remainder=(score - grid.sum(axis=(1, 2), dtype=np.float64)).astype(np.float32),
            explained=score.astype(np.float32),
            high_norm=0,
            method=name,
        )
        for grid, score in zip(grids, scores, strict=True)
    ]
