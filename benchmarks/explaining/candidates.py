"""Candidate methods for the default relevance map, their rivals, and model-free baselines."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from benchmarks.explaining.trials import Array, Pair, Trials
from benchmarks.explaining.unoffered import EVERY
from filter_service.encoder import Encoder
from filter_service.explain.relevance_rules import Kernel, alike, evenly
from filter_service.explain.study.methods import ByMasking, Method, OnePass
from filter_service.explain.study.perturbation import MaskedAnswers
from filter_service.scoring import FloatArray

BATCH = 32  # images whose maps are made together
MASKED = 256  # masked images behind each regression
AGAINST = (1.0, 0.3, 0.2, 0.1, 0.0)
LAST = (None, 4, 2, 1)

RIVALS = (
    "chefer",
    "grad-eclip",
    "legrad",
    "maskclip",
    "ig-black",
    "ig-mean-colour",
    "ig-blur",
    "ig-another-picture",
    "raw-attention",
)
"""What the default is to beat."""


def kernel_name(last: int | None, against: float) -> str:
    layers = "all layers" if last is None else f"last {last}"
    return f"decomposition, {layers}, against x {against:g}"


def cheap() -> dict[str, Method]:
    """Maps of one forward pass, among which the default is chosen."""
    found: dict[str, Method] = {
        kernel_name(last, against): OnePass(Kernel("kernel", last, against=against))
        for last in LAST
        for against in AGAINST
    }
    found["attention gradient, last layer, positive"] = OnePass(Kernel("", 1, evenly, 0.0))
    found["attention gradient, all layers, positive"] = OnePass(Kernel("", None, evenly, 0.0))
    found["query-key kernel, last layer, positive"] = OnePass(Kernel("", 1, alike, 0.0))
    found["query-key kernel, all layers"] = OnePass(Kernel("", None, alike))
    for name in ("attention-gradient", "grad-eclip", "maskclip", "raw-attention"):
        found[name] = EVERY[name]
    return found


def damped() -> dict[str, Method]:
    """Those of all layers, from which the default was chosen."""
    names = {kernel_name(None, against) for against in AGAINST}
    return {name: method for name, method in cheap().items() if name in names}


def costly() -> dict[str, Method]:
    """Maps that need more, for the audit and as rivals."""
    known: dict[bytes, MaskedAnswers] = {}
    found: dict[str, Method] = {}
    for name, method in EVERY.items():
        if isinstance(method, ByMasking):
            found[name] = Remembering(method.name, method.values, MASKED, known)
        elif not isinstance(method, OnePass):
            found[name] = method
    return found


@dataclass(frozen=True)
class Remembering(ByMasking):
    """Masks an image once for all the regressions."""

    known: dict[bytes, MaskedAnswers] = field(default_factory=dict)

    def answers(self, encoder: Encoder, x: Tensor, grid: tuple[int, int]) -> MaskedAnswers:
        key = x.numpy().tobytes()
        if key not in self.known:
            self.known[key] = super().answers(encoder, x, grid)
        return self.known[key]


def baselines(encoder: Encoder, trials: Trials, grid: tuple[int, int]) -> dict[str, Array]:
    """Maps that know nothing of the model: (pairs, h, w) each."""
    rng = np.random.default_rng(0)
    h, w = grid
    y, x = np.mgrid[:h, :w]
    middle = -np.hypot(y - (h - 1) / 2, x - (w - 1) / 2)
    grey = trials.pixels.mean(dim=1).numpy()  # (n, h, w)
    edges = [np.hypot(*np.gradient(picture)) for picture in grey]
    small = [np.asarray(Image.fromarray(e).resize((w, h), Image.Resampling.BOX)) for e in edges]
    return {
        "random": rng.normal(size=(len(trials.pairs), h, w)),
        "centre": np.repeat(middle[None], len(trials.pairs), axis=0),
        "edges": np.stack([small[p.image] for p in trials.pairs]).astype(np.float64),
    }


def maps(encoder: Encoder, method: Method, trials: Trials) -> Array:
    """The map of every pair, in their order: (pairs, h, w)."""
    grids: dict[int, FloatArray] = {}
    for together in _alike(trials.pairs):
        for start in range(0, len(together), BATCH):
            part = together[start : start + BATCH]
            u = np.stack([[trials.pairs[i].direction for i in rows] for rows in part])  # (n, c, d)
            x = trials.pixels[[trials.pairs[rows[0]].image for rows in part]]  # (n, 3, h, w)
            for rows, found in zip(part, method(encoder, x, u), strict=True):
                grids.update(zip(rows, found.grid, strict=True))
    return np.stack([grids[i] for i in range(len(trials.pairs))]).astype(np.float64)


def _alike(pairs: Iterable[Pair]) -> list[list[list[int]]]:
    """Rows of each image's pairs, images with equally many together."""
    by_image: dict[int, list[int]] = {}
    for row, pair in enumerate(pairs):
        by_image.setdefault(pair.image, []).append(row)
    counts = sorted({len(rows) for rows in by_image.values()})
    return [[rows for rows in by_image.values() if len(rows) == c] for c in counts]
