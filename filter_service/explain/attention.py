"""The pooled token's attention: its weights, and what each token writes into it.

The pooled token's query is pulled back through the key weights, and the directions through output
and value weights, to the width of the tokens: one row of attention then costs a few matrix-vector
products, whatever kernel the model itself uses. Keys are formed only where something nonlinear
happens to them, a norm or a rotation by place.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of one multi-head attention, split by head."""

    query: Tensor  # (h, k, q)
    query_bias: Tensor  # (h, k)
    key: Tensor  # (h, k, d)
    key_bias: Tensor  # (h, k); the same for every token, so it falls out of the softmax
    value: Tensor  # (h, k, d)
    value_bias: Tensor  # (h, k)
    out: Tensor  # (e, h, k)
    out_bias: Tensor  # (e,)
    of_query: Callable[[Tensor], Tensor] | None = None  # (n, h, k) -> the same: a norm
    of_keys: Callable[[Tensor], Tensor] | None = None  # (n, h, j, k) -> the same: norm, rotation
    of_place: Tensor | None = None  # (h, j): bias of the logits by place, seen from the query

    @classmethod
    def split(
        cls, qkv: tuple[Tensor, Tensor, Tensor], biases: Tensor | None, out: nn.Linear, heads: int
    ) -> "Weights":
        """From projections (h * k, in) and their concatenated biases (3 * h * k,)."""
        query, key, value = (w.detach().unflatten(0, (heads, -1)) for w in qkv)
        biases = query.new_zeros(3 * query[..., 0].numel()) if biases is None else biases.detach()
        query_bias, key_bias, value_bias = biases.reshape(3, heads, -1)
        bias = out.weight.new_zeros(len(out.weight)) if out.bias is None else out.bias
        split_out = out.weight.detach().unflatten(1, (heads, -1))
        return cls(query, query_bias, key, key_bias, value, value_bias, split_out, bias.detach())

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
    gain: Tensor | float = 1.0  # (e,) or (n, 1, e or 1): between the attention and the stream

    def take(self, rows: list[int]) -> "AttentionSite":
        gain = self.gain
        gain = gain[rows] if isinstance(gain, Tensor) and gain.ndim == 3 else gain
        return AttentionSite(
            self.weights, self.query[rows], self.tokens[rows], self.written[rows], gain
        )

    def scaled(self, gain: Tensor) -> "AttentionSite":
        """The same site where a LayerScale (e,) follows the attention."""
        return replace(self, gain=self.gain * gain.detach())

    def normed(self, norm: nn.LayerNorm) -> "AttentionSite":
        """The same site where a norm follows the attention, its deviation held constant.

        The norm's bias is no part of the site, and neither is the constant below.
        """
        w, deviation = self.weights, deviation_of(norm, self.written)  # (n, 1)
        centred = replace(w, out=w.out - w.out.mean(dim=0), out_bias=w.out_bias - w.out_bias.mean())
        written = self.written - self.written.mean(dim=-1, keepdim=True)
        gain = self.gain * norm.weight.detach() / deviation[:, None]  # (n, 1, e)
        return replace(self, weights=centred, written=written, gain=gain)

    def normed_inside(self, norm: nn.LayerNorm, heads: Tensor) -> "AttentionSite":
        """The same site where a norm stands between the heads' output (n, h * k) and `out`."""
        w, deviation = self.weights, deviation_of(norm, heads)  # (n, 1)
        weight, bias = (p.detach().view_as(w.value_bias) for p in (norm.weight, norm.bias))
        constant = torch.einsum("ehk,hk->e", w.out, bias) + w.out_bias  # (e,)
        out = w.out * weight
        out = out - out.mean(dim=(1, 2), keepdim=True)
        inner = replace(w, out=out, out_bias=torch.zeros_like(w.out_bias))
        written = (self.written - constant) * deviation
        return replace(self, weights=inner, written=written, gain=self.gain / deviation[:, None])

    def row(self) -> Tensor:
        """Attention of the pooled token to every token: (n, h, j)."""
        w, asked = self.weights, self._asked() * self.weights.key.shape[1] ** -0.5
        if w.of_keys is None:
            pulled = torch.einsum("nhk,hkd->nhd", asked, w.key)
            logits = torch.einsum("nhd,njd->nhj", pulled, self.tokens)
        else:
            logits = torch.einsum("nhk,nhjk->nhj", asked, self._keys())
        return (logits if w.of_place is None else logits + w.of_place).softmax(dim=-1)  # (n, h, j)

    def worth(self, g: Tensor) -> Tensor:
        """What each token would write along g if looked at alone: (n, c, e) -> (n, c, h, j)."""
        w = self.weights
        by_head = torch.einsum("nce,ehk->nchk", g * self.gain, w.out)  # (n, c, h, k)
        pulled = torch.einsum("nchk,hkd->nchd", by_head, w.value)  # (n, c, h, d)
        return torch.einsum("nchd,njd->nchj", pulled, self.tokens)  # (n, c, h, j)

    def likeness(self) -> Tensor:
        """Cosine of the pooled token's query and every token's key: (n, h, j)."""
        return F.cosine_similarity(self._asked()[:, :, None], self._keys(), dim=-1)  # (n, h, j)

    def written_by(self) -> Tensor:
        """What the attention would write if it looked at one token alone: (n, j, e)."""
        w = self.weights
        joint = torch.einsum("ehk,hkd->ed", w.out, w.value)  # (e, d)
        constant = torch.einsum("ehk,hk->e", w.out, w.value_bias) + w.out_bias  # (e,)
        return (self.tokens @ joint.T + constant) * self.gain  # (n, j, e)

    def _asked(self) -> Tensor:
        """The pooled token's query: (n, h, k)."""
        w = self.weights
        query = torch.einsum("nq,hkq->nhk", self.query, w.query) + w.query_bias
        return query if w.of_query is None else w.of_query(query)

    def _keys(self) -> Tensor:
        """The key of every token: (n, h, j, k)."""
        w = self.weights
        keys = torch.einsum("njd,hkd->nhjk", self.tokens, w.key) + w.key_bias[:, None]
        return keys if w.of_keys is None else w.of_keys(keys)

    def bias(self, g: Tensor) -> Tensor:
        """What the biases write, whatever the image: (n, c, e) -> (n, c)."""
        w = self.weights
        constant = torch.einsum("ehk,hk->e", w.out, w.value_bias) + w.out_bias  # (e,)
        return (g * self.gain) @ constant  # (n, c)

    def total(self, g: Tensor) -> Tensor:
        """What the model's own attention wrote along g, for comparison: (n, c, e) -> (n, c)."""
        return torch.einsum("nce,ne->nc", g * self.gain, self.written)


@dataclass(frozen=True, slots=True)
class MeanSite:
    """Average pooling: every token writes an equal part of itself."""

    tokens: Tensor  # (n, j, e)
    written: Tensor  # (n, e): the model's own mean

    def take(self, rows: list[int]) -> "MeanSite":
        return MeanSite(self.tokens[rows], self.written[rows])

    def row(self) -> Tensor:
        n, j, _ = self.tokens.shape
        return self.tokens.new_full((n, 1, j), 1 / j)

    def worth(self, g: Tensor) -> Tensor:
        return torch.einsum("nce,nje->ncj", g, self.tokens)[:, :, None]  # (n, c, 1, j)

    def likeness(self) -> Tensor:
        return F.cosine_similarity(self.written[:, None], self.tokens, dim=-1)[:, None]  # (n, 1, j)

    def written_by(self) -> Tensor:
        return self.tokens

    def bias(self, g: Tensor) -> Tensor:
        return g.new_zeros(g.shape[:2])  # (n, c)

    def total(self, g: Tensor) -> Tensor:
        return torch.einsum("nce,ne->nc", g, self.written)  # (n, c)


Site = AttentionSite | MeanSite
Tail = Callable[[Tensor], Tensor]


def plain_norm(norm: object) -> bool:
    """Whether the accounts below hold for a norm."""
    return isinstance(norm, nn.LayerNorm) and norm.weight is not None and norm.bias is not None


def deviation_of(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """What LayerNorm divides by, as a constant: (m, e) -> (m, 1)."""
    return (x.detach().var(dim=-1, keepdim=True, correction=0) + norm.eps).sqrt()


def frozen_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm with its standard deviation held constant, hence affine in x: (m, e) -> (m, e)."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / deviation_of(norm, x) * norm.weight + norm.bias


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
