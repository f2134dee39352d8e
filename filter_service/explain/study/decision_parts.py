"""The analyses of one decision, each by itself: what fills a field of its audit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from filter_service.encoder.probes import probes
from filter_service.encoder.view_pixels import full_size, pixels_of, views_of
from filter_service.errors import NotExplainable
from filter_service.explain.counterfactual import Memory, search_images
from filter_service.explain.explainer import Explanations, FlaggedClass
from filter_service.explain.question import Question, boundary
from filter_service.explain.regions import Suspect, sufficient_regions
from filter_service.explain.relevance import Capture, RelevanceMap, capture, read_one
from filter_service.explain.relevance_rules import EXACT
from filter_service.explain.study import inside, perturbation
from filter_service.explain.study.caption import Caption, caption
from filter_service.explain.study.decision_audit import Additivity, Pair, WordMap, WordRegions
from filter_service.explain.study.perturbation import MaskedAnswers
from filter_service.explain.study.phrases import PhraseDifference, difference
from filter_service.explain.study.prompt_edits import PromptEdits, edits, vocabulary
from filter_service.explain.words import Words
from filter_service.images import Image, decode
from filter_service.policy import ForbiddenClass
from filter_service.policy.coverage import Coverage
from filter_service.scoring import ClassVectors, FloatArray, PolicyVectors
from filter_service.verdicts import Score, score, threshold_margin
from filter_service.verdicts.explanation import Explanation, FlipRegion, Map

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

SHARE = 0.1  # of the places: what is taken out for the causal trace where no region flips


@dataclass(frozen=True)
class StudyCase:
    """One image and class, with what several parts ask for."""

    encoder: "Encoder"
    policy: PolicyVectors
    vectors: ClassVectors
    digest: str
    pixels: Tensor  # (3, h, w)
    size: tuple[int, int]  # of the frame in the file
    score: Score
    memories: Sequence[Memory]
    masks: int

    @classmethod
    def of(
        cls,
        encoder: "Encoder",
        policy: PolicyVectors,
        class_name: str,
        image: Image,
        memories: Sequence[Memory],
        masks: int,
    ) -> "StudyCase":
        views = views_of(image, encoder, policy.policy.coverage or Coverage.WHOLE)
        pixels = pixels_of(image, encoder, views)  # (n, 3, h, w)
        margins = policy.margins(encoder.encode(pixels))  # (n, classes)
        scores = score(margins, views, [True] * len(pixels), policy.policy)
        index = [c.name for c in policy.classes].index(class_name)
        worst = views.index(scores[index].view)
        vectors = policy.classes[index]
        return cls(
            encoder=encoder,
            policy=policy,
            vectors=vectors,
            digest=image.digest,
            pixels=pixels[worst],
            size=full_size(image, image.frame(views[worst].frame, views[worst].reading)),
            score=scores[index],
            memories=memories,
            masks=masks,
        )

    @property
    def forbidden(self) -> ForbiddenClass:
        return self.policy.policy.forbidden(self.vectors.name)

    @cached_property
    def seen(self) -> Capture:
        return capture(self.encoder, self.pixels[None])

    @property
    def z(self) -> FloatArray:
        return np.asarray(self.seen.z[0])  # (d,)

    @cached_property
    def words(self) -> Words:
        return Words(self.encoder.encode_texts)

    @cached_property
    def record(self) -> Explanation:
        explanations = Explanations(self.encoder, self.policy, self.memories, self.words)
        case = FlaggedClass(0, self.digest, self.pixels, self.score, self.size)
        return explanations.explain([case], self.seen)[0]

    @cached_property
    def question(self) -> Question:
        policy = self.policy.policy
        index = [c.name for c in policy.classes].index(self.vectors.name)
        band = float(self.encoder.band(policy)[index])
        return Question(self.digest, self.z, policy, self.vectors, band)

    @cached_property
    def suspect(self) -> Suspect:
        """Raises NotExplainable where there is no map."""
        (found,) = self.seen.maps([0], self.vectors.direction(self.z)[None, None])
        threshold = threshold_margin(self.forbidden)
        return Suspect(self.pixels, found.grid[0], self.vectors, threshold)

    @cached_property
    def answers(self) -> MaskedAnswers:
        """Of masked images, for all that learns from them; raises NotExplainable."""
        grid = read_one(self.encoder, self.pixels[None]).grid
        return MaskedAnswers.of(self.encoder, self.pixels, grid, self.masks)


def direction_map(relevance: RelevanceMap, index: int, score: float) -> Map:
    """One direction's map; what it leaves of the score is the remainder."""
    total = float(relevance.grid[index].sum(dtype=np.float64))
    return Map(
        method=relevance.method,
        grid=relevance.grid[index].astype(np.float16),
        total=total,
        remainder=score - total,
        high_norm=relevance.high_norm,
    )


def _additivity(case: StudyCase) -> Additivity:
    fit = perturbation.fitted(case.answers, case.vectors.direction(case.z))
    grid = read_one(case.encoder, case.pixels[None]).grid
    return Additivity(
        masks=len(case.answers.present),
        grid=grid,
        r_squared=_number(fit.r_squared),
        with_pairs=_number(fit.with_pairs),
        pairs=tuple(Pair(first=a, second=b, effect=effect) for a, b, effect in fit.pairs),
    )


def _number(r_squared: float) -> float:
    """Where all masked images are alike, there is nothing that a sum could miss."""
    return 1.0 if math.isnan(r_squared) else r_squared


def _word_regions(case: StudyCase) -> WordRegions:
    folded = case.words.vectors(
        case.question.prompt(case.question.carrying),
        case.policy.policy.templates_of(case.forbidden),
    )
    scale = case.vectors.logit_scale.factor
    whole = (folded.full - folded.empty)[None]
    directions = scale * np.concatenate([folded.folded, whole])  # (n + 1, d)
    (relevance,) = case.seen.maps([0], np.asarray(directions[None], dtype=np.float32), EXACT)
    scores = (directions.astype(np.float64) @ case.z).tolist()
    maps = [direction_map(relevance, i, value) for i, value in enumerate(scores)]
    return WordRegions(
        prompt=folded.prompt,
        words=tuple(
            WordMap(word=word, shapley=value, map=m)
            for word, value, m in zip(folded.units, scores, maps, strict=False)
        ),
        whole=maps[-1],
        gap=float(np.abs(relevance.grid[:-1].sum(axis=0) - relevance.grid[-1]).max()),
    )


def _sufficient(case: StudyCase) -> FlipRegion:
    if not case.score.flagged:
        raise NotExplainable("The image is not flagged, so no part of it is enough for a flag.")
    return sufficient_regions(case.encoder.screen, [case.suspect])[0]


def _rewordings(case: StudyCase) -> PromptEdits:
    question, carrying = case.question, case.question.carrying
    words = vocabulary(question, case.memories, carrying)
    return edits(question, carrying, words, case.encoder.encode_texts)


def _difference(case: StudyCase) -> PhraseDifference:
    near = search_images(case.question, case.memories, boundary(case.question))
    if not near.images:
        raise NotExplainable("There is no image with the other answer to set against this one.")
    return difference(case.question, near.vectors[0], case.memories)


def _contributions(case: StudyCase) -> inside.Contributions:
    return inside.contributions(case.encoder, case.vectors, case.pixels)


def _lens(case: StudyCase) -> inside.Lens:
    return inside.lens(case.encoder, case.vectors, case.pixels)


def _trace(case: StudyCase) -> inside.Trace:
    """Against the image without the region that flips, or without its strongest tenth."""
    suspect, region = case.suspect, case.record.region
    places = suspect.order[: max(1, round(SHARE * suspect.grid.size))].tolist()
    if case.score.flagged and region is not None and region.flips:
        places = list(region.places)
    return inside.trace(case.encoder, case.vectors, case.pixels, inside.removed(suspect, places))


def _neurons(case: StudyCase) -> inside.Neurons:
    """Their means are those over the painted pictures that the encoder is probed with."""
    painted = (decode(file).frames[0].picture for file in probes(case.encoder.input_size))
    references = torch.stack([case.encoder.pixels(frame) for frame in painted])
    return inside.neurons(
        case.encoder, case.vectors, case.pixels, references.expand(-1, *case.pixels.shape)
    )


def _caption(case: StudyCase) -> Caption:
    tokenizer: Any = case.encoder.tokenizer
    return caption(case.encoder, tokenizer, case.pixels)


PARTS: dict[str, Callable[[StudyCase], Any]] = {
    "additivity": _additivity,
    "word_regions": _word_regions,
    "sufficient": _sufficient,
    "rewordings": _rewordings,
    "difference": _difference,
    "contributions": _contributions,
    "lens": _lens,
    "trace": _trace,
    "neurons": _neurons,
    "caption": _caption,
}
"""What an audit adds to the record and its maps: the field, and what fills it."""
