"""Reads what the attention of one timm transformer block writes into the class token."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from filter_service.explain.attention import AttentionSite, Weights, plain_norm

# The attributes are those of timm's classes, which carry no types.
Module = Any
Change = Callable[[Tensor], Tensor]

BLOCKS = ("Block", "EvaBlock", "RelPosBlock")
NORM_AFTER_ATTENTION = ("ResPostBlock", "EvaBlockPostNorm", "ResPostRelPosBlock")
ATTENTIONS = ("Attention", "EvaAttention", "RelPosAttention")


def readable(block: Module) -> bool:
    """A block that adds its attention to the stream, with an attention that is linear in values."""
    after = type(block).__name__ in NORM_AFTER_ATTENTION
    inner = inner_norm(block.attn) if hasattr(block, "attn") else None
    return (
        (type(block).__name__ in BLOCKS or (after and plain_norm(block.norm1)))
        and type(block.attn).__name__ in ATTENTIONS
        and getattr(block.attn, "gate", None) is None
        and (inner is None or plain_norm(inner))
    )


def inner_norm(attention: Module) -> Module | None:
    norm = getattr(attention, "norm", None)
    return None if isinstance(norm, nn.Identity) else norm


def site_of(
    trunk: Module, block: Module, activations: dict[nn.Module, Tensor], turn: Change | None
) -> AttentionSite:
    """What one block's attention wrote into the class token."""
    attention = block.attn
    tokens, written = activations[attention], activations[attention.proj_drop]
    bias = getattr(attention, "rel_pos", None) or getattr(trunk, "shared_rel_pos", None)
    weights = addressed(_weights(attention), attention, turn, bias)
    site = AttentionSite(weights, tokens[:, 0], tokens, written)
    if type(block).__name__ in NORM_AFTER_ATTENTION:
        site = site.normed(block.norm1)
    if (inner := inner_norm(attention)) is not None:
        site = site.normed_inside(inner, activations[inner])
    gain = getattr(block, "gamma_1", getattr(getattr(block, "ls1", None), "gamma", None))
    return site if gain is None else site.scaled(gain)


def _weights(attention: Module) -> Weights:
    """Projections in one matrix or in three, with biases in one piece, in three, or of some."""
    if attention.qkv is None:
        linears = (attention.q_proj, attention.k_proj, attention.v_proj)
        matrices = tuple(linear.weight for linear in linears)
        pieces = tuple(linear.bias for linear in linears)
    else:
        matrices = attention.qkv.weight.chunk(3)
        pieces = (attention.qkv.bias,)
        if hasattr(attention, "q_bias"):
            pieces = (attention.q_bias, attention.k_bias, attention.v_bias)
    whole = [p for p in pieces if p is not None]
    if whole and len(whole) < len(pieces):  # keys alone have none
        whole = [torch.zeros_like(whole[0]) if p is None else p for p in pieces]
    biases = torch.cat(whole) if whole else None
    q, k, v = matrices
    return Weights.split((q, k, v), biases, attention.proj, attention.num_heads)


def addressed(
    weights: Weights, attention: Module, turn: Change | None, bias: Module | None
) -> Weights:
    """With all that decides, besides queries and keys, whom the pooled token looks at."""
    if turn is not None or not isinstance(attention.k_norm, nn.Identity):
        norm = torch.no_grad()(attention.k_norm)
        weights = replace(
            weights,
            of_query=torch.no_grad()(attention.q_norm),
            of_keys=norm if turn is None else lambda keys: turn(norm(keys)),
        )
    if bias is not None:
        weights = replace(weights, of_place=bias.get_bias().detach()[0, :, 0])  # (h, j)
    return weights


def rotation(trunk: Module, grid: tuple[int, int]) -> Change | None:
    """How keys (n, h, j, k) are turned by place, if they are; tokens before the first one stay."""
    rope = getattr(trunk, "rope", None)
    if rope is None:
        return None
    fixed = hasattr(rope, "feat_shape") and not trunk.dynamic_img_size
    sin, cos = rope.get_embed(None if fixed else grid).detach().chunk(2, dim=-1)  # (p, k) each
    first, halves = trunk.num_prefix_tokens, trunk.blocks[0].attn.rotate_half

    def turn(keys: Tensor) -> Tensor:
        prefix, places = keys[:, :, :first], keys[:, :, first:]
        return torch.cat([prefix, places * cos + _quarter_turn(places, halves) * sin], dim=2)

    return turn


def _quarter_turn(x: Tensor, halves: bool) -> Tensor:
    """Pairs (a, b) of the last axis -> (-b, a); a pair is neighbours, or spans the two halves."""
    a, b = x.chunk(2, dim=-1) if halves else (x[..., ::2], x[..., 1::2])
    return torch.cat([-b, a], dim=-1) if halves else torch.stack([-b, a], dim=-1).flatten(-2)
