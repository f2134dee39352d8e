"""What would have to be different: the nearest boundary, image and wording with another answer."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from filter_service.explain.record import CounterfactualImage, CounterfactualText
from filter_service.policy import Policy
from filter_service.scoring import ClassVectors, EncodeTexts, FloatArray, ensemble
from filter_service.verdicts import Verdict, threshold_margin

ASKED = 20  # candidates asked of each memory
KEPT = 3
PHRASES_ASKED = 3 * KEPT  # of each memory; some will not flip as the policy words them
SAME = 0.98  # cosine from which two images count as near-duplicates
ON_BOUNDARY = 1e-4  # logits
STEPS = 50


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An image that a memory holds."""

    digest: str
    vector: FloatArray  # (d,) unit
    margin: float  # as stored
    exact: bool  # the vector is float32
    decision: str | None = None  # what a moderator said


@dataclass(frozen=True, slots=True)
class Phrase:
    """A wording of the phrase bank."""

    text: str
    vector: FloatArray  # (d,) unit


class Memory(Protocol):
    """Where counterfactuals are sought."""

    def images(
        self,
        z: FloatArray,
        *,
        policy: Policy,
        class_name: str,
        side: Verdict,
        beyond: float,
        limit: int,
    ) -> list[Neighbour]:
        """Images nearest to z, (d,), that lie on a side of a class's threshold, `beyond` logits."""

    def phrases(self, z: FloatArray, *, near: FloatArray, below: float, limit: int) -> list[Phrase]:
        """Wordings nearest to `near`, (d,), whose logit with z, (d,), stays under `below`."""


@dataclass(frozen=True, slots=True)
class Question:
    """One image and one class of a policy: what would have changed the answer?"""

    digest: str
    z: FloatArray  # (d,) unit
    policy: Policy
    vectors: ClassVectors
    band: float = 0.0  # logits: how far a vector that is not exact may mislead

    @property
    def threshold(self) -> float:
        """In logits."""
        return threshold_margin(self.policy.forbidden(self.vectors.name))

    @property
    def margin(self) -> float:
        return float(self.vectors.margins(self.z[None])[0])

    @property
    def other_side(self) -> Verdict:
        return Verdict.CLEAR if self.margin >= self.threshold else Verdict.FLAGGED

    def beyond(self, margin: float, exact: bool) -> bool:
        """Whether a margin gives the other answer, with the error band to spare if need be."""
        slack = 0.0 if exact else self.band
        if self.other_side is Verdict.CLEAR:
            return margin < self.threshold - slack
        return margin >= self.threshold + slack


def boundary(question: Question) -> FloatArray | None:
    """The unit vector nearest to z whose margin is the threshold: (d,), or None.

    For a linear margin it has a closed form on the sphere; as the margin bends, the form is applied
    again at the point it gave until that point lies on the boundary.
    """
    z = question.z.astype(np.float64)
    y = z
    for _ in range(STEPS):
        u = question.vectors.direction(y.astype(np.float32)).astype(np.float64)  # (d,)
        margin = float(question.vectors.margins(y[None].astype(np.float32))[0])
        if abs(margin - question.threshold) < ON_BOUNDARY:
            return np.asarray(y, dtype=np.float32)
        length = float(np.linalg.norm(u))
        along = (question.threshold - margin + float(u @ y)) / length if length else math.inf
        if abs(along) > 1:
            return None
        axis = u / length
        aside = z - (z @ axis) * axis
        aside /= max(float(np.linalg.norm(aside)), 1e-12)
        y = along * axis + math.sqrt(1 - along * along) * aside
    return None


def degrees(a: FloatArray, b: FloatArray) -> float:
    """Angle between two unit vectors, exact for small ones too."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return math.degrees(2 * math.atan2(np.linalg.norm(a64 - b64), np.linalg.norm(a64 + b64)))


def images(
    question: Question, memories: Iterable[Memory], edge: FloatArray | None
) -> tuple[CounterfactualImage, ...]:
    """Up to three stored images that get the other answer, the nearest first, then diverse ones.

    Each margin is computed again from its kept vector; what does not flip is not shown.
    """
    starts = [question.z] if edge is None else [question.z, edge]
    found = {
        n.digest: n
        for memory in memories
        for start in starts
        for n in memory.images(
            start,
            policy=question.policy,
            class_name=question.vectors.name,
            side=question.other_side,
            beyond=0.0,
            limit=ASKED,
        )
        if n.digest != question.digest
    }
    verified = [n for n in found.values() if question.beyond(_margin(question, n), n.exact)]
    return tuple(
        CounterfactualImage(
            digest=n.digest,
            degrees=degrees(question.z, n.vector),
            margin=_margin(question, n),
            decision=n.decision,
        )
        for n in _diverse(question.z, verified)
    )


def texts(
    question: Question, memories: Iterable[Memory], carrying: int, encode_texts: EncodeTexts
) -> tuple[CounterfactualText, ...]:
    """Wordings nearest to the carrying prompt with which a flagged image would have been clear.

    The bank keeps bare phrases; each is encoded again as the policy would word it, with the class's
    templates, and tried in the prompt's place.
    """
    below = _room(question, carrying)
    if below is None or question.other_side is not Verdict.CLEAR:
        return ()
    prompt = question.vectors.prompts[carrying]  # (d,)
    forbidden = question.policy.forbidden(question.vectors.name)
    phrases = [
        p.text
        for memory in memories
        for p in memory.phrases(question.z, near=prompt, below=below, limit=PHRASES_ASKED)
    ]
    if not phrases:
        return ()
    worded = ensemble(phrases, question.policy.templates_of(forbidden), encode_texts)  # (n, d)
    answers = [
        CounterfactualText(
            text=phrase,
            replaces=forbidden.prompts[carrying],
            degrees=degrees(prompt, vector),
            margin=_reworded(question, carrying, vector),
        )
        for phrase, vector in zip(phrases, worded, strict=True)
    ]
    flipped = [a for a in answers if a.margin < question.threshold]
    return tuple(sorted(flipped, key=lambda a: a.degrees)[:KEPT])


def _margin(question: Question, neighbour: Neighbour) -> float:
    return float(question.vectors.margins(neighbour.vector[None])[0])


def _diverse(z: FloatArray, candidates: Sequence[Neighbour]) -> list[Neighbour]:
    """The nearest, then by maximal marginal relevance (Carbonell and Goldstein, 1998)."""
    left = sorted(candidates, key=lambda n: -float(n.vector @ z))
    chosen = left[:1]
    left = left[1:]
    while left and len(chosen) < KEPT:
        likeness = {n.digest: max(float(n.vector @ c.vector) for c in chosen) for n in left}
        left = [n for n in left if likeness[n.digest] < SAME]
        if left:
            best = max(left, key=lambda n: float(n.vector @ z) - 0.5 * likeness[n.digest])
            chosen.append(best)
            left.remove(best)
    return chosen


def _room(question: Question, carrying: int) -> float | None:
    """The logit that a wording in the prompt's place may not reach; None: none would do."""
    head, z = question.vectors.head, question.z[None]
    logits = head.scale * (question.vectors.prompts.astype(np.float64) @ question.z)  # (p,)
    others = np.delete(logits, carrying)
    level = question.threshold + float(question.vectors.neutral_level(z)[0])
    if head.sigmoid:
        return level if others.max(initial=-math.inf) < level else None
    room = len(logits) - float(np.exp(others - level).sum())
    return level + math.log(room) if room > 0 else None


def _reworded(question: Question, carrying: int, vector: FloatArray) -> float:
    """The margin with one prompt's vector, (d,), replaced."""
    prompts = question.vectors.prompts.copy()
    prompts[carrying] = vector
    changed = ClassVectors(
        question.vectors.name, prompts, question.vectors.neutral, question.vectors.head
    )
    return float(changed.margins(question.z[None])[0])
