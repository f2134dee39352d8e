"""The contract that every method keeps, and what each is for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.explaining.unoffered import EVERY
from filter_service.demo.samples import as_submitted
from filter_service.demo.scenes import DEV_SEEDS, mask, sample_scene
from filter_service.encoder import Encoder
from filter_service.errors import NotExplainable
from filter_service.explain.relevance import RelevanceMap
from filter_service.explain.study.methods import METHODS, ByMasking, Method
from filter_service.explain.study.perturbation import MaskedAnswers, fitted, kernel_shap, lime, rise
from filter_service.scoring import FloatArray
from tests.support.precision import bundled
from tests.support.tiny_encoders import tiny
from tests.support.tiny_inputs import directions, pixels, state

KINDS = ("vit", "resnet", "siglip", "coca")
ONLY_CLASS_TOKEN = {"chefer", "legrad"}  # refuse every other tower
FEW = 48  # masked images: enough for a contract


def method(name: str) -> Method:
    found = EVERY[name]
    return replace(found, count=FEW) if isinstance(found, ByMasking) else found


def maps(name: str, kind: str, x: Tensor, u: FloatArray) -> list[RelevanceMap]:
    return method(name)(tiny(kind), x, u)


EVERYWHERE = ("decomposition", "grad-eclip", "maskclip", "grad-cam", "ig-black", "kernel-shap")
CASES = [
    pytest.param(name, kind, id=f"{name}, {kind}")
    for kind in KINDS
    for name in (EVERY if kind == "vit" else EVERYWHERE)
]


@pytest.mark.parametrize(("name", "kind"), CASES)
class TestEveryMethod:
    def test_grid_and_remainder_add_up_to_the_score_that_is_served(
        self, name: str, kind: str
    ) -> None:
        u = directions(kind, n=2)
        found = maps(name, kind, pixels(kind, 2), u)
        served = np.einsum("ncd,nd->nc", u, tiny(kind).encode(pixels(kind, 2)))
        assert np.abs(np.stack([m.explained for m in found]) - served).max() < 1e-4
        sums = np.stack([m.grid.sum(axis=(1, 2)) + m.remainder for m in found])
        assert np.abs(sums - served).max() < 1e-4

    def test_one_image_gets_the_map_it_gets_among_others(self, name: str, kind: str) -> None:
        u = directions(kind, n=2)
        together = maps(name, kind, pixels(kind, 2), u)[1].grid
        alone = maps(name, kind, pixels(kind, 2)[1:], u[1:])[0].grid
        assert np.abs(together - alone).max() < 1e-3 * max(1.0, np.abs(alone).max())

    def test_a_map_does_not_depend_on_the_other_classes(self, name: str, kind: str) -> None:
        u = directions(kind, n=1)
        both = maps(name, kind, pixels(kind, 1), u)[0].grid[1]
        one = maps(name, kind, pixels(kind, 1), u[:, 1:])[0].grid[0]
        assert np.abs(both - one).max() < 1e-3 * max(1.0, np.abs(one).max())

    def test_the_model_is_left_as_it_was_also_when_the_forward_raises(
        self, name: str, kind: str
    ) -> None:
        before = state(tiny(kind).model)
        maps(name, kind, pixels(kind, 1), directions(kind, n=1))
        assert state(tiny(kind).model) == before
        with pytest.raises(Exception):  # noqa: B017  (each tower has its own error)
            maps(name, kind, torch.zeros(1, 7, 32, 32), directions(kind, n=1))
        assert state(tiny(kind).model) == before

    def test_the_map_is_not_flat(self, name: str, kind: str) -> None:
        (found,) = maps(name, kind, pixels(kind, 1), directions(kind, n=1))
        assert np.ptp(found.grid) > 1e-6


@pytest.mark.parametrize("name", sorted(ONLY_CLASS_TOKEN))
@pytest.mark.parametrize("kind", ["resnet", "siglip", "coca"])
def test_what_a_method_cannot_do_on_a_tower_it_says(name: str, kind: str) -> None:
    with pytest.raises(NotExplainable, match="class token"):
        maps(name, kind, pixels(kind, 1), directions(kind, n=1))


class Straight:
    """An encoder whose embedding is linear in the mean of each quarter of the picture."""

    def __init__(self) -> None:
        self.matrix = np.random.default_rng(5).normal(size=(4, 6)).astype(np.float32)

    def encode(self, x: Tensor) -> FloatArray:
        means = torch.nn.functional.adaptive_avg_pool2d(x.mean(dim=1), 2).flatten(1)  # (n, 4)
        return np.asarray(means.numpy() @ self.matrix)


@pytest.fixture(scope="module")
def case() -> tuple[MaskedAnswers, FloatArray, Any]:
    """Masked answers of a straight model, a direction, and the true effect of every place."""
    encoder, u = Straight(), np.ones(6, dtype=np.float32)
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(3))
    quarters = torch.nn.functional.adaptive_avg_pool2d(x.mean(dim=0)[None], 2).flatten()
    truth = (quarters - x.mean()).numpy() * (encoder.matrix @ u)  # (4,)
    return MaskedAnswers.of(encoder, x, (2, 2), count=400), u, truth  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return bundled()


class TestRegressions:
    """On a model that is linear in its places, every regression must find the same truth."""

    def test_kernel_shap_finds_the_effects_and_adds_up(self, case: Any) -> None:
        answers, u, truth = case
        found = kernel_shap(answers, u)
        assert np.abs(found - truth).max() < 0.02 * np.abs(truth).max()
        _, full, empty = answers.scores(u)
        assert abs(found.sum() - (full - empty)) < 1e-9

    def test_lime_finds_the_effects(self, case: Any) -> None:
        answers, u, truth = case
        assert np.abs(lime(answers, u) - truth).max() < 0.15 * np.abs(truth).max()

    def test_rise_ranks_the_effects(self, case: Any) -> None:
        answers, u, truth = case
        assert np.array_equal(np.argsort(rise(answers, u)), np.argsort(truth))

    def test_an_additive_model_is_fitted_without_a_rest(self, case: Any) -> None:
        answers, u, _ = case
        found = fitted(answers, u)
        assert found.r_squared > 0.99
        assert max(abs(effect) for *_, effect in found.pairs) < 0.05 * np.abs(found.weights).max()


class TestOnTheBundledModel:
    """What the maps mean, where the truth is known."""

    @pytest.mark.parametrize("name", ["decomposition", "chefer", "ig-blur", "kernel-shap"])
    def test_the_strongest_place_lies_on_the_object(self, encoder: Encoder, name: str) -> None:
        from benchmarks.explaining.trials import Namer

        namer, hits = Namer(encoder), 0
        scenes = [sample_scene(DEV_SEEDS + 7_000_000 + i, 2) for i in range(20)]
        x = torch.stack([encoder.pixels(as_submitted(s)) for s in scenes])
        z = encoder.encode(x)
        u = np.stack(
            [namer(s.objects[0].kind).direction(v) for s, v in zip(scenes, z, strict=True)]
        )
        found = EVERY[name]
        found = replace(found, count=256) if isinstance(found, ByMasking) else found
        for scene, m in zip(scenes, found(encoder, x, u[:, None]), strict=True):
            cover = mask(scene, 0, 64).reshape(8, 8, 8, 8).mean(axis=(1, 3))
            hits += cover.ravel()[m.grid[0].argmax()] > 0
        assert hits >= 17

    def test_what_is_not_additive_is_seen_on_masks_held_out(self, encoder: Encoder) -> None:
        x = encoder.pixels(as_submitted(sample_scene(DEV_SEEDS + 7_100_000, 1)))
        answers = MaskedAnswers.of(encoder, x, (8, 8), count=512)
        u = encoder.encode_texts(["a gun"])[0] - encoder.encode_texts(["a dog"])[0]
        found = fitted(answers, u)
        assert -0.5 < found.r_squared < 1 and found.with_pairs > found.r_squared - 0.1


@pytest.mark.parametrize("name", EVERY)
def test_a_method_is_offered_exactly_if_it_beats_the_centre_and_the_edges(name: str) -> None:
    published = Path(__file__).parents[2] / "docs/explanations-benchmark/bundled.json"
    found = json.loads(published.read_text())["test"]

    def figures(method: str) -> tuple[float, float]:
        deletion = found[method]["deletion"].values()
        return found[method]["causal"]["value"], sum(deletion) / len(deletion)

    baselines = [figures("centre"), figures("edges")]
    beats = all(
        ours > theirs for b in baselines for ours, theirs in zip(figures(name), b, strict=True)
    )
    assert beats == (name in METHODS)
