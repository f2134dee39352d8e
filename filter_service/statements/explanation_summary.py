"""Summarises an explanation in words: where in the picture, and which words of the prompt."""

from dataclasses import dataclass

import numpy as np

from filter_service.verdicts.explanation import Explanation, Map, PromptWords

PLACES = (  # of the picture, row by row; templates call them by these names
    *("upper_left", "top", "upper_right"),
    *("left", "middle", "right"),
    *("lower_left", "bottom", "lower_right"),
)
ENOUGH = 0.5  # of the evidence lies in the places that are named
MOST_PLACES = 3
MOST_WORDS = 3
MATTERS = 0.25  # of what the strongest word adds


@dataclass(frozen=True, slots=True)
class ExplanationSummary:
    """As much of an explanation as people are told."""

    places: tuple[str, ...]  # strongest first
    prompt: str | None  # that carried most
    words: tuple[str, ...]  # of it, strongest first
    tested: bool  # the map was put to a test
    faithful: bool  # and passed it

    @classmethod
    def of(cls, record: Explanation) -> "ExplanationSummary":
        prompt = max(record.words, key=lambda p: p.weight, default=None)
        return cls(
            places=where(record.map) if record.map else (),
            prompt=prompt.prompt if prompt else None,
            words=which(prompt) if prompt else (),
            tested=record.proof.tested,
            faithful=record.faithful,
        )


def where(map: Map) -> tuple[str, ...]:
    """The ninths of the picture that hold most of what speaks for the class."""
    grid = np.maximum(map.grid.astype(np.float64), 0)  # (h, w)
    total = float(grid.sum())
    if total <= 0:
        return ()
    rows, columns = (np.arange(n) * 3 // n for n in grid.shape)
    ninths = np.zeros((3, 3))
    np.add.at(ninths, (rows[:, None], columns[None, :]), grid)
    order = np.argsort(-ninths, axis=None, kind="stable")[:MOST_PLACES]
    shares = ninths.flat[order].cumsum() / total
    count = min(int((shares < ENOUGH).sum()) + 1, MOST_PLACES)
    return tuple(PLACES[i] for i in order[:count])


def which(prompt: PromptWords) -> tuple[str, ...]:
    """The words that added most, by which both ways of leaving them out agree."""
    words = sorted(prompt.words, key=lambda w: -w.shapley)
    sure = [w for w in words if w.shapley > 0 and not w.doubtful]
    told = [w.word for w in sure if w.shapley >= MATTERS * sure[0].shapley]
    return tuple(dict.fromkeys(told))[:MOST_WORDS]
