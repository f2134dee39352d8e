"""Reads and replaces the residual stream of a vision transformer in a forward pass.

The score is `u . z`, with `u` the margin's gradient at the embedding that was served. From the
class token's last state to the score everything is affine once the final norm's deviation and the
embedding's length are held constant, so what was added to the stream has its share of the score.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from filter_service.errors import NotExplainable
from filter_service.explain.activations import ActivationTape, Reading
from filter_service.explain.attention import AttentionSite, pull_back
from filter_service.explain.relevance import TOLERANCE
from filter_service.explain.towers import Decomposition, Tower
from filter_service.scoring import ClassVectors

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

CHUNK = 64  # altered runs in one forward pass

Change = Callable[[Tensor], Tensor]  # a module's output -> what takes its place


@dataclass(frozen=True, slots=True)
class Pass:
    """One float32 forward of one image, ready to be read along the margin's direction."""

    tower: Tower
    margin: float  # logits, as served
    score: float  # logits, u . z as served
    sites: list[AttentionSite]  # one per block
    start: Tensor  # (e,): the class token before the first block
    hidden: list[Tensor]  # (m,) per block: hidden units of the MLP at the class token
    hidden_mean: list[Tensor]  # (m,) per block: the same units, averaged over all tokens
    gradient: Tensor  # (1, 1, e): of the score, by the class token's last state
    end: float  # logits: the final norm's bias

    @classmethod
    def of(cls, encoder: "Encoder", vectors: ClassVectors, pixels: Tensor) -> "Pass":
        """Encode one image (3, h, w) and read it; raises NotExplainable as `tower_of` does."""
        tower, reader = tower_of(encoder), Decomposition()
        watched = reader.watch(tower) | {tower.ln_pre: lambda _, out: out[:, 0]}
        for module in hidden(tower):
            watched[module] = lambda _, out: torch.stack([out[:, 0], out.mean(dim=1)], dim=1)
        with ActivationTape(watched) as tape:
            z = encoder.encode(pixels[None])[0]  # (d,)
        activations = tape.activations()
        reading = reader.read(tower, activations)
        direction = vectors.direction(z)  # (d,)
        score = float(direction.astype("float64") @ z)
        gradient, end = _affine(tower, reading, torch.from_numpy(direction), score)
        units = [activations[module][0] for module in hidden(tower)]  # (2, m) each
        return cls(
            tower=tower,
            margin=float(vectors.margins(z[None])[0]),
            score=score,
            sites=[site for site in reading.sites if isinstance(site, AttentionSite)],
            start=activations[tower.ln_pre][0],
            hidden=[u[0] for u in units],
            hidden_mean=[u[1] for u in units],
            gradient=gradient,
            end=end,
        )

    def worth(self, layer: int) -> Tensor:
        """What one unit of each hidden neuron of a block adds to the score: (m,) logits."""
        block = self.tower.transformer.resblocks[layer]
        weight: Tensor = block.mlp[2].weight.detach()  # (e, m)
        return self._after_mlp(block) @ weight.double()

    def mlp_bias(self, layer: int) -> float:
        """What the bias of a block's MLP adds to the score."""
        block = self.tower.transformer.resblocks[layer]
        bias = block.mlp[2].bias
        return 0.0 if bias is None else float(self._after_mlp(block) @ bias.detach().double())

    def _after_mlp(self, block: Any) -> Tensor:  # noqa: ANN401  (a block carries no types)
        """The score's gradient by the MLP's output, before LayerScale: (e,)."""
        gain = block.ls_2.gamma.detach() if hasattr(block.ls_2, "gamma") else 1.0
        return (self.gradient[0, 0] * gain).double()


def _affine(tower: Tower, reading: Reading, u: Tensor, served: float) -> tuple[Tensor, float]:
    """The score's gradient by the last state (1, 1, e), and what the final norm's bias adds."""
    u = u.to(reading.pooled)
    scores, gradient = pull_back(reading.tail, reading.pooled, u[None, None])
    check("score read from the last state", float(scores), served)
    with torch.no_grad():
        length = reading.tail(reading.pooled).norm()
        return gradient, float((tower.ln_post.bias @ tower.proj) @ u / length)


def tower_of(encoder: "Encoder") -> Tower:
    """The image tower; raises NotExplainable unless it pools the class token of plain blocks."""
    tower: Any = encoder.model.visual
    if not (Decomposition().supports(tower) and tower.transformer.batch_first):
        raise NotExplainable(
            f"The inside of the image tower {_architecture(tower)} cannot be read: layers and "
            "neurons are known for open_clip's VisionTransformer of ResidualAttentionBlock with "
            "class-token pooling."
        )
    return tower


def states(tower: Tower) -> list[nn.Module]:
    """Whose outputs are the stream (n, j, e): before the first block, and after every block."""
    return [tower.ln_pre, *tower.transformer.resblocks]


def hidden(tower: Tower) -> list[nn.Module]:
    """Whose outputs are the hidden units (n, j, m) of every block's MLP, after the activation."""
    return [block.mlp[1] for block in tower.transformer.resblocks]


@contextmanager
def replaced(changes: Mapping[nn.Module, Change]) -> Iterator[None]:
    """Forward passes inside see other outputs of these modules; nothing stays, whatever happens.

    Only in the thread that asks for it: an encoder is shared, and others are being served.
    """
    owner = threading.get_ident()

    def hook(change: Change) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        return lambda _, __, out: change(out) if threading.get_ident() == owner else out

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for module, change in changes.items():
            handles.append(module.register_forward_hook(hook(change)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def check(what: str, value: float, served: float) -> None:
    """Raises NotExplainable when an account of the decision is not of the one that was served."""
    if not abs(value - served) <= TOLERANCE:
        raise NotExplainable(
            f"The {what} is {abs(value - served):.2e} logits away from the one served; "
            f"only {TOLERANCE:g} is allowed, so it is not given."
        )


def _architecture(tower: Tower) -> str:
    """The tower's class with what sets it apart from others of that name."""
    name = type(tower).__name__
    if trunk := getattr(tower, "trunk", None):
        return f"{name} around {type(trunk).__name__}"
    if getattr(tower, "attn_pool", None) is not None:
        return f"{name} with {type(tower.attn_pool).__name__}"
    if not hasattr(tower, "transformer"):
        return name
    block = type(tower.transformer.resblocks[0]).__name__
    return f"{name} of {block} with pool_type={tower.pool_type!r}"
