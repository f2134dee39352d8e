"""The logit lens: the margin after every layer, as if the model had stopped there.

After nostalgebraist, "interpreting GPT: the logit lens" (2020): an intermediate state is read
with the model's own final norm and projection. Early states were not made for that, so an early
margin tells when the answer becomes readable, not what the model knew.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor

from filter_service.explain.activations import ActivationTape, Keep
from filter_service.explain.study.inside.residual_stream import check, states, tower_of
from filter_service.scoring import ClassVectors

if TYPE_CHECKING:
    from filter_service.encoder import Encoder


class Lens(BaseModel, frozen=True, extra="forbid"):
    """Margins in logits, read off the class token."""

    margins: tuple[float, ...]  # before the first layer, then after every layer
    served: float  # the margin served, equal to the last


def lens(encoder: "Encoder", vectors: ClassVectors, pixels: Tensor) -> Lens:
    """Read one image (3, h, w) after every layer.

    Raises NotExplainable for a tower that cannot be read, and when the last layer's margin is not
    the served one within 1e-4.
    """
    tower = tower_of(encoder)
    keep: Keep = lambda _, out: out[:, 0]  # noqa: E731  (one function for all modules)
    with ActivationTape(dict.fromkeys(states(tower), keep)) as tape:
        z = encoder.encode(pixels[None])  # (1, d)
    stream = torch.cat(list(tape.activations().values()))  # (1 + layers, e)
    with torch.no_grad():
        embeddings = F.normalize(tower.ln_post(stream) @ tower.proj, dim=-1)  # (1 + layers, d)
    margins = vectors.margins(embeddings.cpu().numpy()).tolist()
    served = float(vectors.margins(z)[0])
    check("margin after the last layer", margins[-1], served)
    return Lens(margins=tuple(margins), served=served)
