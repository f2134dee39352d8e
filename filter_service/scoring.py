"""Computes margins from image vectors and the vectors of a policy's prompts, in numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.policy import Policy

FloatArray = npt.NDArray[np.float32]
EncodeTexts = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True, slots=True)
class LogitScale:
    """How an encoder turns a cosine into logits: a factor and, for sigmoid models, a bias."""

    factor: float
    bias: float = 0.0
    sigmoid: bool = False


@dataclass(frozen=True, slots=True)
class ClassVectors:
    """One forbidden class in an encoder's space; its margin is a function of the image vector."""

    name: str
    prompts: FloatArray  # (p, d) unit
    neutral: FloatArray  # (k, d) unit, empty for sigmoid models
    logit_scale: LogitScale

    def margins(self, z: FloatArray) -> npt.NDArray[np.float64]:
        """(n, d) unit image vectors -> (n,) margins in logits."""
        logits = self.logit_scale.factor * (
            z.astype(np.float64) @ self.prompts.T.astype(np.float64)
        )
        if self.logit_scale.sigmoid:
            return np.asarray(logits.max(axis=1) + self.logit_scale.bias)  # (n, p) -> (n,)
        return _logmeanexp(logits) - self.neutral_level(z)

    def neutral_level(self, z: FloatArray) -> npt.NDArray[np.float64]:
        """What the class's prompts are contrasted with: (n, d) -> (n,) logits."""
        if self.logit_scale.sigmoid:
            return np.full(len(z), -self.logit_scale.bias)
        logits = self.logit_scale.factor * (
            z.astype(np.float64) @ self.neutral.T.astype(np.float64)
        )
        return _logmeanexp(logits)  # (n, k) -> (n,)

    def direction(self, z: FloatArray) -> FloatArray:
        """Gradient of the margin at one image vector: (d,) -> (d,), logits per unit."""
        prompts = self.logit_scale.factor * (self.prompts.astype(np.float64) @ z)  # (p,)
        if self.logit_scale.sigmoid:
            return np.asarray(
                self.logit_scale.factor * self.prompts[int(prompts.argmax())], np.float32
            )
        neutral = self.logit_scale.factor * (self.neutral.astype(np.float64) @ z)  # (k,)
        u = _softmax(prompts) @ self.prompts - _softmax(neutral) @ self.neutral  # (d,)
        return (self.logit_scale.factor * u).astype(np.float32)


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
    """Encode every prompt of a policy once."""
    return PolicyVectors(
        policy=policy,
        classes=tuple(
            ClassVectors(
                name=c.name,
                prompts=ensemble(c.prompts, policy.templates_of(c), encode_texts),
                neutral=ensemble(policy.neutral_of(c), policy.templates_of(c), encode_texts),
                logit_scale=logit_scale,
            )
            for c in policy.classes
        ),
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
