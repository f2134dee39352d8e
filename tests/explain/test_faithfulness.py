"""What is claimed of test scenes holds: proofs tell right maps from wrong ones, answers flip."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from filter_service.demo import POLICY
from filter_service.demo.samples import as_submitted, moderation_scenes
from filter_service.demo.scenes import TEST_SEEDS
from filter_service.encoder import Encoder
from filter_service.explain.explainer import Explanations, FlaggedClass
from filter_service.explain.memory import ArrayMemory
from filter_service.explain.question import degrees
from filter_service.explain.relevance import Capture, RelevanceMap, capture
from filter_service.explain.words import Words
from filter_service.images.views import View
from filter_service.policy import read_policy
from filter_service.scoring import PolicyVectors
from filter_service.verdicts import score, threshold_margin
from filter_service.verdicts.explanation import Explanation
from filter_service.verdicts.faithfulness import Drops, Proof
from tests.support.precision import bundled

FIRST = TEST_SEEDS + 120_000_000  # scenes that guided no choice
SCENES = 340  # every third holds something forbidden
CASES = 100


class Shuffled(Explanations):
    """A deliberately wrong explainer: the right values, at random places."""

    def _maps(
        self, cases: Sequence[FlaggedClass], seen: Capture
    ) -> tuple[Sequence[RelevanceMap | None], str | None]:
        rng = np.random.default_rng(0)
        found, refusal = super()._maps(cases, seen)
        for m in found:
            assert m is not None
            m.grid[:] = rng.permutation(m.grid.ravel()).reshape(m.grid.shape)
        return found, refusal


class Exchanged(Explanations):
    """Another wrong explainer: the map of each flag is that of the one before."""

    def _maps(
        self, cases: Sequence[FlaggedClass], seen: Capture
    ) -> tuple[Sequence[RelevanceMap | None], str | None]:
        found, refusal = super()._maps(cases, seen)
        right = [m.grid.copy() for m in found if m is not None]
        for m, other in zip(found, right[-1:] + right[:-1], strict=True):
            assert m is not None
            m.grid[:] = other
        return found, refusal


@dataclass(frozen=True)
class Judged:
    """Test scenes as the bundled model sees them, and their flags."""

    encoder: Encoder
    vectors: PolicyVectors
    pixels: Tensor  # (n, 3, h, w)
    seen: Capture
    cases: list[FlaggedClass]

    @property
    def memory(self) -> ArrayMemory:
        """All of these scenes, each known by its row."""
        n = len(self.pixels)
        digests, exact = [digest(row) for row in range(n)], np.ones(n, dtype=np.bool_)
        return ArrayMemory(self.vectors, digests, self.seen.z, exact)

    def explained(self, kind: type[Explanations]) -> list[Explanation]:
        words = Words(self.encoder.encode_texts)
        return kind(self.encoder, self.vectors, [self.memory], words).explain(self.cases, self.seen)


def digest(row: int) -> str:
    return f"{row:064x}"


@pytest.fixture(scope="module")
def judged() -> Judged:
    encoder, policy = bundled(), read_policy(POLICY)
    vectors = encoder.vectors(policy)
    scenes = [s.scene for s in moderation_scenes(FIRST, SCENES)]
    pixels = torch.stack([encoder.pixels(as_submitted(scene)) for scene in scenes])
    seen = capture(encoder, pixels)
    margins = vectors.margins(seen.z)  # (n, classes)
    cases = [
        FlaggedClass(row, digest(row), pixels[row], s)
        for row in range(len(scenes))
        for s in score(margins[row : row + 1], (View(),), (True,), policy)
        if s.flagged
    ][:CASES]
    assert len(cases) == CASES
    return Judged(encoder, vectors, pixels, seen, cases)


@pytest.fixture(scope="module")
def records(judged: Judged) -> dict[type[Explanations], list[Explanation]]:
    """By the right and by the wrong explainers."""
    return {kind: judged.explained(kind) for kind in (Explanations, Shuffled, Exchanged)}


def test_the_right_map_is_called_faithful(
    records: dict[type[Explanations], list[Explanation]],
) -> None:
    faithful = sum(r.faithful for r in records[Explanations])
    print(f"right maps called faithful: {faithful} of {CASES}")
    assert faithful >= 90  # of the bundled model 95 are wanted, and missed: docs/faithfulness.md


def test_a_wrong_map_is_caught(records: dict[type[Explanations], list[Explanation]]) -> None:
    caught = sum(not r.faithful for r in records[Shuffled])
    print(f"wrong maps caught: {caught} of {CASES}")
    assert caught >= 95


def test_a_map_of_another_picture_is_caught(
    records: dict[type[Explanations], list[Explanation]],
) -> None:
    caught = sum(not r.faithful for r in records[Exchanged])
    print(f"other pictures' maps caught: {caught} of {CASES}")
    assert caught >= 85


def test_most_right_maps_are_specific(
    records: dict[type[Explanations], list[Explanation]],
) -> None:
    specific = sum(bool(r.specific) for r in records[Explanations])
    print(f"right maps called specific: {specific} of {CASES}")
    assert specific >= 75
    assert not any(r.specific and not r.faithful for r in records[Explanations])


def test_the_rule_does_not_depend_on_the_logit_scale(
    records: dict[type[Explanations], list[Explanation]],
) -> None:
    for record in records[Explanations]:
        proof = record.proof
        assert isinstance(proof, Proof) and proof.drops is not None
        scaled = [_scaled(d, 0.25) for d in (proof.drops, proof.next_drops) if d is not None]
        other = proof.model_copy(update={"drops": scaled[0], "next_drops": scaled[1]})
        assert (other.faithful, other.specific) == (proof.faithful, proof.specific)


def _scaled(drops: Drops, by: float) -> Drops:
    return Drops(
        marked=tuple(by * d for d in drops.marked),
        least=tuple(by * d for d in drops.least),
        random=tuple(tuple(by * d for d in row) for row in drops.random),
        whole=by * drops.whole,
        served=by * drops.served,
    )


def test_every_record_has_a_proof_whose_sums_hold(
    records: dict[type[Explanations], list[Explanation]],
) -> None:
    for record in records[Explanations]:
        proof = record.proof
        assert proof.explained_error is not None and proof.explained_error < 1e-4
        assert proof.sum_error is not None and proof.sum_error < 1e-4
        assert record.map is not None
        assert abs(record.map.total + record.map.remainder - record.margin) < 1e-3
        assert isinstance(proof, Proof) and proof.drops is not None


def test_every_counterfactual_image_gets_the_other_answer_from_its_pixels(
    judged: Judged, records: dict[type[Explanations], list[Explanation]]
) -> None:
    shown = 0
    for record in records[Explanations]:
        shown += bool(record.images)
        assert bool(record.images) != bool(record.no_images)
        forbidden = judged.vectors.policy.forbidden(record.class_name)
        index = judged.vectors.policy.classes.index(forbidden)
        for image in record.images:
            z = judged.encoder.encode(judged.pixels[int(image.digest, 16)][None])
            margin = float(judged.vectors.margins(z)[0, index])
            assert margin < threshold_margin(forbidden)
            assert abs(margin - image.margin) < 1e-3
    print(f"flagged test scenes with a counterfactual image: {shown} of {CASES}")
    assert shown >= 95


def test_the_first_counterfactual_image_is_the_nearest(
    judged: Judged, records: dict[type[Explanations], list[Explanation]]
) -> None:
    ratios = []
    for case, record in zip(judged.cases, records[Explanations], strict=True):
        forbidden = judged.vectors.policy.forbidden(record.class_name)
        index = judged.vectors.policy.classes.index(forbidden)
        clear = judged.vectors.margins(judged.seen.z)[:, index] < threshold_margin(forbidden)
        z = judged.seen.z[case.row]
        nearest = min(degrees(z, v) for v in judged.seen.z[clear])
        ratios.append(min(i.degrees for i in record.images) / nearest)
    print(f"angle against the nearest by brute force, median: {np.median(ratios):.4f}")
    assert np.median(ratios) <= 1.05
