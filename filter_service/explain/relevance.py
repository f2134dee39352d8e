"""Which pixels: maps of signed logits that add up, with a remainder, to the score that was served.

One float32 forward gives the embedding and the activations; when the embedding is known, so are
the margin's directions, and the maps of all classes follow by linear algebra. How a tower is read
is the business of `towers.py`; what is exact for all of them is here, and every map is checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from filter_service.errors import NotExplainable
from filter_service.explain.attention import Site, Tail, pull_back
from filter_service.scoring import FloatArray

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

TOLERANCE = 1e-4  # logits: a map further than this from the served score is refused
HIGH_NORM = 5.0  # times the median: tokens above it are scratch space of the model, not places

_Logits = npt.NDArray[np.floating]
Keep = Callable[[tuple[Any, ...], Any], Tensor]  # (arguments, output) of a module -> what to keep


@dataclass(frozen=True, slots=True)
class RelevanceMap:
    """Where the score `u . z` of each direction comes from; grid and remainder add up to it."""

    grid: FloatArray  # (c, h, w) logits, signed
    remainder: FloatArray  # (c,) logits: MLPs, class token, biases, high-norm tokens
    explained: FloatArray  # (c,) logits: u . z as the captured activations give it
    high_norm: int  # tokens whose share went into the remainder
    method: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tower's activations mean: the sites that wrote into the pooled token, and its tail."""

    sites: Sequence[Site]
    pooled: Tensor  # (n, e): the stream at the pooled token, or the pooling's output
    tail: Tail  # from there to the embedding before normalisation
    prefix: int  # tokens before the first place (class token, mean token)
    grid: tuple[int, int]  # height and width in places
    norms: Tensor | None = None  # (n, j): token norms at the last block's input


class Explainer(Protocol):
    """One way to read a kind of image tower; a new one joins `towers.EXPLAINERS`."""

    method: str

    def supports(self, tower: nn.Module) -> bool:
        """Whether a map of this tower would be exact."""

    def watch(self, tower: nn.Module) -> dict[nn.Module, Keep]:
        """Which modules to listen to in the forward pass, and what to keep of each."""

    def read(self, tower: nn.Module, kept: dict[nn.Module, Tensor]) -> Reading:
        """Make sense of what was kept."""


class Tape:
    """Forward hooks that keep activations; they come off also when the forward raises."""

    def __init__(self, watched: dict[nn.Module, Keep]) -> None:
        self._watched = watched
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._kept: dict[nn.Module, list[Tensor]] = {module: [] for module in watched}

    def __enter__(self) -> Self:
        for module, keep in self._watched.items():
            self._handles.append(module.register_forward_hook(self._listener(keep)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _listener(self, keep: Keep) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def listen(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            self._kept[module].append(keep(arguments, output).detach().float())

        return listen

    def kept(self) -> dict[nn.Module, Tensor]:
        """What was kept of each module, over all batches of the pass."""
        return {module: torch.cat(parts) for module, parts in self._kept.items()}


@dataclass(frozen=True, slots=True)
class Capture:
    """The embeddings of one float32 forward, and what explains any direction of them."""

    z: FloatArray  # (n, d) unit, as served
    method: str | None
    reading: Reading | None
    refusal: str = ""

    def maps(self, rows: Sequence[int], directions: FloatArray) -> list[RelevanceMap]:
        """One map per row for directions (len(rows), c, d); a row may occur more than once.

        Raises NotExplainable when the tower has no map, or when the map does not give the served
        score within 1e-4.
        """
        if self.reading is None or self.method is None:
            raise NotExplainable(self.refusal)
        index = list(rows)
        u = torch.from_numpy(directions).to(self.reading.pooled)
        grids, remainders, scores = _decompose(self.reading, index, u)
        served = np.einsum("ncd,nd->nc", directions.astype(np.float64), self.z[index])  # (n, c)
        _check(self.method, served, scores, grids.sum(axis=(2, 3)) + remainders)
        high = _high_norm(self.reading, index).sum(dim=1).tolist()
        return [
            RelevanceMap(
                g.astype(np.float32), r.astype(np.float32), s.astype(np.float32), h, self.method
            )
            for g, r, s, h in zip(grids, remainders, scores, high, strict=True)
        ]


def capture(encoder: "Encoder", pixels: Tensor) -> Capture:
    """One float32 forward of (n, 3, h, w) pixels: the served embeddings, ready to be explained.

    A tower without a map is encoded all the same; only asking for its maps raises.
    """
    tower: Any = encoder.model.visual
    explainer = find_explainer(tower)
    if explainer is None:
        return Capture(encoder.encode(pixels), None, None, refusal(tower))
    with Tape(explainer.watch(tower)) as tape:
        z = encoder.encode(pixels)
    return Capture(z, explainer.method, explainer.read(tower, tape.kept()))


def relevance(
    encoder: "Encoder", pixels: Tensor, directions: FloatArray
) -> tuple[FloatArray, list[RelevanceMap]]:
    """Embeddings (n, d) of (n, 3, h, w) pixels, and their maps for known directions (n, c, d)."""
    seen = capture(encoder, pixels)
    return seen.z, seen.maps(range(len(seen.z)), directions)


def find_explainer(tower: nn.Module) -> Explainer | None:
    """The first method that can read this tower exactly."""
    # towers.py builds on the contract above; the registry is looked up when it is needed.
    from filter_service.explain.towers import EXPLAINERS

    return next((e for e in EXPLAINERS if e.supports(tower)), None)


def refusal(tower: nn.Module) -> str:
    """Why there is no map, naming the architecture."""
    trunk = getattr(tower, "trunk", None)
    inner = f" around {type(trunk).__name__}" if trunk is not None else ""
    return (
        f"No exact relevance map is known for the image tower {type(tower).__name__}{inner}; "
        "its scores are served without a map."
    )


def _decompose(
    reading: Reading, rows: list[int], u: Tensor
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Directions (n, c, d) -> grids (n, c, h, w), remainders (n, c), scores (n, c)."""
    scores, g = pull_back(reading.tail, reading.pooled[rows], u)  # (n, c), (n, c, e)
    remainder = scores.double()  # (n, c)
    shares = torch.zeros((), dtype=torch.float64, device=u.device)
    for site in (s.take(rows) for s in reading.sites):
        # The model's own output leaves the remainder, our account of it enters: equal, or refused.
        remainder = remainder - site.total(g).double() + site.bias(g).double()
        shares = shares + site.shares(g).double()  # (n, c, j)
    outside, places = shares[..., : reading.prefix], shares[..., reading.prefix :]
    noisy = _high_norm(reading, rows)[:, None]  # (n, 1, p)
    remainder = remainder + outside.sum(-1) + (places * noisy).sum(-1)
    grid = (places * ~noisy).reshape(*u.shape[:2], *reading.grid)  # (n, c, h, w)
    return grid.cpu().numpy(), remainder.cpu().numpy(), scores.double().cpu().numpy()


def _high_norm(reading: Reading, rows: list[int]) -> Tensor:
    """Which places hold tokens of very high norm: (n, p) bool."""
    if reading.norms is None:
        h, w = reading.grid
        return torch.zeros(len(rows), h * w, dtype=torch.bool, device=reading.pooled.device)
    norms = reading.norms[rows][:, reading.prefix :]  # (n, p)
    return norms > HIGH_NORM * norms.median(dim=1, keepdim=True).values


def _check(method: str, served: _Logits, scores: _Logits, sums: _Logits) -> None:
    for name, value in (("explains a score", scores), ("adds up to a score", sums)):
        error = float(np.abs(value - served).max(initial=0.0))
        if not error <= TOLERANCE:
            raise NotExplainable(
                f"The map by {method} {name} {error:.2e} logits away from the one served; "
                f"only {TOLERANCE:g} is allowed, so no map is given."
            )
