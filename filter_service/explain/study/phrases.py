"""Explains the difference between an image and its counterfactual by three to five phrases.

The difference of the two vectors is projected onto a few phrases of the bank, chosen one after
another so that the projection accounts for the difference of the margins. The weights are those of
the plain projection: none is stretched to fit the margin, and what is left over is said.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from filter_service.explain.counterfactual import Memory
from filter_service.explain.question import Question
from filter_service.scoring import FloatArray
from filter_service.verdicts import Verdict
from filter_service.verdicts.neighbours import Phrase

ENOUGH = 0.8  # share of the margin's difference
FEWEST, MOST = 3, 5  # phrases
ASKED = 200  # phrases asked of each memory, along the difference and against it
OWN = 0.3  # a phrase must keep this share of its length beside those already chosen
STEPS = 64  # along the way between the images, over which the margin's gradient is averaged

_Vectors = npt.NDArray[np.float64]


class PhraseShare(BaseModel, frozen=True, extra="forbid"):
    """What one phrase has to do with the difference."""

    text: str
    difference: float  # logits: the phrase's own, of the image less of the counterfactual
    contribution: float  # logits of the margin, to first order along the way between the images


class PhraseDifference(BaseModel, frozen=True, extra="forbid"):
    """Why two images get different answers, in phrases of the bank."""

    phrases: tuple[PhraseShare, ...]  # in the order in which they were chosen
    margin_difference: float  # logits, of the image less of the counterfactual
    remainder: float  # logits: contributions and remainder add up to the margins' difference
    share: float  # of it that returns when the phrases' part is added to the counterfactual
    short: str | None  # the sentence that says so when the share is too small

    @property
    def enough(self) -> bool:
        return self.short is None


@dataclass(frozen=True, slots=True)
class _Gap:
    """The way from a counterfactual to an image."""

    question: Question
    other: _Vectors  # (d,)
    delta: _Vectors  # (d,): from the counterfactual to the image
    u: _Vectors  # (d,): the margin's mean gradient on the way, in logits per unit

    @classmethod
    def between(cls, question: Question, other: FloatArray) -> "_Gap":
        start = other.astype(np.float64)
        delta = question.z.astype(np.float64) - start
        middles = (np.arange(STEPS) + 0.5) / STEPS
        points = (start + middles[:, None] * delta).astype(np.float32)  # (STEPS, d)
        u = np.mean([question.vectors.direction(p).astype(np.float64) for p in points], axis=0)
        return cls(question, start, delta, u)

    def gains(self, parts: _Vectors) -> _Vectors:
        """What the real margin gains when parts of the way, (n, d), are added: (n,) logits."""
        reached = self.other + np.concatenate([np.zeros((1, len(self.delta))), parts])
        unit = reached / np.linalg.norm(reached, axis=1, keepdims=True)
        margins = self.question.vectors.margins(unit.astype(np.float32))
        return np.asarray(margins[1:] - margins[0])


def difference(
    question: Question, other: FloatArray, memories: Iterable[Memory]
) -> PhraseDifference:
    """Explain the margins' difference between an image and another one's vector, (d,) unit.

    The share is measured with the served margin: the projection of the difference onto the phrases
    is added to the counterfactual, and what the margin gains is set against the whole.
    """
    gap = _Gap.between(question, other)
    bank = _bank(question, gap, list(memories))
    vectors = _centred(bank)  # (m, d)
    whole = float(gap.gains(gap.delta[None])[0])
    chosen: list[int] = []
    share = 0.0
    while len(chosen) < MOST and not (_enough(share) and len(chosen) >= FEWEST):
        parts = _parts(gap.delta, vectors, chosen)  # (m, d)
        shares = gap.gains(parts) / whole  # (m,)
        if not np.isfinite(shares).any():
            break
        chosen.append(int(np.nanargmin(np.abs(1 - shares))))
        share = float(shares[chosen[-1]])
    weighted = _shares(gap, [bank[i] for i in chosen], vectors[chosen])
    return PhraseDifference(
        phrases=weighted,
        margin_difference=whole,
        remainder=whole - sum(s.contribution for s in weighted),
        share=share,
        short=None if _enough(share) else _short(share, len(chosen)),
    )


def _enough(share: float) -> bool:
    """Too much explained is as bad as too little."""
    return abs(1 - share) <= 1 - ENOUGH


def _bank(question: Question, gap: _Gap, memories: list[Memory]) -> list[Phrase]:
    """Phrases that lie along the difference or against it, whatever their logit."""
    length = max(float(np.linalg.norm(gap.delta)), 1e-12)
    ends = [np.asarray(sign * gap.delta / length, dtype=np.float32) for sign in (1.0, -1.0)]
    by_text = {
        phrase.text: phrase
        for memory in memories
        for end in ends
        for phrase in memory.phrases(
            question.z, near=end, side=Verdict.FLAGGED, level=-math.inf, limit=ASKED
        )
    }
    return list(by_text.values())


def _centred(bank: list[Phrase]) -> _Vectors:
    """Unit vectors of phrases without what they have in common, which tells no images apart."""
    if not bank:
        return np.zeros((0, 0))
    v = np.stack([p.vector for p in bank]).astype(np.float64)  # (m, d)
    v -= v.mean(axis=0)
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12))


def _parts(delta: _Vectors, vectors: _Vectors, chosen: list[int]) -> _Vectors:
    """The projection of delta, (d,), onto the chosen phrases and each one more: (m, d).

    Rows are NaN where a phrase has hardly a direction of its own left.
    """
    if not len(vectors):
        return np.full((0, len(delta)), np.nan)
    basis = np.linalg.qr(vectors[chosen].T)[0]  # (d, c)
    own = vectors - vectors @ basis @ basis.T  # (m, d)
    lengths = np.linalg.norm(own, axis=1, keepdims=True)  # (m, 1)
    own = np.divide(own, lengths, out=np.full_like(own, np.nan), where=lengths >= OWN)
    return np.asarray(basis @ (basis.T @ delta) + (own @ delta)[:, None] * own)


def _weights(vectors: _Vectors, delta: _Vectors) -> _Vectors:
    """How much of each phrase, (c, d), the projection of delta, (d,), holds: (c,)."""
    return np.asarray(np.linalg.lstsq(vectors.T, delta, rcond=None)[0])


def _shares(gap: _Gap, phrases: list[Phrase], vectors: _Vectors) -> tuple[PhraseShare, ...]:
    if not phrases:
        return ()
    scale = gap.question.vectors.logit_scale.factor
    contributions = _weights(vectors, gap.delta) * (vectors @ gap.u)  # (c,) logits
    return tuple(
        PhraseShare(
            text=phrase.text,
            difference=scale * float(phrase.vector.astype(np.float64) @ gap.delta),
            contribution=float(contribution),
        )
        for phrase, contribution in zip(phrases, contributions, strict=True)
    )


def _short(share: float, count: int) -> str:
    return (
        f"{count} phrases of the bank account for {share:.0%} of the difference; "
        f"from {ENOUGH:.0%} to {2 - ENOUGH:.0%} would do."
    )
