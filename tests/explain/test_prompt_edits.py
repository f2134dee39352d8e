"""Edits of a prompt: each judged again from its words, and none larger than it has to be."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from filter_service.demo import POLICY
from filter_service.demo.scenes import DEV_SEEDS, render, sample_scene
from filter_service.encoder import load_encoder
from filter_service.explain.question import Question
from filter_service.explain.study.prompt_edits import PromptEdit, edits, vocabulary
from filter_service.policy import read_policy
from filter_service.scoring import FloatArray
from filter_service.verdicts import Verdict
from tests.support.vector_worlds import World, encode, world

TEMPLATES = [("{}",), ("{}", "photo of {}")]


def found(place: World, words: Sequence[str] = ()) -> list[tuple[Question, PromptEdit]]:
    questions = [place.question(i) for i in range(len(place.memory.digests))]
    return [
        (q, e)
        for q in questions
        for e in edits(
            q, q.carrying, [*words, *vocabulary(q, [place.memory], q.carrying)], encode
        ).edits
    ]


def flips(question: Question, text: str, templates: Sequence[str] = ("{}",)) -> bool:
    """By the definition of the margin, from the words alone."""
    vector = encode([t.replace("{}", text) for t in templates]).mean(axis=0)
    prompts = question.vectors.prompts.copy()
    prompts[question.carrying] = vector / np.linalg.norm(vector)
    changed = replace(question.vectors, prompts=prompts)
    flagged = bool(changed.margins(question.z[None])[0] >= question.threshold)
    return flagged == (question.other_side is Verdict.FLAGGED)


@pytest.mark.parametrize("templates", TEMPLATES)
def test_every_edit_gives_the_other_answer(templates: tuple[str, ...]) -> None:
    shown = found(world(templates=templates))
    assert {q.side for q, _ in shown} == {Verdict.CLEAR, Verdict.FLAGGED}
    assert all(flips(q, e.text, templates) for q, e in shown)


def test_no_edit_is_larger_than_it_has_to_be() -> None:
    two = [(q, e) for q, e in found(world()) if len(e.changes) == 2]
    for question, edit in two:
        words = edit.replaces.split()
        for word, instead in edit.changes:
            alone = " ".join(instead if w == word else w for w in words).split()
            assert not flips(question, " ".join(alone))


def test_the_nearest_edit_of_one_word_comes_first() -> None:
    place = world()
    words = ["wooden", "plastic", "tree", "flower"]
    for image in range(20):
        question = place.question(image)
        prompt = question.prompt(question.carrying).split()
        texts = [
            " ".join(w for w in (*prompt[:i], word, *prompt[i + 1 :]) if w)
            for i in range(len(prompt))
            for word in ("", *words)
        ]
        there = [t for t in texts if flips(question, t)]
        result = edits(question, question.carrying, words, encode)
        if there and question.level(question.carrying) is not None:
            start = question.vectors.prompts[question.carrying]
            nearest = max(there, key=lambda t: float(encode([t])[0] @ start))
            assert result.edits[0].text == nearest


def test_smaller_edits_come_first_and_then_nearer_ones() -> None:
    place = world()
    for image in range(20):
        q = place.question(image)
        shown = edits(q, q.carrying, vocabulary(q, [place.memory], q.carrying), encode).edits
        order = [(len(e.changes), e.degrees) for e in shown]
        assert order == sorted(order)


def test_no_edit_says_how_far_was_searched() -> None:
    place = world()
    flagged = next(q for q in map(place.question, range(40)) if q.side is Verdict.CLEAR)
    result = edits(flagged, flagged.carrying, [], encode)  # deletion alone shows nothing new
    if not result.edits:
        assert result.none is not None and result.none.startswith("None within ")
        assert f"none of the {result.tried}" in result.none


def test_no_edit_helps_where_the_other_prompts_flag() -> None:
    z = encode(["red gun", "old knife"]).sum(axis=0)
    question = replace(world().question(0), z=np.asarray(z / np.linalg.norm(z), np.float32))
    result = edits(question, 0, ["tree"], encode)
    assert result.tried == 0
    assert result.none is not None and "the other prompts of weapons flag" in result.none


def test_an_article_follows_the_word_that_changed() -> None:
    place = world()
    weapons = place.vectors.policy.classes[0].model_copy(update={"prompts": ("a gun", "a knife")})
    policy = place.vectors.policy.model_copy(update={"classes": (weapons,)})
    texts: list[str] = []

    def listening(asked: Sequence[str]) -> FloatArray:
        texts.extend(asked)
        return encode(asked)

    question = replace(place.question(0), policy=policy)
    if question.level(0) is None:
        question = replace(question, z=-question.vectors.prompts[1])
    edits(question, 0, ["apple", "tree"], listening)
    assert "an apple" in texts and "a tree" in texts
    assert not {"a", "a apple", ""} & set(texts)


def test_the_words_tried_are_of_the_bank_and_the_neutral_prompts() -> None:
    place = world()
    question = place.question(0)
    words = vocabulary(question, [place.memory], question.carrying)
    assert {"dog", "cat", "apple"} <= set(words)
    assert len(set(words)) == len(words)


def test_a_pictured_dog_is_flagged_if_the_prompt_names_a_dog() -> None:
    encoder = load_encoder("bundled", device="cpu", precision="float32")
    demo = read_policy(POLICY)
    scene = sample_scene(DEV_SEEDS + 3, 1, ("dog",))
    z = encoder.encode(torch.stack([encoder.pixels(render(scene, 128))]))[0]
    question = Question("dog", z, demo, encoder.vectors(demo).classes[0])
    assert question.side is Verdict.CLEAR
    words = vocabulary(question, [], question.carrying)
    shown = edits(question, question.carrying, words, encoder.encode_texts).edits
    assert any("dog" in e.text for e in shown)
