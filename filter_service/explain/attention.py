"""One attention as its pooled token sees it: who it looks at, and what each place writes into it.

Nothing here forms keys or values of all tokens. The pooled token's query is pulled back through
the key weights, and the directions through output and value weights, to the width of the tokens:
one row of attention then costs a few matrix-vector products, whatever kernel the model itself uses.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of one multi-head attention, split by head."""

    query: Tensor  # (h, k, q)
    query_bias: Tensor  # (h, k)
    key: Tensor  # (h, k, d); its bias is the same for every token and falls out of the softmax
    value: Tensor  # (h, k, d)
    value_bias: Tensor  # (h, k)
    out: Tensor  # (e, h, k)
    out_bias: Tensor  # (e,)

    @classmethod
    def split(
        cls, qkv: tuple[Tensor, Tensor, Tensor], biases: Tensor | None, out: nn.Linear, heads: int
    ) -> "Weights":
        """From projections (h * k, in) and their concatenated biases (3 * h * k,)."""
        query, key, value = (w.detach().unflatten(0, (heads, -1)) for w in qkv)
        biases = query.new_zeros(3 * query[..., 0].numel()) if biases is None else biases.detach()
        query_bias, _, value_bias = biases.reshape(3, heads, -1)
        bias = out.weight.new_zeros(len(out.weight)) if out.bias is None else out.bias
        split_out = out.weight.detach().unflatten(1, (heads, -1))
        return cls(query, query_bias, key, value, value_bias, split_out, bias.detach())

    @classmethod
    def of(cls, attention: nn.MultiheadAttention) -> "Weights":
        """Of torch's own module, with one projection matrix or with three."""
        whole = attention.in_proj_weight
        if whole is not None:
            q, k, v = whole.chunk(3)
        else:
            q, k, v = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
        heads = attention.num_heads
        return cls.split((q, k, v), attention.in_proj_bias, attention.out_proj, heads)


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """A place in the network where the pooled token reads from all tokens, during one forward."""

    weights: Weights
    query: Tensor  # (n, q): what the pooled token's query is made of
    tokens: Tensor  # (n, j, d): what keys and values are made of
    written: Tensor  # (n, e): the attention's own output at the pooled token
    gain: Tensor | float = 1.0  # (e,): LayerScale, between the attention and the stream

    def take(self, rows: list[int]) -> "AttentionSite":
        return AttentionSite(
            self.weights, self.query[rows], self.tokens[rows], self.written[rows], self.gain
        )

    def row(self) -> Tensor:
        """Attention of the pooled token to every token: (n, h, j)."""
        w = self.weights
        q = torch.einsum("nq,hkq->nhk", self.query, w.query) + w.query_bias  # (n, h, k)
        pulled = torch.einsum("nhk,hkd->nhd", q * q.shape[-1] ** -0.5, w.key)  # (n, h, d)
        return torch.einsum("nhd,njd->nhj", pulled, self.tokens).softmax(dim=-1)  # (n, h, j)

    def shares(self, g: Tensor) -> Tensor:
        """What each token writes along directions g of the stream: (n, c, e) -> (n, c, j)."""
        w = self.weights
        by_head = torch.einsum("nce,ehk->nchk", g * self.gain, w.out)  # (n, c, h, k)
        pulled = torch.einsum("nchk,hkd->nchd", by_head, w.value)  # (n, c, h, d)
        worth = torch.einsum("nchd,njd->nchj", pulled, self.tokens)  # (n, c, h, j)
        return torch.einsum("nchj,nhj->ncj", worth, self.row())  # (n, c, j)

    def bias(self, g: Tensor) -> Tensor:
        """What the biases write, whatever the image: (n, c, e) -> (n, c)."""
        w = self.weights
        constant = torch.einsum("ehk,hk->e", w.out, w.value_bias) + w.out_bias  # (e,)
        return (g * self.gain) @ constant  # (n, c)

    def total(self, g: Tensor) -> Tensor:
        """What the model's own attention wrote along g, for comparison: (n, c, e) -> (n, c)."""
        return torch.einsum("nce,ne->nc", g, self.written * self.gain)


@dataclass(frozen=True, slots=True)
class MeanSite:
    """Average pooling: every token writes an equal part of itself."""

    tokens: Tensor  # (n, j, e)
    written: Tensor  # (n, e): the model's own mean

    def take(self, rows: list[int]) -> "MeanSite":
        return MeanSite(self.tokens[rows], self.written[rows])

    def shares(self, g: Tensor) -> Tensor:
        return torch.einsum("nce,nje->ncj", g, self.tokens) / self.tokens.shape[1]  # (n, c, j)

    def bias(self, g: Tensor) -> Tensor:
        return g.new_zeros(g.shape[:2])  # (n, c)

    def total(self, g: Tensor) -> Tensor:
        return torch.einsum("nce,ne->nc", g, self.written)  # (n, c)


Site = AttentionSite | MeanSite
Tail = Callable[[Tensor], Tensor]


def frozen_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm with its standard deviation held constant, hence affine in x: (m, e) -> (m, e)."""
    deviation = (x.detach().var(dim=-1, keepdim=True, correction=0) + norm.eps).sqrt()  # (m, 1)
    return (x - x.mean(dim=-1, keepdim=True)) / deviation * norm.weight + norm.bias


def pull_back(tail: Tail, pooled: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and their gradients at the pooled token, the embedding's length held constant.

    `tail` maps (m, e) stream vectors to (m, d) embeddings before normalisation. (n, e) and
    (n, c, d) -> scores (n, c), gradients (n, c, e). Back-propagation runs through one token only.
    """
    n, c, d = directions.shape
    with torch.enable_grad():
        x = pooled.repeat_interleave(c, dim=0).clone().requires_grad_()  # (n * c, e)
        raw = tail(x)  # (n * c, d)
        unit = raw / raw.detach().norm(dim=-1, keepdim=True)
        scores = (unit * directions.reshape(n * c, d)).sum(dim=-1)  # (n * c,)
        (gradient,) = torch.autograd.grad(scores.sum(), x)
    return scores.detach().reshape(n, c), gradient.reshape(n, c, -1)
