"""How each kind of open_clip image tower is read: one class per kind, in the registry `EXPLAINERS`.

Towers are told apart by their class names, so that open_clip stays the business of `encoder.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from filter_service.explain.attention import AttentionSite, MeanSite, Weights, frozen_norm
from filter_service.explain.relevance import Explainer, Keep, Reading

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
            _is(tower, "open_clip.transformer", "VisionTransformer")
            and tower.attn_pool is None
            and tower.pool_type == "tok"
            and _plain_norm(tower.ln_post)
            and all(
                _is(block, "open_clip.transformer", "ResidualAttentionBlock")
                for block in tower.transformer.resblocks
            )
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        first = tower.transformer.batch_first
        watched: dict[nn.Module, Keep] = {tower.transformer: lambda _, out: out[:, 0]}
        for block in tower.transformer.resblocks:
            watched[block.ln_1] = lambda _, out: _batch_first(out, first)  # (n, j, d)
            watched[block.attn] = lambda _, out: _batch_first(out[0], first)[:, 0]  # (n, d)
        watched[tower.transformer.resblocks[-1]] = _token_norms(first)
        return watched

    def read(self, tower: Tower, kept: dict[nn.Module, Tensor]) -> Reading:
        sites = []
        for block in tower.transformer.resblocks:
            tokens = kept[block.ln_1]
            gain = block.ls_1.gamma.detach() if hasattr(block.ls_1, "gamma") else 1.0
            weights = Weights.of(block.attn)
            sites.append(AttentionSite(weights, tokens[:, 0], tokens, kept[block.attn], gain))
        return Reading(
            sites=sites,
            pooled=kept[tower.transformer],
            tail=lambda x: frozen_norm(tower.ln_post, x) @ tower.proj,
            prefix=1,
            grid=tower.grid_size,
            norms=kept[tower.transformer.resblocks[-1]],
        )


class AveragePool:
    """Vision transformers that average their patch tokens: every token is a part of the mean."""

    method = "shares of the average pooling"

    def supports(self, tower: Tower) -> bool:
        return (
            _is(tower, "open_clip.transformer", "VisionTransformer")
            and tower.attn_pool is None
            and tower.pool_type == "avg"
            and _plain_norm(tower.ln_post)
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        # The norm comes before the mean or after it, so it sees all tokens or only the mean.
        return {
            tower.transformer: lambda _, out: out,
            tower.ln_post: lambda given, out: (
                given[0] if tower.final_ln_after_pool else out[:, 1:].mean(dim=1)
            ),
            tower.transformer.resblocks[-1]: _token_norms(tower.transformer.batch_first),
        }

    def read(self, tower: Tower, kept: dict[nn.Module, Tensor]) -> Reading:
        tokens, pooled = kept[tower.transformer][:, 1:], kept[tower.ln_post]  # (n, j, e), (n, e)
        last = tower.final_ln_after_pool
        with torch.no_grad():
            tokens = tokens if last else tower.ln_post(tokens)
        return Reading(
            sites=[MeanSite(tokens, pooled)],
            pooled=pooled,
            tail=lambda x: (frozen_norm(tower.ln_post, x) if last else x) @ tower.proj,
            prefix=0,
            grid=tower.grid_size,
            norms=kept[tower.transformer.resblocks[-1]][:, 1:],
        )


class FirstQuery:
    """CoCa: the embedding is the first query of an attentional pooler over all tokens."""

    method = "shares of the attentional pooling"

    def supports(self, tower: Tower) -> bool:
        return (
            _is(tower, "open_clip.transformer", "VisionTransformer")
            and tower.attn_pool is not None
            and tower.attn_pool_contrastive is None
            and tower.pool_type == "tok"
            and _plain_norm(tower.ln_post)
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        return {
            tower.attn_pool.ln_k: lambda _, out: out,
            tower.attn_pool: lambda _, out: out[:, 0],
            tower.transformer.resblocks[-1]: _token_norms(tower.transformer.batch_first),
        }

    def read(self, tower: Tower, kept: dict[nn.Module, Tensor]) -> Reading:
        pool, tokens = tower.attn_pool, kept[tower.attn_pool.ln_k]  # (n, j, d)
        with torch.no_grad():
            query = pool.ln_q(pool.query)[:1].expand(len(tokens), -1)  # (n, q)
        pooled = kept[pool]
        return Reading(
            sites=[AttentionSite(Weights.of(pool.attn), query, tokens, pooled)],
            pooled=pooled,
            tail=lambda x: frozen_norm(tower.ln_post, x) @ tower.proj,
            prefix=1,
            grid=tower.grid_size,
            norms=kept[tower.transformer.resblocks[-1]],
        )


class LatentQuery:
    """SigLIP: a learnt query pools the tokens, then an MLP follows, which enters to first order."""

    method = "shares of the latent pooling"

    def supports(self, tower: Tower) -> bool:
        pool: Any = getattr(getattr(tower, "trunk", None), "attn_pool", None)
        return (
            _is(tower, "open_clip.timm_model", "TimmModel")
            and _is(tower.trunk, "timm.models.vision_transformer", "VisionTransformer")
            and _is(pool, "timm.layers.attention_pool", "AttentionPoolLatent")
            and (pool.latent_len, pool.pool, pool.pos_embed) == (1, "token", None)
            and isinstance(pool.q, nn.Linear)
            and isinstance(pool.proj, nn.Linear)
            and isinstance(pool.k_norm, nn.Identity)
        )

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        pool = tower.trunk.attn_pool
        return {
            pool: lambda given, _: given[0],  # (n, j, d)
            pool.proj: lambda _, out: out[:, 0],  # (n, d)
            tower.trunk.blocks[-1]: _token_norms(batch_first=True),
        }

    def read(self, tower: Tower, kept: dict[nn.Module, Tensor]) -> Reading:
        trunk, pool = tower.trunk, tower.trunk.attn_pool
        tokens, pooled = kept[pool], kept[pool.proj]
        # Some trunks leave the class token out of the pooling, which then sees places alone.
        count, (height, width) = tokens.shape[1], trunk.patch_embed.grid_size
        key, value = pool.kv.weight.chunk(2)
        biases = None if pool.kv.bias is None else torch.cat([pool.q.bias, pool.kv.bias])
        weights = Weights.split((pool.q.weight, key, value), biases, pool.proj, pool.num_heads)
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
            norms=kept[trunk.blocks[-1]][:, -count:],
        )


class MeanQuery:
    """ResNet CLIPs: the mean of the last feature map attends to all its positions."""

    method = "shares of the attention pooling"

    def supports(self, tower: Tower) -> bool:
        return _is(tower, "open_clip.modified_resnet", "ModifiedResNet")

    def watch(self, tower: Tower) -> dict[nn.Module, Keep]:
        # The pooling starts with the feature map, layer4's output, and ends in the embedding.
        return {tower.layer4: lambda _, out: out, tower.attnpool: lambda _, out: out}

    def read(self, tower: Tower, kept: dict[nn.Module, Tensor]) -> Reading:
        pool, features = tower.attnpool, kept[tower.layer4]  # (n, d, h, w)
        places = features.flatten(2).transpose(1, 2)  # (n, p, d)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)  # (n, 1 + p, d)
        tokens = tokens + pool.positional_embedding.detach()
        q, k, v = pool.q_proj, pool.k_proj, pool.v_proj
        biases = torch.cat([q.bias, k.bias, v.bias])
        weights = Weights.split((q.weight, k.weight, v.weight), biases, pool.c_proj, pool.num_heads)
        pooled = kept[pool]
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
    LatentQuery(),
    MeanQuery(),
)


def _is(module: object, room: str, name: str) -> bool:
    return type(module).__module__ == room and type(module).__name__ == name


def _plain_norm(norm: nn.Module) -> bool:
    return isinstance(norm, nn.LayerNorm) and norm.bias is not None


def _batch_first(x: Tensor, batch_first: bool) -> Tensor:
    return x if batch_first else x.transpose(0, 1)


def _token_norms(batch_first: bool) -> Keep:
    """Norms of the tokens that enter a block: (n, j)."""
    return lambda given, _: _batch_first(given[0], batch_first).float().norm(dim=-1)
