"""Counterfactual images and wordings, both ways: against a search through everything there is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from filter_service.demo import POLICY
from filter_service.demo.scenes import DEV_SEEDS, Scene, render, sample_scene, without
from filter_service.encoder import Encoder, load_encoder
from filter_service.explain.counterfactual import (
    FARTHEST_WORDING,
    KEPT,
    SAME,
    farthest_wording,
    search_images,
    search_texts,
)
from filter_service.explain.memory import ArrayMemory
from filter_service.explain.question import Question, along, boundary, degrees
from filter_service.policy import Policy, read_policy
from filter_service.scoring import FloatArray, LogitScale
from filter_service.verdicts import Verdict
from tests.support.vector_worlds import BANK, LEARNT, SIGMOID, World, encode, world

MARGINS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "sigmoid": {"logit_scale": SIGMOID},
    "head": {"learnt": LEARNT},
}
TEMPLATES = [("{}",), ("{}", "photo of {}")]


def questions(place: World) -> list[Question]:
    """Of every image; some are flagged and some are clear."""
    asked = [place.question(i) for i in range(len(place.memory.digests))]
    assert {q.side for q in asked} == {Verdict.CLEAR, Verdict.FLAGGED}
    return asked


def tangled(seed: int, dim: int) -> FloatArray:
    """Random unit vectors: (5000, dim)."""
    v = np.random.default_rng(seed).standard_normal((5_000, dim))
    return np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("of", MARGINS.values(), ids=MARGINS)
def test_the_first_image_is_the_nearest_with_the_other_answer(of: dict[str, Any]) -> None:
    place = world(**of)
    for question in questions(place):
        found = search_images(question, [place.memory], boundary(question))
        nearest = place.others(question)[0]
        assert found.images[0].digest == place.memory.digests[nearest]
        assert found.none is None


@pytest.mark.parametrize("of", MARGINS.values(), ids=MARGINS)
def test_every_image_gets_the_other_answer_again(of: dict[str, Any]) -> None:
    place = world(**of)
    for question in questions(place):
        found = search_images(question, [place.memory], boundary(question))
        assert [i.degrees for i in found.images] == sorted(i.degrees for i in found.images)
        for image, vector in zip(found.images, found.vectors, strict=True):
            kept = place.memory.vectors[place.memory.digests.index(image.digest)]
            assert np.array_equal(kept, vector)
            margin = float(question.vectors.margins(kept[None])[0])
            assert (margin >= question.threshold) == (question.other_side is Verdict.FLAGGED)
            assert image.margin == pytest.approx(margin)


def test_images_are_not_copies_of_one_another() -> None:
    place = world()
    many = np.repeat(place.memory.vectors, 30, axis=0)  # far more copies than are asked for at once
    many += 1e-3 * np.random.default_rng(0).standard_normal(many.shape).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    digests = [f"copy {i}" for i in range(len(many))]
    crowd = replace(
        place.memory, digests=digests, vectors=many, exact=np.ones(len(many), dtype=np.bool_)
    )
    for image in range(10):
        question = place.question(image)
        shown = search_images(question, [crowd], boundary(question)).vectors
        assert len(shown) == KEPT
        likeness = np.stack(shown) @ np.stack(shown).T - np.eye(KEPT)
        assert likeness.max() < SAME


def test_an_image_within_its_error_is_not_shown() -> None:
    place = world()
    rough = replace(place.memory, exact=np.zeros(len(place.memory.exact), dtype=np.bool_))
    for image in range(20):
        question = place.question(image, band=1.5)
        for found in search_images(question, [rough], None).images:
            assert abs(found.margin - question.threshold) >= 1.5


def test_no_image_says_how_far_was_searched() -> None:
    place = world()
    rough = replace(place.memory, exact=np.zeros(len(place.memory.exact), dtype=np.bool_))
    found = search_images(place.question(0, band=1e3), [rough], None)
    assert (found.images, found.searched) == ((), 180.0)
    assert found.none is not None and found.none.startswith("None within 180.0 degrees")


def test_a_full_answer_reaches_no_further_than_its_last_image() -> None:
    place = world(number=2000)
    rough = replace(place.memory, exact=np.zeros(2000, dtype=np.bool_))
    question = place.question(0, band=1e3)
    found = search_images(question, [rough], None)
    reached = place.others(question)[:500][-1]
    furthest = degrees(question.z, place.memory.vectors[reached])
    assert found.searched == pytest.approx(furthest, abs=1e-3)
    assert found.none is not None and f"within {furthest:.1f} degrees" in found.none


def test_without_a_memory_nothing_was_searched() -> None:
    found = search_images(world().question(0), [], None)
    assert found.searched == 0.0 and found.none is not None


def test_another_frame_of_the_same_image_is_no_counterfactual() -> None:
    place = world()
    question = place.question(0)
    first = place.others(question)[0]
    digests = list(place.memory.digests)
    digests[first] = question.digest
    found = search_images(question, [replace(place.memory, digests=digests)], None)
    assert question.digest not in [i.digest for i in found.images]
    assert found.images


def test_the_nearest_frame_stands_for_its_image() -> None:
    place = world()
    question = place.question(0)
    frames = place.others(question)[:4]
    digests = ["film" if i in frames else d for i, d in enumerate(place.memory.digests)]
    found = search_images(question, [replace(place.memory, digests=digests)], None)
    nearest = place.memory.vectors[frames[0]]
    assert found.images[0].digest == "film"
    assert found.images[0].degrees == pytest.approx(degrees(question.z, nearest))


def test_a_memory_of_another_policy_knows_nothing() -> None:
    place = world()
    question = replace(
        place.question(0), policy=place.vectors.policy.model_copy(update={"name": "other"})
    )
    assert search_images(question, [place.memory], None).images == ()


@pytest.mark.parametrize("of", MARGINS.values(), ids=MARGINS)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_beyond_the_boundary_is_nearer_than_its_point(
    of: dict[str, Any], seed: int
) -> None:
    place = world(seed, number=12, **of)
    for question in questions(place):
        edge = boundary(question)
        assert edge is not None
        margin = float(question.vectors.margins(edge[None])[0])
        assert margin == pytest.approx(question.threshold, abs=1e-3)
        assert float(np.linalg.norm(edge)) == pytest.approx(1, abs=1e-5)
        way = degrees(question.z, edge)
        around = edge + 0.2 * tangled(seed, len(edge))  # where a shorter way would be found
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        margins = question.vectors.margins(around)
        past = around[[question.beyond(float(m)) for m in margins]]
        nearest = float(np.degrees(np.arccos((past @ question.z).max())))
        assert nearest >= way - 0.05


def test_a_boundary_straight_behind_is_found() -> None:
    place = world(logit_scale=SIGMOID)
    question = place.question(0)
    for sign in (1.0, -1.0):  # the margin's gradient is parallel to the image
        z = sign * question.vectors.prompts[0]
        lone = replace(question.vectors, prompts=question.vectors.prompts[:1])
        edge = boundary(replace(question, z=z, vectors=lone))
        assert edge is not None
        assert float(lone.margins(edge[None])[0]) == pytest.approx(question.threshold, abs=1e-3)


def test_there_is_no_boundary_where_no_image_can_reach() -> None:
    place = world(logit_scale=LogitScale(factor=20.0, bias=-50.0, sigmoid=True))
    assert boundary(place.question(0)) is None


def test_beyond_the_boundary_lies_on_the_same_circle() -> None:
    question = world().question(0)
    edge = boundary(question)
    assert edge is not None
    past = along(question.z, edge, 1.5)
    assert degrees(question.z, past) == pytest.approx(1.5 * degrees(question.z, edge), abs=1e-2)
    assert degrees(edge, past) == pytest.approx(0.5 * degrees(question.z, edge), abs=1e-2)


@pytest.mark.parametrize("of", MARGINS.values(), ids=MARGINS)
def test_the_first_wording_is_the_nearest_that_flips(of: dict[str, Any]) -> None:
    place = world(**of)
    bank = encode(BANK)
    seen = set()
    for question in questions(place):
        start = question.vectors.prompts[question.carrying]
        farthest = farthest_wording(question, question.carrying, encode)
        flips = [
            i
            for i in range(len(BANK))
            if _flips(question, question.carrying, bank[i]) and degrees(start, bank[i]) <= farthest
        ]
        found = search_texts(question, [place.memory], question.carrying, encode)
        if flips:
            nearest = max(flips, key=lambda i: float(bank[i] @ start))
            assert found.texts[0].text == BANK[nearest]
            seen.add(question.side)
        else:
            said = f"No wording within {farthest:.1f} degrees"
            alone = question.level(question.carrying) is None  # the other prompts flag it
            assert found.none is not None
            assert ("None within 180.0 degrees" if alone else said) in found.none
    assert seen == {Verdict.CLEAR, Verdict.FLAGGED}


@pytest.mark.parametrize("of", MARGINS.values(), ids=MARGINS)
def test_no_wording_lies_beyond_what_the_policy_calls_something_else(
    of: dict[str, Any],
) -> None:
    place = world(**of)
    neutral = encode(place.vectors.policy.neutral)
    for question in questions(place):
        start = question.vectors.prompts[question.carrying]
        nearest = min(degrees(start, v) for v in neutral)
        found = search_texts(question, [place.memory], question.carrying, encode)
        assert all(t.degrees <= min(nearest, FARTHEST_WORDING) for t in found.texts)


@pytest.mark.parametrize("templates", TEMPLATES)
def test_every_wording_gets_the_other_answer_as_the_policy_words_it(
    templates: tuple[str, ...],
) -> None:
    place = world(templates=templates)
    found = [
        (q, t)
        for q in questions(place)
        for t in search_texts(q, [place.memory], q.carrying, encode).texts
    ]
    assert {q.side for q, _ in found} == {Verdict.CLEAR, Verdict.FLAGGED}
    for question, text in found:
        assert text.replaces == question.prompt(question.carrying)
        forms = encode([t.replace("{}", text.text) for t in templates]).mean(axis=0)
        vector = forms / np.linalg.norm(forms)
        assert _flips(question, question.carrying, vector)
        assert text.margin == pytest.approx(question.reworded(question.carrying, vector), abs=1e-3)


def _flips(question: Question, index: int, vector: FloatArray) -> bool:
    """By the definition of the margin, from the vectors alone."""
    prompts = question.vectors.prompts.copy()
    prompts[index] = vector
    changed = replace(question.vectors, prompts=prompts)
    flagged = bool(changed.margins(question.z[None])[0] >= question.threshold)
    return flagged == (question.other_side is Verdict.FLAGGED)


@pytest.mark.parametrize("of", MARGINS.values(), ids=MARGINS)
def test_at_its_level_a_wording_turns_the_answer(of: dict[str, Any]) -> None:
    place = world(**of)
    factor = place.vectors.classes[0].logit_scale.factor
    for question in questions(place):
        level = question.level(question.carrying)
        if level is not None:
            for more, flagged in ((-1e-3, False), (1e-3, True)):
                logit = level + more
                vector = np.asarray(logit / factor * question.z, dtype=np.float32)
                margin = question.reworded(question.carrying, vector)
                assert (margin >= question.threshold) == flagged


def test_no_wording_helps_where_the_other_prompts_flag() -> None:
    place = world()
    both = encode(["red gun", "old knife"]).sum(axis=0)
    z = both / np.linalg.norm(both)
    question = replace(place.question(0), z=np.asarray(z, dtype=np.float32))
    assert question.level(0) is None
    found = search_texts(question, [place.memory], 0, encode)
    assert found.none is not None and "the other prompts of weapons flag" in found.none


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("bundled", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def demo() -> Policy:
    return read_policy(POLICY)


def test_the_scene_without_its_weapon_is_the_counterfactual(encoder: Encoder, demo: Policy) -> None:
    weapons = sample_scene(DEV_SEEDS + 7, 1, ("knife",)).objects[0]
    others = [sample_scene(DEV_SEEDS + i, 1, ("dog", "apple", "car", "house")) for i in range(12)]
    armed: list[Scene] = [
        replace(s, objects=(replace(s.objects[0], size=0.4, x=0.25, y=0.25),
                            replace(weapons, size=0.4, x=0.75, y=0.75)))
        for s in others
    ]  # fmt: skip
    scenes = [*armed, *(without(s, 1) for s in armed)]
    pixels = torch.stack([encoder.pixels(render(s, 128)) for s in scenes])
    z = encoder.encode(pixels)
    vectors = encoder.vectors(demo)
    names = [f"{'armed' if i < 12 else 'clear'} {i % 12}" for i in range(24)]
    memory = ArrayMemory(vectors, names, z, np.ones(24, dtype=np.bool_))
    same = {Verdict.FLAGGED: 0, Verdict.CLEAR: 0}
    for i, (name, vector) in enumerate(zip(names, z, strict=True)):
        question = Question(name, vector, demo, vectors.classes[0])
        found = search_images(question, [memory], boundary(question))
        if question.side is (Verdict.FLAGGED if i < 12 else Verdict.CLEAR):
            twin = names[(i + 12) % 24]
            same[question.side] += twin in [image.digest for image in found.images]
    assert min(same.values()) >= 9
