"""The view model of an explanation on a page: scale, coloured words, test result."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from filter_service.policy import ForbiddenClass
from filter_service.rendering.formats import number, percent
from filter_service.rendering.overlay import full_colour, is_part
from filter_service.verdicts import (
    probability,
    probability_interval,
    proven_claims,
    threshold_margin,
)
from filter_service.verdicts.explanation import Explanation, PromptWords

STEPS = (0.3, 1.0, 2.0, 4.0, 8.0)  # logits at which a word takes the next colour, on every page
TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
REACH = 9.0  # logits: the scale ends here on both sides
ROOM = 2.5  # percent that are left free at both ends


@dataclass(frozen=True, slots=True)
class Scale:
    """A probability and its threshold on a line whose steps are logits: places in percent."""

    at: float
    threshold: float
    certain: float | None  # from where on a flag acts by itself
    ticks: tuple[tuple[float, str], ...]

    @property
    def over(self) -> bool:
        return self.at >= self.threshold

    @property
    def start(self) -> float:
        return min(self.at, self.threshold)

    @property
    def width(self) -> float:
        return abs(self.at - self.threshold)

    def anchor(self, at: float) -> str:
        """How a text is to be set so that it stays on the scale."""
        return "start" if at < 15 else "end" if at > 85 else "middle"


@dataclass(frozen=True, slots=True)
class ColouredWord:
    """One word with its Shapley value, its colour, and the picture of its regions."""

    text: str
    logits: float
    colour: str  # a class of the stylesheet
    doubtful: bool
    regions: str | None


@dataclass(frozen=True, slots=True)
class ColouredPrompt:
    """A prompt that carries the evidence."""

    weight: float
    words: tuple[ColouredWord, ...]


@dataclass(frozen=True)
class ClassEvidence:
    """One class of one item, explained or at least measured."""

    item_id: int
    forbidden: ForbiddenClass
    margin: float
    probability: float
    record: Explanation | None

    @property
    def name(self) -> str:
        return self.forbidden.name

    @property
    def over(self) -> float:
        """Logits above the threshold."""
        return self.margin - threshold_margin(self.forbidden)

    @property
    def calibration(self) -> str:
        """What its probability rests on, and between what it lies; empty: it is uncalibrated."""
        known = self.forbidden.calibration
        between = probability_interval(self.margin, self.forbidden)
        if known is None or known.origin is None or between is None:
            return ""
        low, high = map(percent, between)
        origin = known.origin
        return (
            f"Calibrated on {origin.reviews} reviews until {origin.until:%d %b %Y}: between {low} "
            f"and {high}, with 90 % confidence."
        )

    @property
    def scale(self) -> Scale:
        ticks = tuple((_place(t), percent(t).removesuffix(" %")) for t in TICKS)
        certain = self.forbidden.certain
        return Scale(
            _place(self.probability),
            _place(self.forbidden.threshold),
            None if certain is None else _place(certain),
            ticks,
        )

    @property
    def faithful(self) -> bool:
        return self.record is not None and self.record.map is not None and self.record.faithful

    @property
    def full_colour(self) -> float:
        """Logits of a place of the map that has the full colour."""
        if self.record is None or self.record.map is None:
            return 0.0
        return full_colour(self.record.map, self.record.margin)

    @property
    def proof(self) -> str:
        """The test of the map in one line; empty where there was none."""
        if self.record is None or self.record.proof.top_drop is None:
            return ""
        random = self.record.proof.random_drops
        drop, chance = self.record.proof.top_drop, sum(random) / max(1, len(random))
        said = f"Without the marked tenth the evidence {_falls(drop)}, without a random tenth "
        same = drop >= 0 and chance >= 0  # "falls by 4.1, … by 0.3"
        return f"{said}{_falls(chance).removeprefix('falls ') if same else 'it ' + _falls(chance)}."

    @property
    def claim(self) -> str:
        """What the test proves, and what it does not; empty where there was none."""
        return proven_claims.tested(self.record) if self.record else ""

    @property
    def decides(self) -> bool:
        """A part of the picture decides, so that it can be outlined."""
        r = self.record
        return bool(r and r.region and r.map and is_part(r.region, r.map))

    @property
    def region(self) -> str:
        """What the region that decides says; empty where none was looked for."""
        return proven_claims.necessary(self.record, outlined=self.faithful) if self.record else ""

    @property
    def prompts(self) -> tuple[ColouredPrompt, ...]:
        return tuple(self._prompts())

    def _prompts(self) -> Iterator[ColouredPrompt]:
        first = 0
        for prompt in self.record.words if self.record else ():
            yield ColouredPrompt(prompt.weight, tuple(self._words(prompt, first)))
            first += len(prompt.words)

    def _words(self, prompt: PromptWords, first: int) -> Iterator[ColouredWord]:
        asked = urlencode({"class": self.name})
        for n, word in enumerate(prompt.words, first):
            regions = f"/pictures/{self.item_id}/word/{n}?{asked}"
            yield ColouredWord(
                word.word,
                word.shapley,
                _colour(word.shapley),
                word.unsure,
                regions if self.faithful and word.grid is not None else None,
            )


def evidence(
    item_id: int, forbidden: ForbiddenClass, margin: float, record: Explanation | None
) -> ClassEvidence:
    """From what was measured, with the explanation if there is one."""
    if record is not None:
        return ClassEvidence(item_id, forbidden, record.margin, record.probability, record)
    return ClassEvidence(item_id, forbidden, margin, probability(margin, forbidden), None)


def _place(probability: float) -> float:
    """Where a probability lies on the scale, in percent of its length."""
    bounded = min(max(probability, 1e-9), 1 - 1e-9)
    logit = max(-REACH, min(REACH, math.log(bounded / (1 - bounded))))
    return round(ROOM + (100 - 2 * ROOM) * (logit + REACH) / (2 * REACH), 2)


def _colour(logits: float) -> str:
    step = sum(abs(logits) >= s for s in STEPS)
    return f"{'for' if logits > 0 else 'against'}-{step}" if step else "neither"


def _falls(drop: float) -> str:
    return f"falls by {number(drop)}" if drop >= 0 else f"rises by {number(-drop)}"
