"""Shapley values of a prompt's words, folded once into vectors: a dot product per image.

The logit of a prompt is linear in the image vector. So the value of every sub-prompt is folded,
once per prompt, into one vector per word; an image's Shapley values are products with these.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from filter_service.scoring import EncodeTexts, FloatArray, ensemble
from filter_service.verdicts.explanation import PromptWords, Word

EXACT_UP_TO = 10  # units; 2 ** 10 sub-prompts
PERMUTATIONS = 128  # of a longer prompt
SUBSTITUTE = "thing"
TEMPLATE = "template"

Subset = frozenset[int]


@dataclass(frozen=True, slots=True)
class WordVectors:
    """A prompt folded: the Shapley value of unit i for image z is scale * z . mean(samples)[i]."""

    prompt: str
    units: tuple[str, ...]
    deleted: FloatArray  # (samples, n, d): one sample when exact
    substituted: FloatArray  # (samples, n, d)
    left_out: FloatArray  # (n, d): full prompt minus the prompt without the unit
    full: FloatArray  # (d,)
    empty: FloatArray  # (d,)

    @property
    def folded(self) -> FloatArray:
        """One direction for each unit, (n, d): its Shapley value is scale * z . folded[i]."""
        return np.asarray(self.deleted.mean(axis=0))

    def values(
        self, z: FloatArray, scale: float, weight: float, grids: FloatArray | None = None
    ) -> PromptWords:
        """Shapley values for one unit image vector, in logits; `grids` (n, h, w) by place."""
        deleted, substituted = scale * (self.deleted @ z), scale * (self.substituted @ z)  # (s, n)
        error = _standard_error(deleted)  # (n,)
        out = scale * (self.left_out @ z)  # (n,)
        return PromptWords(
            prompt=self.prompt,
            weight=weight,
            logit=scale * float(self.full @ z),
            empty=scale * float(self.empty @ z),
            words=tuple(
                Word(
                    word=unit,
                    shapley=float(deleted[:, i].mean()),
                    standard_error=float(error[i]),
                    substituted=float(substituted[:, i].mean()),
                    leave_one_out=float(out[i]),
                    grid=None if grids is None else grids[i].astype(np.float16),
                )
                for i, unit in enumerate(self.units)
            ),
        )


class Words:
    """Word vectors of one encoder's prompts, each folded once."""

    def __init__(self, encode_texts: EncodeTexts) -> None:
        self._encode = encode_texts
        self.vectors = lru_cache(512)(self._vectors)

    def _vectors(self, prompt: str, templates: tuple[str, ...]) -> WordVectors:
        words = prompt.split()
        framed = templates != ("{}",)
        units = ([TEMPLATE] if framed else []) + words
        game = _Game(self._encode, words, templates, framed)
        n = len(units)
        orders = _orders(n)
        everything = frozenset(range(n))
        deleted, substituted = game.vectors(""), game.vectors(SUBSTITUTE)
        full = deleted([everything])[0]
        without = deleted([everything - {i} for i in range(n)])  # (n, d)
        return WordVectors(
            prompt=prompt,
            units=tuple(units),
            deleted=_fold(n, orders, deleted),
            substituted=_fold(n, orders, substituted),
            left_out=full - without,
            full=full,
            empty=deleted([frozenset()])[0],
        )


@dataclass(frozen=True)
class _Game:
    """Sub-prompts as sets of units; the template, when there is one, is unit 0."""

    encode: EncodeTexts
    words: Sequence[str]
    templates: tuple[str, ...]
    framed: bool

    def vectors(self, filler: str) -> "_Coalitions":
        return _Coalitions(self, filler)


@dataclass(frozen=True)
class _Coalitions:
    game: _Game
    filler: str  # stands for a word that is absent; empty deletes it

    def __call__(self, subsets: Sequence[Subset]) -> FloatArray:
        """Unit vectors of sub-prompts: (len(subsets), d)."""
        return np.concatenate([self._vector(s) for s in subsets])

    def _vector(self, subset: Subset) -> FloatArray:
        g, first = self.game, int(self.game.framed)
        chosen = [w if i + first in subset else self.filler for i, w in enumerate(g.words)]
        content = " ".join(w for w in chosen if w)
        templates = g.templates if not g.framed or 0 in subset else ("{}",)
        texts = tuple(t.replace("{}", content).strip() for t in templates)
        return ensemble([""], [t + "{}" for t in texts], g.encode)  # (1, d)


def _orders(n: int) -> list[tuple[int, ...]] | None:
    """None when all subsets are few enough to be exact, else random orders of the units."""
    if n <= EXACT_UP_TO:
        return None
    rng = np.random.default_rng(0)
    return [tuple(int(i) for i in rng.permutation(n)) for _ in range(PERMUTATIONS)]


def _fold(n: int, orders: list[tuple[int, ...]] | None, vectors: _Coalitions) -> FloatArray:
    """Shapley (1953): the mean, over all orders, of what a unit adds to those before it."""
    if orders is None:
        return _exact(n, vectors)[None]
    samples = []
    for order in orders:
        chain = vectors([frozenset(order[:k]) for k in range(n + 1)])  # (n + 1, d)
        steps = np.empty_like(chain[1:])
        steps[list(order)] = chain[1:] - chain[:-1]
        samples.append(steps)
    return np.stack(samples)  # (samples, n, d)


def _exact(n: int, vectors: _Coalitions) -> FloatArray:
    units = range(n)
    subsets = [frozenset(s) for k in range(n + 1) for s in itertools.combinations(units, k)]
    value = dict(zip(subsets, vectors(subsets).astype(np.float64), strict=True))
    phi = [
        sum(
            math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n)
            * (value[s | {i}] - value[s])
            for s in subsets
            if i not in s
        )
        for i in units
    ]  # fmt: skip
    return np.asarray(phi, dtype=np.float32)  # (n, d)


def _standard_error(samples: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    if len(samples) == 1:
        return np.zeros(samples.shape[1])
    return np.asarray(samples.std(axis=0, ddof=1) / math.sqrt(len(samples)))
