"""Explainers for timm trunks in open_clip's towers: transformers and feature maps.

Trunks are told apart by their class names, and by how they pool.
"""

from typing import Any

import torch
from torch import Tensor, nn

from filter_service.explain.activations import Keep, Reading
from filter_service.explain.attention import (
    AttentionSite,
    MeanSite,
    Weights,
    frozen_norm,
    plain_norm,
)
from filter_service.explain.blocks import addressed, inner_norm, readable, rotation, site_of

# The trunk's attributes are those of timm's classes, which carry no types.
Tower = Any

TRANSFORMERS = ("VisionTransformer", "Eva", "VisionTransformerRelPos")
HEADS = ("ClassifierHead", "NormMlpClassifierHead")


class TokenTrunk:
    """timm's transformers with a class token: every layer's attention, as the token sees it.

    The account of `towers.Decomposition`, with all that timm's blocks may hold: norms of queries
    and keys, rotation and bias by place, LayerScale, norms inside the attention and after it.
    """

    method = "decomposition of all layers"

    def supports(self, tower: Tower) -> bool:
        return (
            _transformer(tower)
            and tower.trunk.global_pool == "token"
            and getattr(tower.trunk, "attn_pool", None) is None
            and not getattr(tower.trunk, "rope_mixed", False)
            and plain_norm(tower.trunk.norm)
            and all(readable(block) for block in tower.trunk.blocks)
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        watched: dict[nn.Module, Keep] = {
            tower.trunk.patch_embed: _size,
            tower.trunk.norm: lambda given, _: given[0][:, 0],  # (n, e)
        }
        for block in tower.trunk.blocks:
            watched[block.attn] = lambda given, _: given[0]  # (n, j, d)
            watched[block.attn.proj_drop] = lambda _, out: out[:, 0]  # (n, e)
            if (inner := inner_norm(block.attn)) is not None:
                watched[inner] = lambda given, _: given[0][:, 0]  # (n, h * k)
        watched[tower.trunk.blocks[-1]] = token_norms()
        return watched

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        trunk, grid = tower.trunk, _grid(tower.trunk, activations)
        turn = rotation(trunk, grid)

        def tail(x: Tensor) -> Tensor:
            embedding: Tensor = tower.head(trunk.head(trunk.fc_norm(frozen_norm(trunk.norm, x))))
            return embedding

        return Reading(
            sites=[site_of(trunk, block, activations, turn) for block in trunk.blocks],
            pooled=activations[trunk.norm],
            tail=tail,
            prefix=trunk.num_prefix_tokens,
            grid=grid,
            norms=activations[trunk.blocks[-1]],
        )


class AverageTrunk:
    """timm's transformers that average their tokens: every token is a part of the mean."""

    method = "shares of the average pooling"

    def supports(self, tower: Tower) -> bool:
        return (
            _transformer(tower)
            and tower.trunk.global_pool == "avg"
            and getattr(tower.trunk, "attn_pool", None) is None
            and (isinstance(tower.trunk.fc_norm, nn.Identity) or plain_norm(tower.trunk.fc_norm))
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        return {
            tower.trunk.patch_embed: _size,
            tower.trunk.norm: lambda _, out: out,  # (n, j, e)
            tower.trunk.fc_norm: lambda given, _: given[0],  # (n, e)
            tower.trunk.blocks[-1]: token_norms(),
        }

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        trunk, last = tower.trunk, plain_norm(tower.trunk.fc_norm)
        prefix = trunk.num_prefix_tokens
        skipped = 0 if getattr(trunk, "pool_include_prefix", False) else prefix
        pooled = activations[trunk.fc_norm]

        def tail(x: Tensor) -> Tensor:
            x = frozen_norm(trunk.fc_norm, x) if last else x
            embedding: Tensor = tower.head(trunk.head(x))
            return embedding

        return Reading(
            sites=[MeanSite(activations[trunk.norm][:, skipped:], pooled)],
            pooled=pooled,
            tail=tail,
            prefix=prefix - skipped,
            grid=_grid(trunk, activations),
            norms=activations[trunk.blocks[-1]][:, skipped:],
        )


class LatentQuery:
    """SigLIP and PE: a learnt query pools the tokens; an MLP follows and enters to first order."""

    method = "shares of the latent pooling"

    def supports(self, tower: Tower) -> bool:
        pool: Any = getattr(getattr(tower, "trunk", None), "attn_pool", None)
        return (
            _transformer(tower)
            and is_a(pool, "timm.layers.attention_pool", "AttentionPoolLatent")
            and (pool.latent_len, pool.pool, pool.pos_embed) == (1, "token", None)
            and isinstance(pool.q, nn.Linear)
            and isinstance(pool.proj, nn.Linear)
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        pool = tower.trunk.attn_pool
        return {
            tower.trunk.patch_embed: _size,
            pool: lambda given, _: given[0],  # (n, j, d)
            pool.proj: lambda _, out: out[:, 0],  # (n, d)
            tower.trunk.blocks[-1]: token_norms(),
        }

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        trunk, pool = tower.trunk, tower.trunk.attn_pool
        tokens, pooled = activations[pool], activations[pool.proj]
        # Some trunks leave the class token out of the pooling, which then sees places alone.
        count, (height, width) = tokens.shape[1], _grid(trunk, activations)
        key, value = pool.kv.weight.chunk(2)
        biases = None if pool.kv.bias is None else torch.cat([pool.q.bias, pool.kv.bias])
        weights = Weights.split((pool.q.weight, key, value), biases, pool.proj, pool.num_heads)
        weights = addressed(weights, pool, None, None)
        query = pool.latent.detach()[0, :1].expand(len(tokens), -1)  # (n, q)

        def tail(x: Tensor) -> Tensor:
            x = x if pool.mlp is None else x + pool.mlp(pool.norm(x))
            embedding: Tensor = tower.head(trunk.head(trunk.fc_norm(x)))
            return embedding

        return Reading(
            sites=[AttentionSite(weights, query, tokens, pooled)],
            pooled=pooled,
            tail=tail,
            prefix=count - height * width,
            grid=(height, width),
            norms=activations[trunk.blocks[-1]][:, -count:],
        )


class AverageMap:
    """ConvNeXt, FastViT, Swin and other trunks that end in the mean of a feature map.

    Every place of the map is a part of the mean; the head that follows enters to first order.
    """

    method = "shares of the average pooling"

    def supports(self, tower: Tower) -> bool:
        head: Any = getattr(getattr(tower, "trunk", None), "head", None)
        return (
            is_a(tower, "open_clip.timm_model", "TimmModel")
            and any(is_a(head, "timm.layers.classifier", name) for name in HEADS)
            and head.global_pool.pool_type in ("avg", "fast", "fastavg")
            and not head.use_conv
            and (not hasattr(head, "norm") or plain_norm(head.norm))
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        pool = tower.trunk.head.global_pool
        # The pool's first child sees the map; the pool itself tells what came of it.
        return {pool.pool: lambda given, _: given[0], pool: lambda _, out: out.flatten(1)}

    def read(self, tower: Tower, activations: dict[nn.Module, Tensor]) -> Reading:
        head = tower.trunk.head
        features, pooled = activations[head.global_pool.pool], activations[head.global_pool]
        if getattr(head, "input_fmt", "NCHW") == "NCHW":
            features = features.permute(0, 2, 3, 1)  # (n, h, w, e)

        def tail(x: Tensor) -> Tensor:
            if hasattr(head, "norm"):
                x = head.pre_logits(frozen_norm(head.norm, x))
            embedding: Tensor = tower.head(head.fc(x))
            return embedding

        return Reading(
            sites=[MeanSite(features.flatten(1, 2), pooled)],
            pooled=pooled,
            tail=tail,
            prefix=0,
            grid=(features.shape[1], features.shape[2]),
        )


def missing_in_trunk(tower: Tower) -> str:
    """What an account of a timm trunk would need, of a tower that has none."""
    trunk = tower.trunk
    if not _transformer(tower):
        return (
            f"what {type(trunk).__name__} does between its places and the vector: only the mean of "
            "a last feature map is known"
        )
    if getattr(trunk, "rope_mixed", False):
        return f"the rotation of {type(trunk).__name__}, which differs from block to block"
    if trunk.global_pool == "token" and plain_norm(trunk.norm):
        block = next(b for b in trunk.blocks if not readable(b))
        attention = getattr(block, "attn", None)
        return f"the attention {type(attention).__name__} in blocks of {type(block).__name__}"
    norms = f"norms {type(trunk.norm).__name__} and {type(trunk.fc_norm).__name__}"
    return f"the pooling {trunk.global_pool!r} of {type(trunk).__name__} with {norms}"


def is_a(module: object, room: str, name: str) -> bool:
    """Whether a module is of exactly this class of this library's module."""
    return type(module).__module__ == room and type(module).__name__ == name


def token_norms(batch_first: bool = True) -> Keep:
    """Norms of the tokens that enter a block: (n, j)."""

    def keep(given: tuple[Any, ...], _: object) -> Tensor:
        norms: Tensor = given[0].float().norm(dim=-1)
        return norms if batch_first else norms.T

    return keep


def _transformer(tower: Tower) -> bool:
    """One of the transformers whose tokens, after the first few, are places row by row."""
    return (
        is_a(tower, "open_clip.timm_model", "TimmModel")
        and type(tower.trunk).__module__.startswith("timm.models.")
        and type(tower.trunk).__name__ in TRANSFORMERS
    )


def _size(given: tuple[Any, ...], _: object) -> Tensor:
    """An image's height and width as an empty tensor's: (n, 0, h, w)."""
    pixels: Tensor = given[0]
    return pixels[:, :0]


def _grid(trunk: Tower, kept: dict[nn.Module, Tensor]) -> tuple[int, int]:
    """Places of the images that were seen; some trunks take other sizes than their own."""
    height, width = trunk.patch_embed.dynamic_feat_size(tuple(kept[trunk.patch_embed].shape[2:]))
    return height, width
