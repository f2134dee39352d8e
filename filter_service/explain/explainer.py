"""Explains flags in batches: map, words, counterfactuals, flip region, faithfulness test."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from filter_service.errors import NotExplainable
from filter_service.explain import faithfulness_trial, regions
from filter_service.explain.counterfactual import Memory, search_images, search_texts
from filter_service.explain.faithfulness_trial import MapTest, Trial
from filter_service.explain.question import Question, boundary, degrees
from filter_service.explain.regions import Suspect
from filter_service.explain.relevance import Capture, RelevanceMap
from filter_service.explain.relevance_rules import EXACT
from filter_service.explain.words import Words
from filter_service.policy import Policy
from filter_service.scoring import ClassVectors, FloatArray, PolicyVectors
from filter_service.settings import VERSION
from filter_service.verdicts import Score, threshold_margin
from filter_service.verdicts.explanation import (
    Explanation,
    FlipRegion,
    Map,
    PromptWords,
    Provenance,
)
from filter_service.verdicts.faithfulness import Proof

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

CARRYING = 0.25  # share of a class's evidence from which a prompt's words are explained
_Weighted = list[tuple[int, float]]  # prompts by index, with their shares of the evidence


@dataclass(frozen=True)
class FlaggedClass:
    """One flagged image and class: the row of the capture that confirmed it."""

    row: int
    digest: str
    pixels: Tensor  # (3, h, w), as captured
    score: Score
    size: tuple[int, int] | None = None  # of the frame in the file, pixels


@dataclass(frozen=True)
class Explanations:
    """Explains flags; built once for a policy and an encoder."""

    encoder: "Encoder"
    vectors: PolicyVectors
    memories: Sequence[Memory]
    words: Words

    def explain(self, cases: Sequence[FlaggedClass], seen: Capture) -> list[Explanation]:
        """One record per case; masked forward passes are shared by all of them."""
        maps, refusal = self._maps(cases, seen)
        trials = [
            self._trial(case, relevance, seen.z[case.row])
            for case, relevance in zip(cases, maps, strict=True)
            if relevance is not None
        ]
        tested = faithfulness_trial.put_to_test(self.encoder.screen, trials)
        flips = regions.flip_regions(
            self.encoder.screen, [t.suspect for t in trials], [t.known for t in tested]
        )
        done = zip(trials, tested, flips, strict=True)
        return [
            self._record(case, seen, relevance, refusal, None if relevance is None else next(done))
            for case, relevance in zip(cases, maps, strict=True)
        ]

    def _maps(
        self, cases: Sequence[FlaggedClass], seen: Capture
    ) -> tuple[Sequence[RelevanceMap | None], str | None]:
        rows = [c.row for c in cases]
        directions = np.stack([self._of(c).direction(seen.z[c.row]) for c in cases])[:, None]
        try:
            return seen.maps(rows, directions), None  # directions: (n, 1, d)
        except NotExplainable as error:
            return [None] * len(cases), str(error)

    def _of(self, case: FlaggedClass) -> ClassVectors:
        return next(c for c in self.vectors.classes if c.name == case.score.class_name)

    def _trial(self, case: FlaggedClass, found: RelevanceMap, z: FloatArray) -> Trial:
        own, forbidden = self._of(case), self.vectors.policy.forbidden(case.score.class_name)
        suspect = Suspect(case.pixels, found.grid[0], own, threshold_margin(forbidden))
        return Trial(suspect, z, self._next(own, z))

    def _next(self, own: ClassVectors, z: FloatArray) -> ClassVectors | None:
        """The other class with the highest margin; nothing is told of those that are sealed."""
        told = {c.name for c in self.vectors.policy.classes if c.sealed is None} - {own.name}
        others = [c for c in self.vectors.classes if c.name in told]
        return max(others, key=lambda c: float(c.margins(z[None])[0]), default=None)

    def _record(
        self,
        case: FlaggedClass,
        seen: Capture,
        relevance: RelevanceMap | None,
        refusal: str | None,
        done: tuple[Trial, MapTest, FlipRegion] | None,
    ) -> Explanation:
        policy, vectors, z = self.vectors.policy, self._of(case), seen.z[case.row]
        index = [c.name for c in policy.classes].index(vectors.name)
        band = float(self.encoder.band(policy)[index])
        question = Question(case.digest, z, policy, vectors, band)
        edge = boundary(question)
        near = search_images(question, self.memories, edge)
        carrying = _carrying(vectors, z)
        encode_texts = self.encoder.encode_texts
        worded = search_texts(question, self.memories, carrying[0][0], encode_texts)
        return Explanation(
            class_name=vectors.name,
            frame=case.score.frame,
            view=case.score.view.name,
            size=case.size,
            margin=case.score.margin,
            probability=case.score.probability,
            threshold=case.score.threshold,
            calibrated=policy.forbidden(vectors.name).calibration is not None,
            boundary_degrees=None if edge is None else degrees(z, edge),
            map=None if relevance is None else _map(relevance, case.score.margin),
            no_map=refusal,
            words=self._words(vectors, z, carrying, seen, case.row),
            images=near.images,
            no_images=near.none,
            texts=worded.texts,
            no_texts=worded.none,
            region=None if done is None else done[2],
            proof=Proof.none()
            if relevance is None or done is None
            else _proof(relevance, *done[:2]),
            provenance=self._provenance(policy),
        )

    def _words(
        self, vectors: ClassVectors, z: FloatArray, carrying: _Weighted, seen: Capture, row: int
    ) -> tuple[PromptWords, ...]:
        """The words of the carrying prompts, with their maps where the tower has any."""
        policy, scale = self.vectors.policy, vectors.logit_scale.factor
        forbidden = policy.forbidden(vectors.name)
        templates = policy.templates_of(forbidden)
        folded = [self.words.vectors(forbidden.prompts[i], templates) for i, _ in carrying]
        directions = scale * np.concatenate([f.folded for f in folded])  # (all words, d)
        grids: list[FloatArray | None] = [None] * len(folded)
        with suppress(NotExplainable):  # the record says why there is no map
            (relevance,) = seen.maps([row], np.asarray(directions[None], dtype=np.float32), EXACT)
            ends = np.cumsum([len(f.units) for f in folded])
            grids = list(np.split(relevance.grid, ends[:-1]))
        return tuple(
            f.values(z, scale, weight, grid)
            for f, (_, weight), grid in zip(folded, carrying, grids, strict=True)
        )

    def _provenance(self, policy: Policy) -> Provenance:
        return Provenance(
            encoder=self.encoder.name,
            fingerprint=self.encoder.fingerprint,
            policy=policy.name,
            policy_digest=policy.digest,
            code=VERSION,
            seed=faithfulness_trial.SEED,
        )


def _carrying(vectors: ClassVectors, z: FloatArray) -> _Weighted:
    """The one or two prompts that carry the margin, with their shares of the evidence."""
    logits = vectors.logit_scale.factor * (vectors.prompts.astype(np.float64) @ z)  # (p,)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")[:2]
    return [
        (int(i), float(weights[i])) for n, i in enumerate(order) if not n or weights[i] > CARRYING
    ]


def _map(relevance: RelevanceMap, margin: float) -> Map:
    total = float(relevance.grid[0].sum(dtype=np.float64))
    constant = margin - float(relevance.explained[0])  # the margin is u . z plus this
    return Map(
        method=relevance.method,
        grid=relevance.grid[0].astype(np.float16),
        total=total,
        remainder=float(relevance.remainder[0]) + constant,
        high_norm=relevance.high_norm,
    )


def _proof(relevance: RelevanceMap, trial: Trial, tested: MapTest) -> Proof:
    account = float(relevance.grid[0].sum(dtype=np.float64) + relevance.remainder[0])
    served = float(trial.suspect.vectors.direction(trial.z) @ trial.z)
    return Proof(
        explained_error=abs(float(relevance.explained[0]) - served),
        sum_error=abs(account - float(relevance.explained[0])),
        shares=faithfulness_trial.SHARES,
        drops=tested.drops,
        next_class=trial.next.name if trial.next else None,
        next_drops=tested.next_drops,
    )
