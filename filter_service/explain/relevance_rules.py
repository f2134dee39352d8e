"""Rules that turn one forward pass's activations into relevance maps of all classes.

Each takes a tower's reading and the directions pulled back to its pooled token, and gives every
token a number in logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from filter_service.explain.activations import Reading
from filter_service.explain.attention import Site

Weighting = Callable[[Site], Tensor]  # -> (n, h, j): how much each token counts for each head


@dataclass(frozen=True, slots=True)
class Shares:
    """A score shared out among the tokens."""

    tokens: Tensor  # (n, c, j) logits
    error: Tensor | None = None  # (n, c) logits: what the model wrote and the rule did not find


class RelevanceRule(Protocol):
    """One way to share a score among the tokens."""

    @property
    def name(self) -> str:
        """Written beside every map."""

    def shares(self, reading: Reading, g: Tensor, u: Tensor) -> Shares:
        """From gradients g (n, c, e) at the pooled token, for directions u (n, c, d)."""


def looked_at(site: Site) -> Tensor:
    """The attention itself: gradient times attention, which adds up."""
    return site.row()


def evenly(site: Site) -> Tensor:
    """No weights: the gradient with respect to the attention."""
    return torch.ones_like(site.row())


def alike(site: Site) -> Tensor:
    """Query and key by cosine, stretched to 0 to 1 within each head."""
    cosine = site.likeness()  # (n, h, j)
    low, high = cosine.amin(-1, keepdim=True), cosine.amax(-1, keepdim=True)
    return (cosine - low) / (high - low).clamp(min=1e-12)


@dataclass(frozen=True)
class Kernel:
    """What the pooled token reads from every token in the last layers, weighted.

    Over all layers and weighted by the attention, the exact decomposition of Gandelsman et al.,
    "Interpreting CLIP's Image Representation via Text-Based Decomposition"; over the last layer
    alone, gradient times attention, or with `alike` the multi-head form of Grad-ECLIP (Zhao et al.,
    "Gradient-based Visual Explanation for Transformer-based CLIP").
    """

    name: str
    last: int | None = None  # layers; all of them unless told
    weighting: Weighting = looked_at
    against: float = 1.0  # how much of a head's evidence against the class counts

    def shares(self, reading: Reading, g: Tensor, u: Tensor) -> Shares:
        sites = reading.sites if self.last is None else reading.sites[-self.last :]
        tokens, error = g.new_zeros((), dtype=torch.float64), g.new_zeros((), dtype=torch.float64)
        for site in sites:
            evidence = site.worth(g) * self.weighting(site)[:, None]  # (n, c, h, j)
            total = evidence.sum(dim=(2, 3), dtype=torch.float64)  # (n, c)
            error = error + site.total(g).double() - site.bias(g).double() - total
            evidence = evidence.clamp(min=0) + self.against * evidence.clamp(max=0)
            tokens = tokens + evidence.sum(dim=2, dtype=torch.float64)  # (n, c, j)
        return Shares(tokens, error if self.weighting is looked_at else None)


@dataclass(frozen=True)
class ValueProjection:
    """What each token of the last layer would answer if the pooled token saw it alone.

    After MaskCLIP (Zhou et al., "Extract Free Dense Labels from CLIP"): values without queries and
    keys, through the tower's own tail; shared out evenly, so that the map is their mean.
    """

    name: str = "value projection"

    def shares(self, reading: Reading, g: Tensor, u: Tensor) -> Shares:
        values = reading.sites[-1].written_by()  # (n, j, e)
        with torch.no_grad():
            dense = F.normalize(reading.tail(values.flatten(0, 1)), dim=-1)  # (n * j, d)
        dense = dense.unflatten(0, values.shape[:2])  # (n, j, d)
        return Shares(torch.einsum("ncd,njd->ncj", u, dense).double() / values.shape[1])


EXACT: RelevanceRule = Kernel("exact decomposition")
"""Linear in the direction, unlike the default, so that the maps of a prompt's words add up."""

DEFAULT: RelevanceRule = Kernel("evidence against at a fifth", against=0.2)
"""What the service computes for every flag; `docs/explanations-benchmark.md` says why."""
