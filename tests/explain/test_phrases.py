"""The difference of two images in phrases: what is claimed is computed again, another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filter_service.demo import POLICY
from filter_service.demo.kinds import KINDS
from filter_service.demo.scenes import DEV_SEEDS, a, render, sample_scene
from filter_service.encoder import load_encoder
from filter_service.explain.counterfactual import search_images
from filter_service.explain.memory import ArrayMemory
from filter_service.explain.question import Question
from filter_service.explain.study.phrases import ENOUGH, FEWEST, MOST, PhraseDifference, difference
from filter_service.policy import read_policy
from filter_service.scoring import FloatArray, LearntDirection, LogitScale
from tests.support.vector_worlds import BANK, LEARNT, LOGIT_SCALE, SIGMOID, encode, world


def explained(
    logit_scale: LogitScale = LOGIT_SCALE,
    learnt: LearntDirection | None = None,
) -> list[tuple[Question, FloatArray, PhraseDifference]]:
    place = world(logit_scale=logit_scale, learnt=learnt)
    questions = [place.question(i) for i in range(20)]
    others = [search_images(q, [place.memory], None).vectors[0] for q in questions]
    return [
        (q, other, difference(q, other, [place.memory]))
        for q, other in zip(questions, others, strict=True)
    ]


@pytest.mark.parametrize(
    ("logit_scale", "learnt"), [(LOGIT_SCALE, None), (SIGMOID, None), (LOGIT_SCALE, LEARNT)]
)
def test_the_share_is_what_the_margin_gains(
    logit_scale: LogitScale, learnt: LearntDirection | None
) -> None:
    bank = encode(BANK).astype(np.float64)
    centred = bank - bank.mean(axis=0)
    for question, other, found in explained(logit_scale, learnt):
        chosen = centred[[BANK.index(p.text) for p in found.phrases]]  # (c, d)
        delta = question.z.astype(np.float64) - other
        part = np.linalg.pinv(chosen) @ chosen @ delta  # onto the phrases' span, another way
        reached = (other + part) / np.linalg.norm(other + part)
        before, after, whole = question.vectors.margins(
            np.stack([other, reached, question.z]).astype(np.float32)
        )
        assert found.margin_difference == pytest.approx(whole - before, abs=1e-4)
        assert found.share == pytest.approx((after - before) / (whole - before), abs=1e-3)


def test_contributions_and_remainder_add_up() -> None:
    for _, _, found in explained():
        total = sum(p.contribution for p in found.phrases) + found.remainder
        assert total == pytest.approx(found.margin_difference, abs=1e-6)


def test_three_to_five_phrases_are_named_once_each() -> None:
    for _, _, found in explained():
        assert FEWEST <= len({p.text for p in found.phrases}) == len(found.phrases) <= MOST
        assert found.enough or len(found.phrases) == MOST


def test_a_phrase_differs_by_what_its_logits_say() -> None:
    for question, other, found in explained():
        for phrase in found.phrases:
            logits = LOGIT_SCALE.factor * encode([phrase.text])[0] @ np.stack([question.z, other]).T
            assert phrase.difference == pytest.approx(float(logits[0] - logits[1]), abs=1e-3)


def test_too_small_a_share_is_said_to_be_so() -> None:
    place = world()
    few = replace(place.memory, wordings=BANK[:3], wording_vectors=encode(BANK[:3]))
    shorts = []
    for image in range(20):
        question = place.question(image)
        other = search_images(question, [place.memory], None).vectors[0]
        found = difference(question, other, [few])
        assert found.enough == (abs(1 - found.share) <= 1 - ENOUGH)
        shorts += [found.short] if found.short else []
    assert shorts and all("of the difference" in s for s in shorts)


def test_without_a_bank_nothing_is_explained() -> None:
    place = world()
    question = place.question(0)
    found = difference(question, search_images(question, [place.memory], None).vectors[0], [])
    assert (found.phrases, found.share) == ((), 0.0)
    assert found.remainder == found.margin_difference
    assert not found.enough


def test_a_knife_is_among_the_words_that_tell_a_knife_from_a_dog() -> None:
    encoder = load_encoder("bundled", device="cpu", precision="float32")
    demo = read_policy(POLICY)
    scenes = [
        sample_scene(DEV_SEEDS + i, 1, (kind,)) for i in range(6) for kind in ("knife", "dog")
    ]
    z = encoder.encode(torch.stack([encoder.pixels(render(s, 128)) for s in scenes]))
    vectors, kinds = encoder.vectors(demo), [a(kind) for kind in KINDS]
    memory = ArrayMemory(
        vectors, [], z[:0], np.zeros(0, np.bool_), kinds, encoder.encode_texts(kinds)
    )
    named = 0
    for knife, dog in zip(z[::2], z[1::2], strict=True):
        found = difference(Question("knife", knife, demo, vectors.classes[0]), dog, [memory])
        assert found.enough
        named += {"a knife", "a dog"} & {p.text for p in found.phrases} != set()
    assert named >= 4
