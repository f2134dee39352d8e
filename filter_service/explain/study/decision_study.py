"""Runs every analysis of one decision: the record, and those too costly for every flag.

Each part stands by itself: what cannot be told of a model is left out, and a sentence says why.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
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
from filter_service.explain.study.methods import METHODS, ByMasking, Method
from filter_service.explain.study.perturbation import MaskedAnswers
from filter_service.explain.study.phrases import PhraseDifference, difference
from filter_service.explain.study.prompt_edits import PromptEdits, edits, vocabulary
from filter_service.explain.words import Words
from filter_service.images import Image, decode
from filter_service.policy import ForbiddenClass
from filter_service.policy.coverage import Coverage
from filter_service.rendering.overlay import is_part
from filter_service.scoring import ClassVectors, FloatArray, PolicyVectors
from filter_service.verdicts import Score, proven_claims, score, threshold_margin
from filter_service.verdicts.explanation import Explanation, FlipRegion, Map

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

ADDITIVE = 0.8  # held-out R-squared from which a decision is explainable additively
SHARE = 0.1  # of the places: what is taken out for the causal trace where no region flips


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class MethodMap(_Frozen):
    """What one method made of the margin, or the sentence with which it refused."""

    name: str
    map: Map | None
    refusal: str | None = None


class Agreement(_Frozen):
    """Spearman's rank correlation of the maps of integrated gradients, baseline by baseline."""

    names: tuple[str, ...]
    correlations: tuple[tuple[float, ...], ...]


class Pair(_Frozen):
    """Two places that do together what neither does alone."""

    first: int  # index into the flattened grid
    second: int
    effect: float  # logits, when both are there


class Additivity(_Frozen):
    """How well sums over places account for what the model says of masked images."""

    masks: int
    grid: tuple[int, int]
    r_squared: float  # on held-out masks: places alone
    with_pairs: float  # on held-out masks: with pairs of the strongest places
    pairs: tuple[Pair, ...]  # the strongest first

    @property
    def additive(self) -> bool:
        return self.r_squared >= ADDITIVE


class WordMap(_Frozen):
    """Where one word of a prompt finds what it says."""

    word: str
    shapley: float  # logits: grid and remainder add up to it
    map: Map


class WordRegions(_Frozen):
    """Words by places: the words' maps add up to that of the whole prompt less the empty one."""

    prompt: str
    words: tuple[WordMap, ...]
    whole: Map
    gap: float  # logits: how far the sum of the words' maps lies from it, at most


class Audit(_Frozen):
    """One decision, asked in every way; a part is None where `refused` says why, or was not asked.

    For an image that is not flagged `record.region` means nothing.
    """

    digest: str
    flagged: bool  # for this class
    clause: str
    prompts: tuple[str, ...]
    neutral: tuple[str, ...]
    templates: tuple[str, ...]
    threshold_margin: float  # logits
    preprocessing: dict[str, Any]
    record: Explanation
    maps: tuple[MethodMap, ...]
    agreement: Agreement | None = None
    additivity: Additivity | None = None
    word_regions: WordRegions | None = None
    sufficient: FlipRegion | None = None
    rewordings: PromptEdits | None = None
    difference: PhraseDifference | None = None
    contributions: inside.Contributions | None = None
    lens: inside.Lens | None = None
    trace: inside.Trace | None = None
    neurons: inside.Neurons | None = None
    caption: Caption | None = None
    refused: dict[str, str]  # name of a part -> why it is not there

    @property
    def region(self) -> FlipRegion | None:
        """The part of the image without which it would not be flagged, if there is one."""
        found = self.record.region
        if not self.flagged or found is None or self.record.map is None:
            return None
        return found if is_part(found, self.record.map) else None

    @property
    def necessary(self) -> str:
        """What that part does, in a sentence."""
        return proven_claims.necessary(self.record, outlined=False)

    @property
    def claim(self) -> str:
        """What the faithfulness test proves, in sentences."""
        return proven_claims.tested(self.record)


def audit(
    encoder: "Encoder",
    vectors: PolicyVectors,
    class_name: str,
    image: Image,
    memories: Sequence[Memory] = (),
    methods: Mapping[str, Method] = METHODS,
    whole: bool = True,
    masks: int = perturbation.COUNT,
) -> Audit:
    """Explain an image for one class, be it flagged or not, by the worst of its views.

    Maps are made by `methods`; without `whole` they are all that is added to the record. `masks` is
    how many masked images the regressions learn from.
    """
    case = _Decision.of(encoder, vectors, class_name, image, memories, masks)
    maps = tuple(_drawn(case, name, method) for name, method in methods.items())
    found: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, part in PARTS.items() if whole else ():
        try:
            found[name] = part(case)
        except NotExplainable as error:
            refused[name] = str(error)
    if whole:
        found["agreement"] = _agreement([m for m in maps if m.name.startswith("ig-")])
        if found["agreement"] is None:
            refused["agreement"] = "Fewer than two maps of integrated gradients can be compared."
    forbidden, policy = case.forbidden, vectors.policy
    return Audit(
        digest=image.digest,
        flagged=case.score.flagged,
        clause=forbidden.clause,
        prompts=forbidden.prompts,
        neutral=policy.neutral_of(forbidden),
        templates=policy.templates_of(forbidden),
        threshold_margin=threshold_margin(forbidden),
        preprocessing=encoder.details["preprocessing"],
        record=case.record,
        maps=maps,
        refused=refused,
        **found,
    )


@dataclass(frozen=True)
class _Decision:
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
    ) -> "_Decision":
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


@dataclass(frozen=True)
class _Sharing(ByMasking):
    """A regression on masked images that are there already."""

    known: MaskedAnswers | None = None

    def answers(self, encoder: "Encoder", x: Tensor, grid: tuple[int, int]) -> MaskedAnswers:
        assert self.known is not None
        return self.known


def _drawn(case: _Decision, name: str, method: Method) -> MethodMap:
    try:
        if isinstance(method, ByMasking):
            method = _Sharing(method.name, method.values, case.masks, case.answers)
        u = case.vectors.direction(case.z)  # (d,)
        (found,) = method(case.encoder, case.pixels[None], u[None, None])
    except NotExplainable as error:
        return MethodMap(name=name, map=None, refusal=str(error))
    return MethodMap(name=name, map=_map(found, 0, case.score.margin))


def _map(found: RelevanceMap, index: int, score: float) -> Map:
    """One direction's map; what it leaves of the score is the remainder."""
    total = float(found.grid[index].sum(dtype=np.float64))
    return Map(
        method=found.method,
        grid=found.grid[index].astype(np.float16),
        total=total,
        remainder=score - total,
        high_norm=found.high_norm,
    )


def _agreement(maps: Sequence[MethodMap]) -> Agreement | None:
    drawn = [(m.name, m.map.grid.ravel()) for m in maps if m.map is not None]
    if len(drawn) < 2:
        return None
    ranks = np.stack([_ranks(grid) for _, grid in drawn])  # (maps, places)
    with np.errstate(invalid="ignore"):  # a flat map agrees with none: NaN
        correlations: npt.NDArray[np.float64] = np.asarray(np.corrcoef(ranks))
    return Agreement(
        names=tuple(name.removeprefix("ig-").replace("-", " ") for name, _ in drawn),
        correlations=tuple(map(tuple, correlations.tolist())),
    )


def _ranks(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Ranks, equal values sharing the mean of theirs: (n,) -> (n,)."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where], dtype=np.float64)


def _additivity(case: _Decision) -> Additivity:
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


def _word_regions(case: _Decision) -> WordRegions:
    folded = case.words.vectors(
        case.question.prompt(case.question.carrying),
        case.policy.policy.templates_of(case.forbidden),
    )
    scale = case.vectors.head.scale
    whole = (folded.full - folded.empty)[None]
    directions = scale * np.concatenate([folded.folded, whole])  # (n + 1, d)
    (found,) = case.seen.maps([0], np.asarray(directions[None], dtype=np.float32), EXACT)
    scores = (directions.astype(np.float64) @ case.z).tolist()
    maps = [_map(found, i, value) for i, value in enumerate(scores)]
    return WordRegions(
        prompt=folded.prompt,
        words=tuple(
            WordMap(word=word, shapley=value, map=m)
            for word, value, m in zip(folded.units, scores, maps, strict=False)
        ),
        whole=maps[-1],
        gap=float(np.abs(found.grid[:-1].sum(axis=0) - found.grid[-1]).max()),
    )


def _sufficient(case: _Decision) -> FlipRegion:
    if not case.score.flagged:
        raise NotExplainable("The image is not flagged, so no part of it is enough for a flag.")
    return sufficient_regions(case.encoder.screen, [case.suspect])[0]


def _rewordings(case: _Decision) -> PromptEdits:
    question, carrying = case.question, case.question.carrying
    words = vocabulary(question, case.memories, carrying)
    return edits(question, carrying, words, case.encoder.encode_texts)


def _difference(case: _Decision) -> PhraseDifference:
    near = search_images(case.question, case.memories, boundary(case.question))
    if not near.images:
        raise NotExplainable("There is no image with the other answer to set against this one.")
    return difference(case.question, near.vectors[0], case.memories)


def _contributions(case: _Decision) -> inside.Contributions:
    return inside.contributions(case.encoder, case.vectors, case.pixels)


def _lens(case: _Decision) -> inside.Lens:
    return inside.lens(case.encoder, case.vectors, case.pixels)


def _trace(case: _Decision) -> inside.Trace:
    """Against the image without the region that flips, or without its strongest tenth."""
    suspect, region = case.suspect, case.record.region
    places = suspect.order[: max(1, round(SHARE * suspect.grid.size))].tolist()
    if case.score.flagged and region is not None and region.flips:
        places = list(region.places)
    return inside.trace(case.encoder, case.vectors, case.pixels, inside.removed(suspect, places))


def _neurons(case: _Decision) -> inside.Neurons:
    """Their means are those over the painted pictures that the encoder is probed with."""
    painted = (decode(file).frames[0].picture for file in probes(case.encoder.input_size))
    references = torch.stack([case.encoder.pixels(frame) for frame in painted])
    return inside.neurons(
        case.encoder, case.vectors, case.pixels, references.expand(-1, *case.pixels.shape)
    )


def _caption(case: _Decision) -> Caption:
    tokenizer: Any = case.encoder.tokenizer
    return caption(case.encoder, tokenizer, case.pixels)


PARTS: dict[str, Callable[[_Decision], Any]] = {
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
