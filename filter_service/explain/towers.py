"""Explainers for each kind of open_clip image tower, in the registry `EXPLAINERS`.

Towers are told apart by their class names, so that open_clip stays the business of the encoder.
open_clip's own towers are read here, those around one of timm's trunks in `trunks.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from filter_service.explain.activations import Explainer, Keep, Reading
from filter_service.explain.attention import (
    AttentionSite,
    MeanSite,
    Weights,
    frozen_norm,
    plain_norm,
)
from filter_service.explain.trunks import (
    AverageMap,
    AverageTrunk,
    LatentQuery,
    TokenTrunk,
    is_a,
    missing_in_trunk,
    token_norms,
)

# The tower's attributes are those of open_clip's classes, which carry no types.
Tower = Any


class Decomposition:
    """Every layer's attention, seen from the class token: an exact additive account of the score.

    After Gandelsman et al., "Interpreting CLIP's Image Representation via Text-Based
    Decomposition": the stream at the class token is the sum of what every layer wrote into it.
    MLPs, the class token's own share and all biases are the remainder.
    """

    method = "decomposition of all layers"

    def supports(self, tower: Tower) -> bool:
        return (
            is_a(tower, "open_clip.transformer", "VisionTransformer")
            and tower.attn_pool is None
            and tower.pool_type == "tok"
            and plain_norm(tower.ln_post)
            and all(
                is_a(block, "open_clip.transformer", "ResidualAttentionBlock")
                for block in tower.transformer.resblocks
            )
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        first = tower.transformer.batch_first
        watched: dict[nn.Module, Keep] = {tower.transformer: lambda _, out: out[:, 0]}
        for block in tower.transformer.resblocks:
            watched[block.ln_1] = lambda _, out: _batch_first(out, first)  # (n, j, d)
            watched[block.attn] = lambda _, out: _batch_first(out[0], first)[:, 0]  # (n, d)
        watched[tower.transformer.resblocks[-1]] = token_norms(first)
        return watched

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        sites = []
        for block in tower.transformer.resblocks:
            tokens = activations[block.ln_1]
            gain = block.ls_1.gamma.detach() if hasattr(block.ls_1, "gamma") else 1.0
            weights = Weights.of(block.attn)
            sites.append(
                AttentionSite(weights, tokens[:, 0], tokens, activations[block.attn], gain)
            )
        return Reading(
            sites=sites,
            pooled=activations[tower.transformer],
            tail=lambda x: frozen_norm(tower.ln_post, x) @ tower.proj,
            prefix=1,
            grid=tower.grid_size,
            norms=activations[tower.transformer.resblocks[-1]],
        )


class AveragePool:
    """Vision transformers that average their patch tokens: every token is a part of the mean."""

    method = "shares of the average pooling"

    def supports(self, tower: Tower) -> bool:
        return (
            is_a(tower, "open_clip.transformer", "VisionTransformer")
            and tower.attn_pool is None
            and tower.pool_type == "avg"
            and plain_norm(tower.ln_post)
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        # The norm comes before the mean or after it, so it sees all tokens or only the mean.
        return {
            tower.transformer: lambda _, out: out,
            tower.ln_post: lambda given, out: (
                given[0] if tower.final_ln_after_pool else out[:, 1:].mean(dim=1)
            ),
            tower.transformer.resblocks[-1]: token_norms(tower.transformer.batch_first),
        }

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        tokens, pooled = (
            activations[tower.transformer][:, 1:],
            activations[tower.ln_post],
        )  # (n, j, e), (n, e)
        last = tower.final_ln_after_pool
        with torch.no_grad():
            tokens = tokens if last else tower.ln_post(tokens)
        return Reading(
            sites=[MeanSite(tokens, pooled)],
            pooled=pooled,
            tail=lambda x: (frozen_norm(tower.ln_post, x) if last else x) @ tower.proj,
            prefix=0,
            grid=tower.grid_size,
            norms=activations[tower.transformer.resblocks[-1]][:, 1:],
        )


class FirstQuery:
    """CoCa: the embedding is the first query of an attentional pooler over all tokens."""

    method = "shares of the attentional pooling"

    def supports(self, tower: Tower) -> bool:
        return (
            is_a(tower, "open_clip.transformer", "VisionTransformer")
            and tower.attn_pool is not None
            and tower.attn_pool_contrastive is None
            and tower.pool_type == "tok"
            and plain_norm(tower.ln_post)
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        return {
            tower.attn_pool.ln_k: lambda _, out: out,
            tower.attn_pool: lambda _, out: out[:, 0],
            tower.transformer.resblocks[-1]: token_norms(tower.transformer.batch_first),
        }

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        pool, tokens = tower.attn_pool, activations[tower.attn_pool.ln_k]  # (n, j, d)
        with torch.no_grad():
            query = pool.ln_q(pool.query)[:1].expand(len(tokens), -1)  # (n, q)
        pooled = activations[pool]
        return Reading(
            sites=[AttentionSite(Weights.of(pool.attn), query, tokens, pooled)],
            pooled=pooled,
            tail=lambda x: frozen_norm(tower.ln_post, x) @ tower.proj,
            prefix=1,
            grid=tower.grid_size,
            norms=activations[tower.transformer.resblocks[-1]],
        )


class MeanQuery:
    """ResNet CLIPs: the mean of the last feature map attends to all its positions."""

    method = "shares of the attention pooling"

    def supports(self, tower: Tower) -> bool:
        return is_a(tower, "open_clip.modified_resnet", "ModifiedResNet")

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        # The pooling starts with the feature map, layer4's output, and ends in the embedding.
        return {tower.layer4: lambda _, out: out, tower.attnpool: lambda _, out: out}

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        pool, features = tower.attnpool, activations[tower.layer4]  # (n, d, h, w)
        places = features.flatten(2).transpose(1, 2)  # (n, p, d)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)  # (n, 1 + p, d)
        tokens = tokens + pool.positional_embedding.detach()
        q, k, v = pool.q_proj, pool.k_proj, pool.v_proj
        biases = torch.cat([q.bias, k.bias, v.bias])
        weights = Weights.split((q.weight, k.weight, v.weight), biases, pool.c_proj, pool.num_heads)
        pooled = activations[pool]
        return Reading(
            sites=[AttentionSite(weights, tokens[:, 0], tokens, pooled)],
            pooled=pooled,
            tail=lambda x: x,
            prefix=1,
            grid=(features.shape[2], features.shape[3]),
        )


EXPLAINERS: tuple[Explainer, ...] = (
    Decomposition(),
    AveragePool(),
    FirstQuery(),
    MeanQuery(),
    TokenTrunk(),
    AverageTrunk(),
    LatentQuery(),
    AverageMap(),
)


def missing(tower: Tower) -> str:
    """What an exact account would need to know, of a tower that no explainer supports."""
    if hasattr(tower, "trunk"):
        return missing_in_trunk(tower)
    if not is_a(tower, "open_clip.transformer", "VisionTransformer"):
        return f"how {type(tower).__name__} pools its places"
    if getattr(tower, "attn_pool_contrastive", None) is not None:
        return (
            f"attention pooling of type {tower.attn_pool_type!r}, "
            "which gives a list of vectors in place of one"
        )
    if not plain_norm(tower.ln_post):
        return f"the final norm {type(tower.ln_post).__name__}"
    blocks = {type(block).__name__ for block in tower.transformer.resblocks}
    return f"blocks of {' and '.join(sorted(blocks))} pooled by {tower.pool_type!r}"


def _batch_first(x: Tensor, batch_first: bool) -> Tensor:
    return x if batch_first else x.transpose(0, 1)
