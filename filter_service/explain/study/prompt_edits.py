"""Finds the edits of one or two words of a prompt that change the answer.

Every edit is encoded as the policy would word it, with the class's templates, and kept only if the
real margin with it lies on the other side of the threshold.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel

from filter_service.explain.counterfactual import KEPT, Memory, others_flag
from filter_service.explain.question import Question, degrees
from filter_service.scoring import EncodeTexts, FloatArray
from filter_service.verdicts import Verdict

PHRASES = 20  # of the bank, whose words are tried
PAIRED = 12  # one-word edits that are tried two by two: those that come nearest to flipping
ARTICLES = frozenset({"a", "an", "the"})  # no words of their own: a and an follow what comes next
BOTH_DELETED = 28  # pairs of words that are deleted together, at most


class PromptEdit(BaseModel, frozen=True, extra="forbid"):
    """A prompt with one or two words changed, with which the image gets the other answer."""

    text: str
    replaces: str
    changes: tuple[tuple[str, str], ...]  # word -> what stands for it; empty: deleted
    degrees: float  # angle between the two wordings
    margin: float


class PromptEdits(BaseModel, frozen=True, extra="forbid"):
    """The smallest edits of a prompt that flip, the nearest first; or how far there is none."""

    edits: tuple[PromptEdit, ...]
    tried: int
    none: str | None  # the sentence, when there is none


Changes = tuple[tuple[int, str], ...]  # place of a word -> what stands for it; empty: deleted


@dataclass(frozen=True, slots=True)
class _Tried:
    """An edit, encoded and judged."""

    changes: Changes
    vector: FloatArray  # (d,) unit
    margin: float


def vocabulary(question: Question, memories: Iterable[Memory], carrying: int) -> tuple[str, ...]:
    """Words to try in a prompt: of the bank's phrases that flip in its place, and of the neutrals.

    The bank's come first, the nearest phrase's before the others'.
    """
    level = question.level(carrying)
    if level is None:
        return ()
    near, side = question.vectors.prompts[carrying], question.other_side  # (d,)
    phrases = [
        phrase.text
        for memory in memories
        for phrase in memory.phrases(question.z, near=near, side=side, level=level, limit=PHRASES)
    ]
    neutral = question.policy.neutral_of(question.policy.forbidden(question.vectors.name))
    words = dict.fromkeys(w for text in (*phrases, *neutral) for w in text.split())
    return tuple(w for w in words if w not in ARTICLES)


def edits(
    question: Question, carrying: int, words: Sequence[str], encode_texts: EncodeTexts
) -> PromptEdits:
    """Up to three edits of a prompt that give the image the other answer; `words` stand for others.

    All edits of one word are tried. Two words are changed together only where neither change flips
    by itself, so that no edit is larger than it has to be; not all pairs are tried, but those of
    the one-word edits that come nearest to flipping, and of deletions.
    """
    prompt = question.prompt(carrying).split()
    if question.level(carrying) is None:
        return PromptEdits(edits=(), tried=0, none=others_flag(question, carrying))
    single = [
        ((place, word),)
        for place, changed in enumerate(prompt)
        for word in ("", *words)
        if changed not in ARTICLES and word not in prompt
    ]
    ones = _try(question, carrying, single, encode_texts)
    flipping = [t for t in ones if question.beyond(t.margin)]
    tried = ones
    if len(flipping) < KEPT:
        twos = _try(question, carrying, _pairs(question, ones), encode_texts)
        flipping += [t for t in twos if question.beyond(t.margin)]
        tried = ones + twos
    start = question.vectors.prompts[carrying]  # (d,)
    flipping.sort(key=lambda t: (len(t.changes), degrees(start, t.vector)))
    return PromptEdits(
        edits=tuple(_edit(question, carrying, t) for t in flipping[:KEPT]),
        tried=len(tried),
        none=None if flipping else _none(question, carrying, tried),
    )


def _pairs(question: Question, ones: Sequence[_Tried]) -> list[Changes]:
    """Two changes at different places, of which neither flips by itself."""
    sign = 1.0 if question.other_side is Verdict.CLEAR else -1.0
    short = sorted(
        (t for t in ones if not question.beyond(t.margin)), key=lambda t: sign * t.margin
    )
    deletions = [t for t in short if not t.changes[0][1]]
    both = [
        *itertools.combinations(short[:PAIRED], 2),
        *itertools.islice(itertools.combinations(deletions, 2), BOTH_DELETED),
    ]
    pairs = (tuple(sorted((*a.changes, *b.changes))) for a, b in both)
    return list(dict.fromkeys(p for p in pairs if p[0][0] != p[1][0]))


def _try(
    question: Question, carrying: int, changes: Sequence[Changes], encode_texts: EncodeTexts
) -> list[_Tried]:
    """Encode and judge edits; those that leave no word are none."""
    words = question.prompt(carrying).split()
    texts = {text: c for c in changes if (text := _text(words, c))}
    if not texts:
        return []
    vectors = question.worded(list(texts), encode_texts)  # (n, d)
    return [
        _Tried(c, vector, question.reworded(carrying, vector))
        for c, vector in zip(texts.values(), vectors, strict=True)
    ]


def _text(words: Sequence[str], changes: Changes) -> str:
    """The edited prompt, empty if no word is left; an article follows the word that changed."""
    edited = list(words)
    for place, word in changes:
        edited[place] = word
    remaining = [(place, word) for place, word in enumerate(edited) if word]
    if ARTICLES.issuperset(word for _, word in remaining):
        return ""
    touched = {place for place, _ in changes}
    for i, ((place, word), (_, following)) in enumerate(itertools.pairwise(remaining)):
        if word in ("a", "an") and place not in touched and place + 1 in touched:
            remaining[i] = (place, "an" if following[0].lower() in "aeiou" else "a")
    return " ".join(word for _, word in remaining)


def _edit(question: Question, carrying: int, tried: _Tried) -> PromptEdit:
    words = question.prompt(carrying).split()
    return PromptEdit(
        text=_text(words, tried.changes),
        replaces=question.prompt(carrying),
        changes=tuple((words[place], word) for place, word in tried.changes),
        degrees=degrees(question.vectors.prompts[carrying], tried.vector),
        margin=tried.margin,
    )


def _none(question: Question, carrying: int, tried: Sequence[_Tried]) -> str:
    start = question.vectors.prompts[carrying]  # (d,)
    furthest = float(np.max([degrees(start, t.vector) for t in tried], initial=0.0))
    return (
        f"None within {furthest:.1f} degrees: none of the {len(tried)} one- and two-word edits of "
        f"{question.prompt(carrying)!r} that were tried makes the image {question.other_side}."
    )
