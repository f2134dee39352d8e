"""Gradient-based maps: integrated gradients and gradient-weighted attention.

The forward pass is the served one, with gradients switched on for a copy of the pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from filter_service.encoder.probes import probes
from filter_service.errors import NotExplainable
from filter_service.explain.activations import ActivationTape, Keep
from filter_service.explain.attention import Weights
from filter_service.images import decode

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

STEPS = 24  # points on the straight line along which gradients are integrated
CHUNK = 64  # images in one forward and backward pass
BLURRED_TO = 4  # pixels a side that are left of a blurred image

Baseline = Callable[["Encoder", Tensor], Tensor]  # (n, 3, h, w) -> (n, 3, h, w)


def black(encoder: "Encoder", pixels: Tensor) -> Tensor:
    """A black picture, as the encoder sees one."""
    side = encoder.input_size
    return encoder.pixels(PIL.Image.new("RGB", (side, side))).expand_as(pixels)


def mean_colour(encoder: "Encoder", pixels: Tensor) -> Tensor:
    """Each image's own mean colour."""
    return pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)


def blurred(encoder: "Encoder", pixels: Tensor) -> Tensor:
    """Each image blurred beyond recognition."""
    few = F.adaptive_avg_pool2d(pixels, BLURRED_TO)  # (n, 3, few, few)
    return F.interpolate(few, pixels.shape[2:], mode="bicubic")


def another_picture(encoder: "Encoder", pixels: Tensor) -> Tensor:
    """One and the same other picture for all, a painted one."""
    picture = decode(next(probes(encoder.input_size))).frames[0].picture
    return encoder.pixels(picture).expand_as(pixels)


BASELINES: dict[str, Baseline] = {
    "black": black,
    "mean colour": mean_colour,
    "blur": blurred,
    "another picture": another_picture,
}


def integrated(
    encoder: "Encoder", pixels: Tensor, directions: Tensor, baseline: Baseline
) -> tuple[Tensor, Tensor]:
    """Integrated gradients (Sundararajan et al. 2017) of u . z for directions u (n, c, d).

    Per pixel, summed over colours, (n, c, h, w), and the embeddings (n, d).
    """

    def score(x: Tensor, u: Tensor) -> Tensor:
        return (encode_with_graph(encoder, x) * u).sum(dim=-1)  # (n,)

    method = IntegratedGradients(score, multiply_by_inputs=True)
    start = baseline(encoder, pixels)  # (n, 3, h, w)
    columns = [
        method.attribute(
            pixels, start, additional_forward_args=(u,), n_steps=STEPS, internal_batch_size=CHUNK
        ).sum(dim=1)  # (n, h, w)
        for u in directions.unbind(dim=1)
    ]
    with torch.no_grad():
        return torch.stack(columns, dim=1).detach(), encode_with_graph(encoder, pixels)


def rolled_out(encoder: "Encoder", pixels: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient times attention through all layers, never negative, for self-attention.

    Per token, (n, c, j), and the embeddings (n, d). After Chefer, Gur and Wolf, "Generic
    Attention-model Explainability" (2021). Only for open_clip's vision transformers with a class
    token.
    """
    blocks = _blocks(encoder.model.visual)
    with torch.enable_grad(), ActivationTape(_watched(blocks), graph=True) as tape:
        z = encode_with_graph(encoder, pixels.clone().requires_grad_())  # (n, d)
        activations = tape.activations()
        written = [activations[block.attn] for block in blocks]
        gradients = [
            torch.autograd.grad((z * u).sum(), written, retain_graph=True)
            for u in directions.unbind(dim=1)
        ]
    with torch.no_grad():
        layers = [_Layer.of(block.attn, activations[block.ln_1]) for block in blocks]
        return torch.stack([_rolled(layers, g) for g in gradients], dim=1), z.detach()


def layer_by_layer(encoder: "Encoder", pixels: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """How each layer's own answer changes with its attention, never negative, over all layers.

    Per token, (n, c, j), and the embeddings (n, d). After LeGrad (Bousselham et al. 2024), but for
    the pooled token that is really served. Only for open_clip's vision transformers with a class
    token.
    """
    tower: Any = encoder.model.visual
    blocks = _blocks(tower)
    watched = _watched(blocks) | {block: lambda _, out: out[:, 0] for block in blocks}  # (n, e)
    with torch.enable_grad(), ActivationTape(watched, graph=True) as tape:
        z = encode_with_graph(encoder, pixels.clone().requires_grad_())  # (n, d)
        activations = tape.activations()
        answers = [
            F.normalize(tower.ln_post(activations[block]) @ tower.proj, dim=-1) for block in blocks
        ]  # (n, d) each
        columns = []
        for u in directions.unbind(dim=1):
            total = torch.zeros((), device=z.device)
            for block, answer in zip(blocks, answers, strict=True):
                score = (answer * u).sum()
                (g,) = torch.autograd.grad(
                    score, activations[block.attn], retain_graph=True
                )  # (n, i, e)
                tokens = activations[block.ln_1].detach()
                slope = _values(block.attn, tokens, g[:, 0].detach())  # (n, h, j)
                total = total + slope.clamp(min=0).mean(dim=1) / len(blocks)
            columns.append(total)  # (n, j)
    return torch.stack(columns, dim=1).detach(), z.detach()


@dataclass(frozen=True, slots=True)
class _Layer:
    """One self-attention, recomputed from what entered it."""

    attention: Tensor  # (n, h, i, j)
    values: Tensor  # (n, h, j, k)
    out: Tensor  # (e, h, k)

    @classmethod
    def of(cls, module: nn.MultiheadAttention, tokens: Tensor) -> "_Layer":
        w = Weights.of(module)
        q = torch.einsum("nid,hkd->nhik", tokens, w.query) + w.query_bias[:, None]
        k = torch.einsum("njd,hkd->nhjk", tokens, w.key) + w.key_bias[:, None]
        v = torch.einsum("njd,hkd->nhjk", tokens, w.value) + w.value_bias[:, None]
        scaled = torch.einsum("nhik,nhjk->nhij", q, k) * q.shape[-1] ** -0.5
        return cls(scaled.softmax(dim=-1), v, w.out)


def _rolled(layers: Sequence[_Layer], gradients: Sequence[Tensor]) -> Tensor:
    """Gradients (n, i, e) of a score at every attention's output -> (n, j)."""
    relevance: Tensor | None = None  # (n, i, j): how much token i has of token j
    for layer, g in zip(layers, gradients, strict=True):
        by_head = torch.einsum("nie,ehk->nhik", g, layer.out)
        slope = torch.einsum("nhik,nhjk->nhij", by_head, layer.values)  # of the score, by attention
        step = (slope * layer.attention).clamp(min=0).mean(dim=1)  # (n, i, j)
        if relevance is None:
            relevance = torch.eye(step.shape[1], device=step.device).expand_as(step)
        relevance = relevance + step @ relevance
    assert relevance is not None
    return relevance[:, 0]


@torch.no_grad()
def _values(module: nn.MultiheadAttention, tokens: Tensor, g: Tensor) -> Tensor:
    """Slope of a score by the pooled token's attention: (n, j, d), (n, e) -> (n, h, j)."""
    w = Weights.of(module)
    by_head = torch.einsum("ne,ehk->nhk", g, w.out)
    v = torch.einsum("njd,hkd->nhjk", tokens, w.value) + w.value_bias[:, None]
    return torch.einsum("nhk,nhjk->nhj", by_head, v)


def _watched(blocks: Sequence[Any]) -> dict[nn.Module, Keep]:
    """What enters every attention, (n, j, d), and what it writes, (n, j, e)."""
    watched: dict[nn.Module, Keep] = {}
    for block in blocks:
        watched[block.ln_1] = lambda _, out: out
        watched[block.attn] = lambda _, out: out[0]
    return watched


def encode_with_graph(encoder: "Encoder", pixels: Tensor) -> Tensor:
    """As `encoder.encode`, but with its graph."""
    z: Tensor = encoder.model.encode_image(pixels, normalize=True)  # type: ignore[operator]
    return z


def _blocks(tower: Any) -> Sequence[Any]:  # noqa: ANN401
    plain = (
        type(tower).__module__ == "open_clip.transformer"
        and type(tower).__name__ == "VisionTransformer"
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and tower.transformer.batch_first
    )
    if not plain:
        raise NotExplainable(
            "Gradient times attention through all layers is only known for open_clip's vision "
            f"transformers with a class token, not for {type(tower).__name__}."
        )
    return list(tower.transformer.resblocks)
