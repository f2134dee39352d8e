"""Does the proof in every record tell a right map from a wrong one? On scenes never chosen by."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from filter_service.demo.samples import as_submitted, moderation_scenes
from filter_service.demo.scenes import TEST_SEEDS
from filter_service.demo.thresholds import FILE as POLICY
from filter_service.encoder import load_encoder
from filter_service.explain.explanation import Case, Explanations
from filter_service.explain.record import Explanation
from filter_service.explain.relevance import Capture, RelevanceMap, capture
from filter_service.explain.words import Words
from filter_service.policy import read_policy
from filter_service.verdicts import score

SCENES = 340  # every third holds something forbidden
CASES = 100


class Shuffled(Explanations):
    """A deliberately wrong explainer: the right values, at random places."""

    def _maps(
        self, cases: Sequence[Case], seen: Capture
    ) -> tuple[Sequence[RelevanceMap | None], str | None]:
        rng = np.random.default_rng(0)
        found, refusal = super()._maps(cases, seen)
        for m in found:
            assert m is not None
            m.grid[:] = rng.permutation(m.grid.ravel()).reshape(m.grid.shape)
        return found, refusal


@pytest.fixture(scope="module")
def records() -> dict[type[Explanations], list[Explanation]]:
    """Explanations of the first flags among test scenes, by the right and the wrong explainer."""
    encoder, policy = load_encoder(device="cpu"), read_policy(POLICY)
    vectors = encoder.vectors(policy)
    scenes = [s.scene for s in moderation_scenes(TEST_SEEDS + 70_000_000, SCENES)]
    pixels = torch.stack([encoder.pixels(as_submitted(scene)) for scene in scenes])
    seen = capture(encoder, pixels)
    margins = vectors.margins(seen.z)  # (n, classes)
    cases = [
        Case(row, f"{row:064x}", pixels[row], s)
        for row in range(len(scenes))
        for s in score(margins[row : row + 1], (0,), (True,), policy)
        if s.flagged
    ][:CASES]
    assert len(cases) == CASES
    words = Words(encoder.encode_texts)
    kinds: tuple[type[Explanations], ...] = (Explanations, Shuffled)
    return {kind: kind(encoder, vectors, [], words).explain(cases, seen) for kind in kinds}


def test_the_right_map_is_called_faithful(
    records: dict[type[Explanations], list[Explanation]],
) -> None:
    faithful = sum(r.faithful for r in records[Explanations])
    print(f"right maps called faithful: {faithful} of {CASES}")
    assert faithful >= 95


def test_a_wrong_map_is_caught(records: dict[type[Explanations], list[Explanation]]) -> None:
    caught = sum(not r.faithful for r in records[Shuffled])
    print(f"wrong maps caught: {caught} of {CASES}")
    assert caught >= 95


def test_every_record_has_a_proof_whose_sums_hold(
    records: dict[type[Explanations], list[Explanation]],
) -> None:
    for record in records[Explanations]:
        proof = record.proof
        assert proof.explained_error is not None and proof.explained_error < 1e-4
        assert proof.sum_error is not None and proof.sum_error < 1e-4
        assert record.map is not None
        assert abs(record.map.total + record.map.remainder - record.margin) < 1e-3
        assert proof.top_drop is not None and len(proof.random_drops) == 3
