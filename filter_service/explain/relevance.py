"""Relevance maps: signed logits of each place that add up, with a remainder, to the score.

One float32 forward gives the embedding and the activations; when the embedding is known, so are
the margin's directions, and the maps of all classes follow by linear algebra. How a tower is read
is the business of `towers.py`; what is exact for all of them is here, and every map is checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from filter_service.errors import NotExplainable
from filter_service.explain.activations import ActivationTape, Explainer, Reading
from filter_service.explain.attention import pull_back
from filter_service.explain.relevance_rules import DEFAULT, RelevanceRule
from filter_service.explain.towers import EXPLAINERS, missing
from filter_service.scoring import FloatArray

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

TOLERANCE = 1e-4  # logits: a map further than this from the served score is refused
HIGH_NORM = 5.0  # times the median: tokens above it are scratch space of the model, not places


@dataclass(frozen=True, slots=True)
class RelevanceMap:
    """Where the score `u . z` of each direction comes from; grid and remainder add up to it."""

    grid: FloatArray  # (c, h, w) logits, signed
    remainder: FloatArray  # (c,) logits: MLPs, class token, biases, high-norm tokens
    explained: FloatArray  # (c,) logits: u . z as the captured activations give it
    high_norm: int  # tokens whose share went into the remainder
    method: str


@dataclass(frozen=True, slots=True)
class Capture:
    """The embeddings of one float32 forward, and what explains any direction of them."""

    z: FloatArray  # (n, d) unit, as served
    method: str | None
    reading: Reading | None
    refusal: str = ""

    def maps(
        self, rows: Sequence[int], directions: FloatArray, rule: RelevanceRule = DEFAULT
    ) -> list[RelevanceMap]:
        """One map per row for directions (len(rows), c, d); a row may occur more than once.

        Raises NotExplainable when the tower has no map, or when the map does not give the served
        score within 1e-4.
        """
        if self.reading is None or self.method is None:
            raise NotExplainable(self.refusal)
        reading = self.reading.take(rows)
        u = torch.from_numpy(directions).to(reading.pooled)  # (n, c, d)
        scores, g = pull_back(reading.tail, reading.pooled, u)  # (n, c), (n, c, e)
        served = np.einsum("ncd,nd->nc", directions.astype(np.float64), self.z[list(rows)])
        _check(rule.name, "explains a score", scores.cpu().numpy() - served)
        shared = rule.shares(reading, g, u)
        if shared.error is not None:
            _check(rule.name, "adds up to a score", shared.error.cpu().numpy())
        method = f"{self.method}, {rule.name}" if rule is DEFAULT else rule.name
        high = _high_norm(reading)  # (n, p)
        grid = shared.tokens[..., reading.prefix :] * ~high[:, None]  # (n, c, p)
        remainder = scores.double() - grid.sum(dim=-1)  # (n, c)
        grids = grid.reshape(*u.shape[:2], *reading.grid).float().cpu().numpy()  # (n, c, h, w)
        return [
            RelevanceMap(*parts, method)
            for parts in zip(
                grids,
                remainder.float().cpu().numpy(),
                scores.cpu().numpy(),
                high.sum(dim=1).tolist(),
                strict=True,
            )
        ]


def capture(encoder: "Encoder", pixels: Tensor) -> Capture:
    """One float32 forward of (n, 3, h, w) pixels: the served embeddings, ready to be explained.

    A tower without a map is encoded all the same; only asking for its maps raises.
    """
    tower: Any = encoder.model.visual
    explainer = find_explainer(tower)
    if explainer is None:
        return Capture(encoder.encode(pixels), None, None, refusal(tower))
    with ActivationTape(explainer.watch(tower)) as tape:
        z = encoder.encode(pixels)
    return Capture(z, explainer.method, explainer.read(tower, tape.activations()))


def read_one(encoder: "Encoder", pixels: Tensor) -> Reading:
    """What the tower makes of the first image: for its places; raises NotExplainable."""
    seen = capture(encoder, pixels[:1])
    if seen.reading is None:
        raise NotExplainable(seen.refusal)
    return seen.reading


def checked_scores(
    method: str, encoder: "Encoder", pixels: Tensor, directions: FloatArray, z: FloatArray
) -> npt.NDArray[np.float64]:
    """Scores (n, c) of the embeddings that a method explained, if they are those that are served.

    Raises NotExplainable where they differ by more than 1e-4.
    """
    u = directions.astype(np.float64)  # (n, c, d)
    scores = np.einsum("ncd,nd->nc", u, z)
    _check(method, "explains a score", scores - np.einsum("ncd,nd->nc", u, encoder.encode(pixels)))
    return np.asarray(scores)


def explainer_of(encoder: "Encoder") -> Explainer:
    """How this encoder's maps are made; raises NotExplainable."""
    tower: Any = encoder.model.visual
    explainer = find_explainer(tower)
    if explainer is None:
        raise NotExplainable(refusal(tower))
    return explainer


def find_explainer(tower: nn.Module) -> Explainer | None:
    """The first method that can read this tower exactly."""
    return next((e for e in EXPLAINERS if e.supports(tower)), None)


def refusal(tower: nn.Module) -> str:
    """Why there is no map: the architecture, and what is missing."""
    trunk = getattr(tower, "trunk", None)
    inner = f" around {type(trunk).__name__}" if trunk is not None else ""
    return (
        f"No exact relevance map is known for the image tower {type(tower).__name__}{inner}; "
        f"what is missing: {missing(tower)}. docs/architectures.md lists the models that have one."
    )


def _high_norm(reading: Reading) -> Tensor:
    """Which places hold tokens of very high norm: (n, p) bool."""
    if reading.norms is None:
        h, w = reading.grid
        return torch.zeros(
            len(reading.pooled), h * w, dtype=torch.bool, device=reading.pooled.device
        )
    norms = reading.norms[:, reading.prefix :]  # (n, p)
    return norms > HIGH_NORM * norms.median(dim=1, keepdim=True).values


def _check(rule: str, what: str, errors: npt.NDArray[np.floating]) -> None:
    error = float(np.abs(errors).max(initial=0.0))
    if not error <= TOLERANCE:
        raise NotExplainable(
            f"The map by {rule} {what} {error:.2e} logits away from the one served; "
            f"only {TOLERANCE:g} is allowed, so no map is given."
        )
