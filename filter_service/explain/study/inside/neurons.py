"""Finds the neurons with the largest direct effect, each checked by mean ablation.

A neuron is a hidden unit of a block's MLP, after the activation, at the class token. Its direct
effect is what it writes into the score beyond its mean, all else held constant: the direct path of
Gandelsman et al., "Interpreting the Second-Order Effects of Neurons in CLIP" (2024). Mean ablation
sets the unit to its mean and runs the model again, later layers included.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from filter_service.explain.activations import ActivationTape, Keep
from filter_service.explain.study.inside.residual_stream import (
    CHUNK,
    Change,
    Pass,
    hidden,
    replaced,
)
from filter_service.scoring import ClassVectors

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

COUNT = 20  # neurons that are checked, unless told otherwise


class Neuron(BaseModel, frozen=True, extra="forbid"):
    """One hidden unit at the class token; effects in logits, positive speaks for the class."""

    layer: int
    unit: int
    activation: float
    mean: float  # what the ablation sets it to
    written: float  # into the score; a layer's units add up to the contribution of its MLP
    direct: float  # of it, what goes beyond the mean: the effect that is predicted
    ablated: float  # margin served less margin of the ablated run: the effect that is measured

    @property
    def confirmed(self) -> bool:
        """The ablation moved the margin in the direction that was predicted."""
        return self.direct * self.ablated > 0


class Neurons(BaseModel, frozen=True, extra="forbid"):
    """The neurons with the largest direct effect, the largest first."""

    margin: float  # as served
    mean_of: Literal["reference images", "own tokens"]
    neurons: tuple[Neuron, ...]

    @property
    def confirmed(self) -> float:
        """Share of the neurons whose ablation moved the margin as predicted."""
        return sum(n.confirmed for n in self.neurons) / max(1, len(self.neurons))


def neurons(
    encoder: "Encoder",
    vectors: ClassVectors,
    pixels: Tensor,
    references: Tensor | None = None,
    count: int = COUNT,
) -> Neurons:
    """The `count` neurons with the largest direct effect on one image (3, h, w).

    A neuron's mean is taken at the class token of the reference images (n, 3, h, w). Without any,
    it is the mean over the image's own tokens, which is a rougher baseline: most units of the class
    token differ from those of places in every image. Raises NotExplainable for a tower that cannot
    be read.
    """
    seen = Pass.of(encoder, vectors, pixels)
    own = references is None or not len(references)
    means = seen.hidden_mean if own else _means(encoder, hidden(seen.tower), references)
    worth = torch.stack([seen.worth(n) for n in range(len(means))])  # (layers, m)
    active, mean = torch.stack(seen.hidden).double(), torch.stack(means).double()  # (layers, m)
    direct = (active - mean) * worth  # (layers, m)
    ranked = direct.abs().flatten().argsort(descending=True, stable=True)[:count].tolist()
    top = [divmod(i, direct.shape[1]) for i in ranked]
    ablated = _ablated(encoder, vectors, pixels, [(n, k, float(mean[n, k])) for n, k in top])
    return Neurons(
        margin=seen.margin,
        mean_of="own tokens" if own else "reference images",
        neurons=tuple(
            Neuron(
                layer=n,
                unit=k,
                activation=float(active[n, k]),
                mean=float(mean[n, k]),
                written=float(active[n, k] * worth[n, k]),
                direct=float(direct[n, k]),
                ablated=seen.margin - margin,
            )
            for (n, k), margin in zip(top, ablated, strict=True)
        ),
    )


def _means(
    encoder: "Encoder", modules: Sequence[nn.Module], references: Tensor | None
) -> list[Tensor]:
    """Mean of every hidden unit at the class token: (m,) per block."""
    assert references is not None
    keep: Keep = lambda _, out: out[:, 0]  # noqa: E731  (one function for all modules)
    with ActivationTape(dict.fromkeys(modules, keep)) as tape:
        for part in references.split(CHUNK):
            encoder.encode(part)
    return [units.mean(dim=0) for units in tape.activations().values()]


def _ablated(
    encoder: "Encoder",
    vectors: ClassVectors,
    pixels: Tensor,
    settings: Sequence[tuple[int, int, float]],
) -> list[float]:
    """Margins of runs that each have one unit (layer, unit) of the class token set to a value."""
    margins: list[float] = []
    for start in range(0, len(settings), CHUNK):
        part = settings[start : start + CHUNK]
        modules = hidden(encoder.model.visual)
        changes = {module: _setting(part, layer) for layer, module in enumerate(modules)}
        with replaced(changes):
            z = encoder.encode(pixels.expand(len(part), *pixels.shape))  # (n, d)
        margins += vectors.margins(z).tolist()
    return margins


def _setting(settings: Sequence[tuple[int, int, float]], layer: int) -> Change:
    """Run i of the batch gets the i-th setting, if it is of this layer."""

    def change(out: Tensor) -> Tensor:
        out = out.clone()  # (n, j, m)
        for run, (where, unit, value) in enumerate(settings):
            if where == layer:
                out[run, 0, unit] = value
        return out

    return change
