"""A small set of vectors in which counterfactuals can be found by brute force."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from filter_service.explain.memory import ArrayMemory
from filter_service.explain.question import Question
from filter_service.policy import ForbiddenClass, Policy
from filter_service.scoring import (
    FloatArray,
    LearntDirection,
    LogitScale,
    PolicyVectors,
    policy_vectors,
)

DIM = 12
LOGIT_SCALE = LogitScale(factor=20.0)
SIGMOID = LogitScale(factor=20.0, bias=-6.0, sigmoid=True)
LEARNT = LearntDirection(4 * np.sin(np.arange(DIM, dtype=np.float32)), -0.5)
THINGS = ("red gun", "old knife", "dog", "cat", "apple", "blue car", "green house", "old shoe")
BANK = tuple(f"{a} {b}" for a in ("big", "small", "wet", "flat") for b in ("tree", *THINGS))


def encode(texts: Sequence[str]) -> FloatArray:
    """Unit vectors of texts: mostly the sum of their words', and something of their own: (n, d)."""
    v = np.stack([sum(map(_draw, t.split()), 0.3 * _draw(t)) for t in texts])
    return np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), dtype=np.float32)


def _draw(text: str) -> FloatArray:
    draws = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM)
    return np.asarray(draws, dtype=np.float32)


def policy(templates: tuple[str, ...] = ("{}",)) -> Policy:
    weapons = ForbiddenClass(name="weapons", prompts=("red gun", "old knife"), threshold=0.7)
    return Policy(name="small", neutral=THINGS[2:], classes=(weapons,), templates=templates)


@dataclass(frozen=True)
class World:
    """A policy, images and a phrase bank in one memory."""

    vectors: PolicyVectors
    memory: ArrayMemory

    def question(self, image: int, band: float = 0.0) -> Question:
        m = self.memory
        weapons = self.vectors.classes[0]
        return Question(m.digests[image], m.vectors[image], self.vectors.policy, weapons, band)

    def others(self, question: Question) -> list[int]:
        """All images with the other answer, the nearest first, by brute force."""
        m = self.memory
        margins = question.vectors.margins(m.vectors)
        there = [i for i in range(len(margins)) if question.beyond(float(margins[i]))]
        return sorted(there, key=lambda i: -float(m.vectors[i] @ question.z))


def world(
    seed: int = 0,
    number: int = 40,
    logit_scale: LogitScale = LOGIT_SCALE,
    templates: tuple[str, ...] = ("{}",),
    learnt: LearntDirection | None = None,
) -> World:
    """Images of one or two things each; `learnt`: a head of the class."""
    rng = np.random.default_rng(seed)
    things = encode(THINGS)
    pairs = rng.integers(len(things), size=(number, 2))
    z = things[pairs].sum(axis=1) + 0.4 * rng.standard_normal((number, DIM)) / 3
    z = np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), dtype=np.float32)
    vectors = policy_vectors(policy(templates), encode, logit_scale)
    weapons = replace(vectors.classes[0], learnt=learnt)
    vectors = replace(vectors, classes=(weapons,))
    exact = np.ones(number, dtype=np.bool_)
    digests = [f"image {i}" for i in range(number)]
    return World(vectors, ArrayMemory(vectors, digests, z, exact, BANK, encode(BANK)))
