"""Causal tracing by activation patching: which layer and place carry the decision.

Causal tracing after Meng et al., "Locating and Editing Factual Associations in GPT" (NeurIPS 2022);
the corrupted image lacks what the decision is about instead of being noisy. Attribution patching
(Nanda, "Attribution Patching", 2023; Syed et al., "Attribution Patching Outperforms Automated
Circuit Discovery", 2023) estimates all patches with one backward pass: the margin's gradient times
the difference of the states. The gradient is the mean over both runs, after the trapezoid rule: a
margin saturates between the two, and the mean finds more of the strongest patches than the gradient
of the corrupted run alone. It is an estimate all the same, so the largest are patched in truth, and
how well the two agree is part of the record.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel
from scipy.stats import spearmanr
from torch import Tensor

from filter_service.explain.activations import ActivationTape
from filter_service.explain.regions import Suspect
from filter_service.explain.study.inside.residual_stream import (
    CHUNK,
    Change,
    check,
    replaced,
    states,
    tower_of,
)
from filter_service.scoring import ClassVectors, FloatArray

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

VERIFIED = 20  # estimates that are patched in truth, unless told otherwise


@dataclass(frozen=True, slots=True)
class Patch:
    """Tokens of the clean stream, as it enters one layer, that replace those of the corrupted."""

    layer: int
    tokens: tuple[int, ...]  # 0 is the class token, 1 + p is place p


class TracedPatch(BaseModel, frozen=True, extra="forbid"):
    """One patch of one token: how much margin it was estimated to restore, and did, in logits."""

    layer: int
    place: int | None  # index into the flattened grid; None is the class token
    estimated: float
    restored: float


class Trace(BaseModel, frozen=True, extra="forbid"):
    """Where the difference between two images is carried; layer n is the stream that enters it."""

    clean: float  # margin
    corrupted: float  # margin
    grid: tuple[int, int]  # height and width in places
    places: tuple[tuple[float, ...], ...]  # layers x places: estimated margin restored
    class_token: tuple[float, ...]  # layers: the same of the class token
    changed: tuple[int, ...]  # places whose pixels differ
    together: tuple[float, ...]  # layers: margin restored, in truth, by all these places at once
    verified: tuple[TracedPatch, ...]  # the largest estimates, the largest first
    rank_correlation: float | None  # of estimated and restored among them; None when undefined


def removed(
    suspect: Suspect, places: Iterable[int], fill: Literal["mean", "blur"] = "mean"
) -> Tensor:
    """A corrupted image (3, h, w): these places lose their content, as in a `FlipRegion`."""
    gone = np.array(list(places), dtype=np.intp)
    return suspect.without(gone) if fill == "mean" else suspect.blurred(gone)


@dataclass(frozen=True, slots=True)
class Tracing:
    """A clean and a corrupted image of one decision, between which states can be exchanged."""

    encoder: "Encoder"
    vectors: ClassVectors
    pixels: Tensor  # (2, 3, h, w): clean and corrupted
    margins: tuple[float, float]  # clean and corrupted, as served
    states: Tensor  # (2, layers, j, e): clean and corrupted, as they enter each layer

    @classmethod
    def of(
        cls, encoder: "Encoder", vectors: ClassVectors, clean: Tensor, corrupted: Tensor
    ) -> "Tracing":
        """Run both images (3, h, w); raises NotExplainable for a tower that cannot be read."""
        entering = states(tower_of(encoder))[:-1]
        pixels = torch.stack([clean, corrupted])
        with ActivationTape({module: lambda _, out: out for module in entering}) as tape:
            z = encoder.encode(pixels)  # (2, d)
        margins: list[float] = vectors.margins(z).tolist()
        stream = torch.stack(list(tape.activations().values()), dim=1)  # (2, layers, j, e)
        return cls(encoder, vectors, pixels, (margins[0], margins[1]), stream)

    def restored(self, patches: Sequence[Patch]) -> list[float]:
        """Margin that each patch adds to the corrupted image's: real forward passes, batched."""
        margins: list[float] = []
        entering = states(tower_of(self.encoder))[:-1]
        for start in range(0, len(patches), CHUNK):
            part = patches[start : start + CHUNK]
            with replaced({m: self._patching(part, layer) for layer, m in enumerate(entering)}):
                z = self.encoder.encode(self.pixels[1].expand(len(part), -1, -1, -1))
            margins += self.vectors.margins(z).tolist()
        return [m - self.margins[1] for m in margins]

    def estimated(self) -> npt.NDArray[np.float64]:
        """First-order estimate of the same, for every layer and token: (layers, j) logits."""
        difference = (self.states[0] - self.states[1]).double()  # (layers, j, e)
        estimate: npt.NDArray[np.float64] = (
            (difference * self._gradients()).sum(dim=-1).cpu().numpy()
        )
        return estimate

    def _patching(self, patches: Sequence[Patch], layer: int) -> Change:
        """Run i of the batch gets the i-th patch, if it is of this layer."""

        def change(out: Tensor) -> Tensor:
            out = out.clone()  # (n, j, e)
            for run, patch in enumerate(patches):
                if patch.layer == layer:
                    tokens = list(patch.tokens)
                    out[run, tokens] = self.states[0, layer, tokens]
            return out

        return change

    def _gradients(self) -> Tensor:
        """Of the margin, by every state, averaged over both runs: (layers, j, e)."""
        first, *others = states(tower_of(self.encoder))[:-1]
        stream: list[Tensor] = []

        def leaf(out: Tensor) -> Tensor:
            return seen(out.detach().requires_grad_())

        def seen(out: Tensor) -> Tensor:
            stream.append(out)
            return out

        encode = self.encoder.model.encode_image
        pixels = self.pixels.to(self.states.device)
        with torch.enable_grad(), replaced({first: leaf} | dict.fromkeys(others, seen)):
            z = encode(pixels, normalize=True)  # type: ignore[operator]  # (2, d)
            # The margin's gradient at z is its direction there: with u held, this is exact.
            u = torch.from_numpy(self._directions(z.detach().cpu().numpy())).to(z)
            gradients = torch.autograd.grad((z * u).sum(), stream)  # (2, j, e) per layer
        return torch.stack(gradients).mean(dim=1)

    def _directions(self, z: FloatArray) -> FloatArray:
        """Of both runs, once their margins are known to be the served ones: (2, d) -> (2, d)."""
        for margin, served in zip(self.vectors.margins(z), self.margins, strict=True):
            check("margin of the run with gradients", float(margin), served)
        return np.stack([self.vectors.direction(row) for row in z])


def trace(
    encoder: "Encoder",
    vectors: ClassVectors,
    clean: Tensor,
    corrupted: Tensor,
    verify: int | None = VERIFIED,
) -> Trace:
    """Trace one decision between two images (3, h, w), the second without what it is about.

    The `verify` largest estimates are patched in truth; all of them for None. Raises NotExplainable
    for a tower that cannot be read, and when the runs are not those that were served: the margins
    within 1e-4, and so for the margin once every token is patched.
    """
    tracing = Tracing.of(encoder, vectors, clean, corrupted)
    estimated = tracing.estimated()  # (layers, j)
    layers, tokens = estimated.shape
    order = np.argsort(-np.abs(estimated), axis=None, kind="stable")[:verify].tolist()
    top = [divmod(i, tokens) for i in order]
    changed = _changed(tracing.states[:, 0])
    everything = Patch(layers - 1, tuple(range(tokens)))
    whole, *restored = tracing.restored(
        [everything]
        + [Patch(layer, tuple(1 + p for p in changed)) for layer in range(layers)]
        + [Patch(layer, (token,)) for layer, token in top]
    )
    check("margin with every token patched", tracing.margins[1] + whole, tracing.margins[0])
    verified = tuple(
        TracedPatch(layer=n, place=t - 1 if t else None, estimated=estimated[n, t], restored=r)
        for (n, t), r in zip(top, restored[layers:], strict=True)
    )
    return Trace(
        clean=tracing.margins[0],
        corrupted=tracing.margins[1],
        grid=tower_of(encoder).grid_size,
        places=tuple(map(tuple, estimated[:, 1:].tolist())),
        class_token=tuple(estimated[:, 0].tolist()),
        changed=changed,
        together=tuple(restored[:layers]),
        verified=verified,
        rank_correlation=_rank_correlation(verified),
    )


def _changed(first: Tensor) -> tuple[int, ...]:
    """Places whose states differ before any layer mixed them: (2, j, e) -> indices."""
    different = (first[0] != first[1]).any(dim=-1)[1:]  # (p,)
    return tuple(different.nonzero()[:, 0].tolist())


def _rank_correlation(traced: Sequence[TracedPatch]) -> float | None:
    """Spearman's, None when either side has fewer than two ranks."""
    sides = [[t.estimated for t in traced], [t.restored for t in traced]]
    if min(len(set(side)) for side in sides) < 2:
        return None
    return float(spearmanr(*sides).statistic)
