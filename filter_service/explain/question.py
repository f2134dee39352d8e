"""One image and one class: its margin, and its distance to the decision boundary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from filter_service.policy import Policy
from filter_service.scoring import ClassVectors, EncodeTexts, FloatArray, ensemble
from filter_service.verdicts import Verdict, threshold_margin

STARTS = 3  # prompts of a class towards which the boundary is sought
STEPS = 30
SMALLEST_TURN = 1 / 32
SHORTER = 1e-5  # radians: what is gained by less is not worth a step
PARTS, REFINED = 48, 4  # pi is divided into 47 parts, the one that crosses again, and so on


@dataclass(frozen=True)
class Question:
    """One image and one class of a policy: what would have changed the answer?"""

    digest: str
    z: FloatArray  # (d,) unit
    policy: Policy
    vectors: ClassVectors
    band: float = 0.0  # logits: how far a vector that is not exact may mislead

    @cached_property
    def threshold(self) -> float:
        """In logits."""
        return threshold_margin(self.policy.forbidden(self.vectors.name))

    @cached_property
    def margin(self) -> float:
        return float(self.vectors.margins(self.z[None])[0])

    @property
    def side(self) -> Verdict:
        """The answer for this class alone."""
        return Verdict.FLAGGED if self.margin >= self.threshold else Verdict.CLEAR

    @property
    def other_side(self) -> Verdict:
        return Verdict.CLEAR if self.side is Verdict.FLAGGED else Verdict.FLAGGED

    @property
    def carrying(self) -> int:
        """Index of the prompt that carries most of the evidence."""
        return int((self.vectors.prompts.astype(np.float64) @ self.z).argmax())

    def beyond(self, margin: float, exact: bool = True) -> bool:
        """Whether a margin gives the other answer, with the error band to spare if need be."""
        slack = 0.0 if exact else self.band
        if self.other_side is Verdict.CLEAR:
            return margin < self.threshold - slack
        return margin >= self.threshold + slack

    def prompt(self, index: int) -> str:
        return self.policy.forbidden(self.vectors.name).prompts[index]

    def worded(self, phrases: Sequence[str], encode_texts: EncodeTexts) -> FloatArray:
        """Vectors of phrases as the policy would word them, with the class's templates: (n, d)."""
        templates = self.policy.templates_of(self.policy.forbidden(self.vectors.name))
        return ensemble(phrases, templates, encode_texts)

    def reworded(self, index: int, vector: FloatArray) -> float:
        """The margin with one prompt's vector, (d,), replaced."""
        prompts = self.vectors.prompts.copy()
        prompts[index] = vector
        return float(replace(self.vectors, prompts=prompts).margins(self.z[None])[0])

    def level(self, index: int) -> float | None:
        """The logit at which a wording in a prompt's place turns the answer; None: none does.

        None means that the other prompts flag the image by themselves.
        """
        logit_scale, z = self.vectors.logit_scale, self.z[None]
        logits = logit_scale.factor * (self.vectors.prompts.astype(np.float64) @ self.z)  # (p,)
        others = np.delete(logits, index)
        level = self.threshold + float(self.vectors.level(z)[0])
        if logit_scale.sigmoid:
            return level if others.max(initial=-math.inf) < level else None
        room = len(logits) - float(np.exp(others - level).sum())
        return level + math.log(room) if room > 0 else None


def degrees(a: FloatArray, b: FloatArray) -> float:
    """Angle between two unit vectors, exact for small ones too."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return math.degrees(2 * math.atan2(np.linalg.norm(a64 - b64), np.linalg.norm(a64 + b64)))


def boundary(question: Question) -> FloatArray | None:
    """The unit vector nearest to z whose margin is the threshold: (d,), or None.

    On one great circle from z the first crossing is found by bisection. At the nearest point of the
    boundary a circle arrives along the margin's gradient, so it is turned towards the gradient at
    its crossing as long as that shortens the way. A clear image may come to show any prompt of the
    class, so ways towards the nearest of them are tried too.
    """
    turns = [question.vectors.direction(question.z)]
    if question.other_side is Verdict.FLAGGED:
        prompts = question.vectors.prompts
        turns += list(prompts[np.argsort(-(prompts @ question.z))[:STARTS]])
    way = min((_shortest(question, turn) for turn in turns), key=lambda way: way.worth)
    return None if way.gap else way.end(question.z)


def along(z: FloatArray, edge: FloatArray, times: float) -> FloatArray:
    """The point on the great circle from z through the edge, so many times as far: (d,) unit."""
    angle = times * math.radians(degrees(z, edge))
    return _Way(_axis(z, edge), angle, 0.0).end(z)


@dataclass(frozen=True, slots=True)
class _Way:
    """How far to go from z on the great circle with this axis to cross the threshold."""

    axis: FloatArray  # (d,) unit, perpendicular to z
    angle: float  # radians; where the margin comes nearest when it does not cross
    gap: float  # logits: how much it misses then, else 0

    @property
    def worth(self) -> tuple[float, float]:
        return self.gap, self.angle

    def end(self, z: FloatArray) -> FloatArray:
        end: FloatArray = _points(z, self.axis, np.array([self.angle]))[0]
        return end


def _shortest(question: Question, turn: FloatArray) -> _Way:
    """The shortest way found from a first direction, (d,), in which the margin changes as wanted.

    The first axis and the gradient at its end are mixed, ever more cautiously.
    """
    sign = 1.0 if question.other_side is Verdict.FLAGGED else -1.0
    best = _crossing(question, _axis(question.z, sign * turn))
    weight = 1.0
    for _ in range(STEPS):
        gradient = sign * question.vectors.direction(best.end(question.z))
        towards = _axis(question.z, gradient)
        mixed = _crossing(question, _axis(question.z, (1 - weight) * best.axis + weight * towards))
        if mixed.worth < (best.gap, best.angle - SHORTER):
            best = mixed
        elif (weight := weight / 2) < SMALLEST_TURN:
            break
    return best


def _crossing(question: Question, axis: FloatArray) -> _Way:
    """The first point past the threshold on a great circle, by bisection in many parts."""
    low, high = 0.0, math.pi
    threshold, clear = question.threshold, question.other_side is Verdict.CLEAR
    for _ in range(REFINED):
        angles = np.linspace(low, high, PARTS)
        margins = question.vectors.margins(_points(question.z, axis, angles))  # (PARTS,)
        past = margins < threshold if clear else margins >= threshold
        if not past.any():
            misses = np.abs(margins - threshold)
            return _Way(axis, float(angles[misses.argmin()]), max(float(misses.min()), 1e-12))
        first = max(int(past.argmax()), 1)
        low, high = float(angles[first - 1]), float(angles[first])
    return _Way(axis, high, 0.0)


def _points(z: FloatArray, axis: FloatArray, angles: npt.NDArray[np.float64]) -> FloatArray:
    """Unit vectors on the great circle from z along an axis: angles (n,) -> (n, d)."""
    both = np.cos(angles)[:, None] * z + np.sin(angles)[:, None] * axis
    return np.asarray(both, dtype=np.float32)


def _axis(z: FloatArray, turn: FloatArray) -> FloatArray:
    """The part of a direction, (d,), that is perpendicular to z, as a unit vector."""
    z64 = z.astype(np.float64)
    aside = turn - (turn @ z64) * z64
    length = float(np.linalg.norm(aside))
    if length < 1e-6 * float(np.linalg.norm(turn)) or not length:  # straight on or back: any turn
        return _axis(z, np.eye(len(z), dtype=np.float32)[int(np.abs(z).argmin())])
    return np.asarray(aside / length, dtype=np.float32)
