"""Direct contributions of every layer and head to the margin, which sum exactly.

After Gandelsman et al., "Interpreting CLIP's Image Representation via Text-Based Decomposition"
(ICLR 2024): the class token's last state is the sum of what every attention head and MLP wrote
into it, and its way to the score is affine once the final norm's deviation is held constant.
"""

from typing import TYPE_CHECKING

from pydantic import BaseModel
from torch import Tensor

from filter_service.explain.attention import AttentionSite
from filter_service.explain.study.inside.residual_stream import Pass, check
from filter_service.scoring import ClassVectors

if TYPE_CHECKING:
    from filter_service.encoder import Encoder


class Contributions(BaseModel, frozen=True, extra="forbid"):
    """Who added what to the margin, in logits; `total` is the margin."""

    heads: tuple[tuple[float, ...], ...]  # layers x heads, without biases
    mlps: tuple[float, ...]  # per layer, without the bias of the MLP's output
    biases: tuple[float, ...]  # per layer: of values, of both outputs; the same for every image
    start: float  # the class token before the first layer, the same for every image
    end: float  # the final norm's bias
    constant: float  # margin less score: the margin is not linear in the embedding
    margin: float  # as served

    @property
    def layers(self) -> tuple[float, ...]:
        """All that each layer added."""
        parts = zip(self.heads, self.mlps, self.biases, strict=True)
        return tuple(sum(heads) + mlp + bias for heads, mlp, bias in parts)

    @property
    def total(self) -> float:
        return self.start + sum(self.layers) + self.end + self.constant


def contributions(encoder: "Encoder", vectors: ClassVectors, pixels: Tensor) -> Contributions:
    """The account of one image (3, h, w).

    Raises NotExplainable for a tower that cannot be read, and when the parts do not add up to the
    margin served within 1e-4.
    """
    seen = Pass.of(encoder, vectors, pixels)
    layers = range(len(seen.sites))
    result = Contributions(
        heads=tuple(_heads(site, seen.gradient) for site in seen.sites),
        mlps=tuple(float(seen.hidden[n].double() @ seen.worth(n)) for n in layers),
        biases=tuple(
            float(site.bias(seen.gradient)) + seen.mlp_bias(n) for n, site in enumerate(seen.sites)
        ),
        start=float(seen.gradient[0, 0].double() @ seen.start.double()),
        end=seen.end,
        constant=seen.margin - seen.score,
        margin=seen.margin,
    )
    check("sum of all contributions", result.total, seen.margin)
    return result


def _heads(site: AttentionSite, gradient: Tensor) -> tuple[float, ...]:
    """What each head wrote into the class token along the gradient (1, 1, e)."""
    by_token = site.worth(gradient)[0, 0] * site.row()[0]  # (h, j)
    return tuple(by_token.double().sum(dim=-1).tolist())
