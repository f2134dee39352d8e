"""Finds counterfactuals: the nearest stored images and wordings with another answer.

Both ways: of a flagged image it is asked what is clear, of a clear one what would be flagged.
Every answer is computed again before it is given; where there is none, a sentence says how far was
searched, and no near miss takes its place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from filter_service.explain.question import Question, along, degrees
from filter_service.policy import Policy
from filter_service.scoring import EncodeTexts, FloatArray
from filter_service.verdicts import Verdict
from filter_service.verdicts.explanation import CounterfactualImage, CounterfactualText
from filter_service.verdicts.neighbours import Neighbour, Phrase

ASKED = 20  # candidates asked of each memory
FURTHER = 500  # likewise, where those were too alike or did not hold
OVERSHOOTS = (1.25, 1.5)  # times the way to the boundary: where else candidates are sought
KEPT = 3
PHRASES_ASKED = 3 * KEPT  # of each memory; some will not flip as the policy words them
SAME = 0.98  # cosine from which two answers count as near-duplicates
EVERYWHERE = 180.0  # degrees
FARTHEST_WORDING = 45.0  # degrees: from here on two wordings share less than half of what they say


class Memory(Protocol):
    """Where counterfactuals are sought; fewer than `limit` are returned only if there are no more.

    On a side means: under the threshold or level for `CLEAR`, at or over it for `FLAGGED`.
    """

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

    def phrases(
        self, z: FloatArray, *, near: FloatArray, side: Verdict, level: float, limit: int
    ) -> list[Phrase]:
        """Wordings nearest to `near`, (d,), whose logit with z, (d,), lies on a side of `level`."""


@dataclass(frozen=True, slots=True)
class ImageSearch:
    """Stored images that get the other answer, the nearest first; or how far there is none."""

    images: tuple[CounterfactualImage, ...]
    vectors: tuple[FloatArray, ...]  # (d,) each, of these images
    searched: float  # degrees around the image
    none: str | None  # the sentence, when there is none


@dataclass(frozen=True, slots=True)
class TextSearch:
    """Wordings that give the other answer, the nearest first; or how far there is none."""

    texts: tuple[CounterfactualText, ...]
    searched: float  # degrees around the prompt
    none: str | None  # the sentence, when there is none


def search_images(
    question: Question, memories: Iterable[Memory], edge: FloatArray | None
) -> ImageSearch:
    """Up to three stored images that get the other answer, diverse, the nearest first.

    Each margin is computed again from its kept vector; what does not flip is not shown. Sought are
    the images around z and around the point `edge` of the boundary, and where these are too few or
    too much alike, beyond that point and further away.
    """
    memories = list(memories)
    held: dict[str, Neighbour] = {}  # the nearest frame of each image
    shown: list[Neighbour] = []
    searched = 0.0
    for starts, limit in _rounds(question.z, edge):
        for start in starts:
            neighbours = [_neighbours(question, memory, start, limit) for memory in memories]
            if start is question.z:
                reaches = [_reach(start, [n.vector for n in f], limit) for f in neighbours]
                searched = min(reaches, default=0.0)
            _hold(question, held, [n for f in neighbours for n in f])
        candidates = list(held.values())
        shown = [candidates[i] for i in _diverse(question.z, [n.vector for n in candidates])]
        if len(shown) == KEPT or searched == EVERYWHERE:
            break
    return ImageSearch(
        images=tuple(_image(question, n) for n in shown),
        vectors=tuple(n.vector for n in shown),
        searched=searched,
        none=None if shown else _no_image(question, searched),
    )


def search_texts(
    question: Question, memories: Iterable[Memory], carrying: int, encode_texts: EncodeTexts
) -> TextSearch:
    """Up to three wordings nearest to a prompt that in its place give the image the other answer.

    The bank keeps bare phrases; each is encoded again as the policy would word it, with the class's
    templates, and tried in the prompt's place. Distances searched are those of the bare phrases.
    What lies further away than `farthest_wording` is no wording of the same and is not shown.
    """
    memories, prompt = list(memories), question.vectors.prompts[carrying]  # (d,)
    level = question.level(carrying)
    if level is None:
        return TextSearch((), EVERYWHERE, others_flag(question, carrying))
    phrases = [
        memory.phrases(
            question.z, near=prompt, side=question.other_side, level=level, limit=PHRASES_ASKED
        )
        for memory in memories
    ]
    reaches = [_reach(prompt, [p.vector for p in f], PHRASES_ASKED) for f in phrases]
    farthest = farthest_wording(question, carrying, encode_texts)
    searched = min(*reaches, farthest) if reaches else 0.0
    tried = list(dict.fromkeys(p.text for f in phrases for p in f))
    texts = rewordings(question, carrying, tried, encode_texts)
    none = None if texts else _no_text(question, carrying, searched, len(tried))
    return TextSearch(texts, searched, none)


def rewordings(
    question: Question, carrying: int, phrases: Sequence[str], encode_texts: EncodeTexts
) -> tuple[CounterfactualText, ...]:
    """Those of the phrases that flip in a prompt's place, up to three, as `search_texts` shows."""
    if not phrases:
        return ()
    prompt, worded = question.vectors.prompts[carrying], question.worded(phrases, encode_texts)
    farthest = farthest_wording(question, carrying, encode_texts)
    margins = [question.reworded(carrying, vector) for vector in worded]
    flips = [
        i
        for i, margin in enumerate(margins)
        if question.beyond(margin) and degrees(prompt, worded[i]) <= farthest
    ]
    return tuple(
        CounterfactualText(
            text=phrases[flips[i]],
            replaces=question.prompt(carrying),
            degrees=degrees(prompt, worded[flips[i]]),
            margin=margins[flips[i]],
        )
        for i in _diverse(prompt, worded[flips])
    )


def farthest_wording(question: Question, carrying: int, encode_texts: EncodeTexts) -> float:
    """How far from a prompt a wording may lie to be called one of the same, in degrees.

    No further than the nearest of the neutral prompts, which the policy itself calls something
    else, and in no case further than `FARTHEST_WORDING`. How far apart unrelated wordings lie
    differs from model to model; which of them is unrelated does not.
    """
    neutral = question.vectors.neutral  # (k, d)
    if not len(neutral):  # a sigmoid model contrasts with nothing, the policy does
        texts = question.policy.neutral_of(question.policy.forbidden(question.vectors.name))
        neutral = question.worded(texts, encode_texts) if texts else neutral
    prompt = question.vectors.prompts[carrying]  # (d,)
    return min([FARTHEST_WORDING, *(degrees(prompt, vector) for vector in neutral)])


def _rounds(z: FloatArray, edge: FloatArray | None) -> Iterable[tuple[list[FloatArray], int]]:
    """Where to search and how many to ask for, from what mostly does to what rarely is needed."""
    if edge is None:
        return [([z], ASKED), ([z], FURTHER)]
    past = [along(z, edge, times) for times in OVERSHOOTS]
    return [([z, edge], ASKED), (past, ASKED), ([z], FURTHER)]


def _neighbours(
    question: Question, memory: Memory, start: FloatArray, limit: int
) -> list[Neighbour]:
    return memory.images(
        start,
        policy=question.policy,
        class_name=question.vectors.name,
        side=question.other_side,
        beyond=0.0,
        limit=limit,
    )


def _reach(start: FloatArray, vectors: Sequence[FloatArray], limit: int) -> float:
    """How far from `start` a memory was searched when it returned these vectors, in degrees."""
    if len(vectors) < limit:
        return EVERYWHERE
    return max(degrees(start, vector) for vector in vectors)


def _hold(question: Question, held: dict[str, Neighbour], found: Sequence[Neighbour]) -> None:
    """Keep the nearest frame of every other image whose margin, computed again, flips."""
    for n in found:
        known = held.get(n.digest)
        nearer = known is None or n.vector @ question.z > known.vector @ question.z
        other = n.digest != question.digest
        if other and nearer and question.beyond(_margin(question, n), n.exact):
            held[n.digest] = n


def _image(question: Question, neighbour: Neighbour) -> CounterfactualImage:
    return CounterfactualImage(
        digest=neighbour.digest,
        degrees=degrees(question.z, neighbour.vector),
        margin=_margin(question, neighbour),
        decision=neighbour.decision,
    )


def _margin(question: Question, neighbour: Neighbour) -> float:
    return float(question.vectors.margins(neighbour.vector[None])[0])


def _diverse(start: FloatArray, vectors: Sequence[FloatArray] | FloatArray) -> list[int]:
    """The nearest and two others by maximal marginal relevance (Carbonell and Goldstein, 1998).

    Indices of (n, d), the nearest first; near-duplicates of what is chosen are left out.
    """
    if not len(vectors):
        return []
    v = np.asarray(vectors)  # (n, d)
    near: npt.NDArray[np.floating] = v @ start  # (n,)
    chosen = [int(near.argmax())]
    while len(chosen) < KEPT:
        likeness = (v @ v[chosen].T).max(axis=1)  # (n,)
        worth = np.where(likeness < SAME, near - 0.5 * likeness, -np.inf)
        best = int(worth.argmax())
        if worth[best] == -np.inf:
            break
        chosen.append(best)
    return sorted(chosen, key=lambda i: -float(near[i]))


def _no_image(question: Question, searched: float) -> str:
    return (
        f"None within {searched:.1f} degrees: of the images judged by this policy, no other one "
        f"so near is {question.other_side} for {question.vectors.name}."
    )


def _no_text(question: Question, carrying: int, searched: float, tried: int) -> str:
    done = f"{tried} of the bank's phrases were tried" if tried else "none of the bank's does"
    return (
        f"No wording within {searched:.1f} degrees of {question.prompt(carrying)!r} makes the "
        f"image {question.other_side} in its place; {done}."
    )


def others_flag(question: Question, carrying: int) -> str:
    """The sentence for a prompt that no wording can replace."""
    return (
        f"None within {EVERYWHERE:.1f} degrees: whatever stands in place of "
        f"{question.prompt(carrying)!r}, the other prompts of {question.vectors.name} flag the "
        "image."
    )
