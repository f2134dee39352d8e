"""Computes margins from image vectors and the vectors of a policy's prompts, in numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.errors import InvalidPolicy
from filter_service.policy import ForbiddenClass, Policy
from filter_service.policy.learnt_head import LearntHead

FloatArray = npt.NDArray[np.float32]
EncodeTexts = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True, slots=True)
class LogitScale:
    """How an encoder turns a cosine into logits: a factor and, for sigmoid models, a bias."""

    factor: float
    bias: float = 0.0
    sigmoid: bool = False


@dataclass(frozen=True, slots=True)
class LearntDirection:
    """What a head adds to its prompts' margin; linear in the image vector."""

    weights: FloatArray  # (d,), logits per unit
    offset: float  # logits

    def added(self, z: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """(n, d) unit image vectors -> (n,) logits."""
        return np.asarray(z.astype(np.float64) @ self.weights.astype(np.float64) + self.offset)


@dataclass(frozen=True, slots=True)
class ClassVectors:
    """One forbidden class in an encoder's space; its margin is a function of the image vector."""

    name: str
    prompts: FloatArray  # (p, d) unit
    neutral: FloatArray  # (k, d) unit, empty for sigmoid models
    logit_scale: LogitScale
    learnt: LearntDirection | None = None

    def margins(self, z: FloatArray) -> npt.NDArray[np.float64]:
        """(n, d) unit image vectors -> (n,) margins in logits."""
        logits = self._logits(z, self.prompts)
        evidence = logits.max(axis=1) if self.logit_scale.sigmoid else _logmeanexp(logits)
        return np.asarray(evidence - self.level(z))  # (n, p) -> (n,)

    def level(self, z: FloatArray) -> npt.NDArray[np.float64]:
        """What the prompts have to outweigh: neutral prompts, less what was learnt; (n,) logits."""
        if self.logit_scale.sigmoid:
            neutral = np.full(len(z), -self.logit_scale.bias)
        else:
            neutral = _logmeanexp(self._logits(z, self.neutral))  # (n, k) -> (n,)
        return neutral if self.learnt is None else neutral - self.learnt.added(z)

    def direction(self, z: FloatArray) -> FloatArray:
        """Gradient of the margin at one image vector: (d,) -> (d,), logits per unit."""
        u = self._prompts_direction(z)
        return u if self.learnt is None else u + self.learnt.weights

    def _prompts_direction(self, z: FloatArray) -> FloatArray:
        factor = self.logit_scale.factor
        prompts = factor * (self.prompts.astype(np.float64) @ z)  # (p,)
        if self.logit_scale.sigmoid:
            return np.asarray(factor * self.prompts[int(prompts.argmax())], np.float32)
        neutral = factor * (self.neutral.astype(np.float64) @ z)  # (k,)
        u = _softmax(prompts) @ self.prompts - _softmax(neutral) @ self.neutral  # (d,)
        return (factor * u).astype(np.float32)

    def _logits(self, z: FloatArray, texts: FloatArray) -> npt.NDArray[np.float64]:
        """(n, d), (p, d) -> (n, p)"""
        cosines = z.astype(np.float64) @ texts.T.astype(np.float64)
        return np.asarray(self.logit_scale.factor * cosines)


@dataclass(frozen=True, slots=True)
class PolicyVectors:
    """A policy in one encoder's space."""

    policy: Policy
    classes: tuple[ClassVectors, ...]
    # How far the margin of a screened vector may lie from the served one, logits: (classes,) or 0.
    bands: npt.NDArray[np.float64] | float = 0.0

    def margins(self, z: FloatArray) -> npt.NDArray[np.float64]:
        """(n, d) unit image vectors -> (n, classes) margins in logits."""
        return np.stack([c.margins(z) for c in self.classes], axis=1)


def policy_vectors(
    policy: Policy, encode_texts: EncodeTexts, logit_scale: LogitScale
) -> PolicyVectors:
    """Encode every prompt of a policy once; raises InvalidPolicy for a head of another size."""
    return PolicyVectors(
        policy=policy,
        classes=tuple(_class_vectors(policy, c, encode_texts, logit_scale) for c in policy.classes),
    )


def learnt_direction(head: LearntHead) -> LearntDirection:
    """As scores need it."""
    return LearntDirection(head.weights, head.offset)


def _class_vectors(
    policy: Policy, c: ForbiddenClass, encode_texts: EncodeTexts, logit_scale: LogitScale
) -> ClassVectors:
    prompts = ensemble(c.prompts, policy.templates_of(c), encode_texts)
    if c.head is not None and len(c.head.weights) != prompts.shape[1]:
        raise InvalidPolicy(
            f"The head of {c.name} has {len(c.head.weights)} numbers, and this model's vectors "
            f"have {prompts.shape[1]}: leave it out, and fit it again."
        )
    return ClassVectors(
        name=c.name,
        prompts=prompts,
        neutral=ensemble(policy.neutral_of(c), policy.templates_of(c), encode_texts),
        logit_scale=logit_scale,
        learnt=None if c.head is None else learnt_direction(c.head),
    )


def ensemble(
    prompts: Sequence[str], templates: Sequence[str], encode_texts: EncodeTexts
) -> FloatArray:
    """Unit vectors of prompts, each the average of its templates' unit vectors: (p, d)."""
    texts = [t.replace("{}", p) for p in prompts for t in templates]
    v = encode_texts(texts)  # (p * t, d)
    v = v.reshape(len(prompts), len(templates), v.shape[-1]).mean(axis=1)  # (p, d)
    return np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), dtype=np.float32)


def _logmeanexp(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    top = x.max(axis=1, keepdims=True)  # (n, 1)
    return np.asarray(top[:, 0] + np.log(np.exp(x - top).mean(axis=1)))  # (n,)


def _softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())
