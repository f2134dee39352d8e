"""The bundled model: its files, its samples, and that it does on them what its card says."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from filter_service.demo import POLICY, SAMPLES, bundled, samples
from filter_service.demo.evaluate import relation, wilson
from filter_service.demo.kinds import FORBIDDEN, KINDS, ORDINARY
from filter_service.demo.scenes import DEV_SEEDS, EMPTY, a, captions, sample_scene
from filter_service.demo.thresholds import best_threshold
from filter_service.policy import read_policy
from filter_service.scoring import ensemble
from filter_service.verdicts import threshold_margin

# The goals are 0.98 of a thousand scenes and 0.95 of the samples. Of a hundred scenes, one in a
# hundred runs of a model that keeps the goal would miss 0.95.
SINGLE = 0.95
VERDICTS = 0.95
Label = dict[str, object]


@cache
def model() -> bundled.BundledModel:
    return bundled.load()


@cache
def labels() -> list[Label]:
    lines = (SAMPLES / "labels.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_the_model_fits_in_fifteen_megabytes() -> None:
    assert size_of(bundled.FOLDER) <= 15_000_000


def test_the_weights_are_finite_halves() -> None:
    weights = load_file(bundled.FOLDER / "open_clip_model.safetensors")
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float16)}
    assert all(np.isfinite(w).all() for w in weights.values())


def test_the_model_names_single_objects_as_well_as_measured() -> None:
    scenes = [sample_scene(DEV_SEEDS + 5_000_000 + i, 1) for i in range(100)]
    prompts = [a(kind) for kind in KINDS]
    kinds = ensemble(prompts, read_policy(POLICY).templates, model().encode_texts)
    best = (model().encode_scenes(scenes) @ kinds.T).argmax(1)
    right = [KINDS[k] == s.objects[0].kind for s, k in zip(scenes, best, strict=True)]
    assert np.mean(right) >= SINGLE


def test_the_policy_asks_for_every_kind_once() -> None:
    policy = read_policy(POLICY)
    forbidden = {c.name: c.prompts for c in policy.classes}
    assert forbidden == {n: tuple(a(k) for k, _ in kinds) for n, kinds in FORBIDDEN.items()}
    assert policy.neutral == (*(a(kind) for kind, _ in ORDINARY), EMPTY)


def test_an_empty_ground_is_not_flagged() -> None:
    policy, first = read_policy(POLICY), DEV_SEEDS + 5_200_000
    grounds = [replace(sample_scene(first + i, 1), objects=()) for i in range(100)]
    margins = model().vectors(policy).margins(model().encode_scenes(grounds))
    flagged = (margins >= [threshold_margin(c) for c in policy.classes]).any(1)  # (100,)
    assert flagged.sum() <= 2


def test_the_samples_are_judged_as_well_as_measured() -> None:
    policy, drawn = read_policy(POLICY), samples.moderation_scenes(samples.SAMPLE_SEEDS, 240)
    margins = model().vectors(policy).margins(model().encode_scenes(s.scene for s in drawn))
    limits = np.array([c.threshold for c in policy.classes])
    flagged = (1 / (1 + np.exp(-margins)) >= limits).any(1)  # (240,)
    shown = np.array([bool(label["classes"]) for label in labels()])
    assert (flagged == shown).mean() >= VERDICTS


def test_there_are_240_samples_of_a_few_megabytes() -> None:
    assert len(labels()) == len(list(SAMPLES.glob("*.jpg"))) == 240
    assert size_of(SAMPLES) <= 8_000_000


def test_a_third_of_the_samples_is_forbidden() -> None:
    assert sum(bool(label["classes"]) for label in labels()) == 80


@pytest.mark.parametrize("i", [0, 1, 77, 239])
def test_a_sample_can_be_drawn_again_from_its_seed(i: int) -> None:
    again = samples.moderation_scene(samples.SAMPLE_SEEDS + i, i % 3 == 0)
    with Image.open(SAMPLES / str(labels()[i]["file"])) as kept:
        difference = np.asarray(kept.convert("RGB"), float) - samples.as_submitted(again.scene)
    assert np.abs(difference).mean() < 1  # another JPEG library may round otherwise
    assert labels()[i]["kinds"] == [o.kind for o in again.scene.objects]


def test_the_card_states_what_was_measured() -> None:
    card = (bundled.FOLDER.parent / "MODEL_CARD.md").read_text()
    assert "pictograms, not photographs" in card
    assert card.count("/ 1000 |") >= 6
    assert f"{bundled.training_facts()['steps']} steps" in card


def test_a_threshold_lies_between_the_two_sides() -> None:
    margins, shown = np.array([-3.0, -1.0, 1.0, 4.0]), np.array([False, False, True, True])
    assert best_threshold(margins, shown) == 0.5


def test_an_interval_holds_its_share() -> None:
    low, high = wilson(980, 1000)
    assert 0.969 < low < 0.98 < high < 0.988
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_relation_is_true_and_its_opposite_is_not() -> None:
    for seed in range(30):
        scene = sample_scene(seed, 2)
        if pair := relation(scene):
            assert pair[0] in captions(scene)
            assert pair[1] not in captions(scene)
