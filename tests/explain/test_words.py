"""Shapley values of words: against the definition, computed another way."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from filter_service.explain.words import SUBSTITUTE, TEMPLATE, Words
from filter_service.scoring import FloatArray, ensemble
from tests.support.tiny_encoders import tiny

SCALE = 100.0


def bag(texts: Sequence[str]) -> FloatArray:
    """Unit vectors that depend on which words a text has, in an entangled way: (n, 8)."""
    return np.concatenate([_vector(frozenset(text.split())) for text in texts])


def _vector(words: frozenset[str]) -> FloatArray:
    seed = sum(int.from_bytes(word.encode(), "big") for word in words)
    v = np.random.default_rng(seed).standard_normal((1, 8))
    return np.asarray(v / np.linalg.norm(v), dtype=np.float32)


@pytest.fixture
def z() -> FloatArray:
    v = np.random.default_rng(0).standard_normal(8)
    return np.asarray(v / np.linalg.norm(v), dtype=np.float32)


def logit(text: str, z: FloatArray) -> float:
    return SCALE * float(bag([text])[0].astype(np.float64) @ z)


def by_orders(words: list[str], z: FloatArray, filler: str = "") -> list[float]:
    """The definition: the mean over all orders in which words can arrive."""

    def text(present: Sequence[int]) -> str:
        return " ".join(w if i in present else filler for i, w in enumerate(words))

    gains = [0.0] * len(words)
    for order in itertools.permutations(range(len(words))):
        for k, i in enumerate(order):
            gains[i] += logit(text(order[: k + 1]), z) - logit(text(order[:k]), z)
    return [gain / math.factorial(len(words)) for gain in gains]


def test_values_are_the_mean_over_all_orders(z: FloatArray) -> None:
    words = ["small", "red", "gun"]
    found = Words(bag).vectors("small red gun", ("{}",)).values(z, SCALE, 1.0)
    assert [w.word for w in found.words] == words
    assert [w.shapley for w in found.words] == pytest.approx(by_orders(words, z), abs=1e-3)
    expected = by_orders(words, z, filler=SUBSTITUTE)
    assert [w.substituted for w in found.words] == pytest.approx(expected, abs=1e-3)


def test_values_add_up_exactly(z: FloatArray) -> None:
    found = Words(bag).vectors("a man with a gun", ("{}",)).values(z, SCALE, 1.0)
    assert sum(w.shapley for w in found.words) == pytest.approx(found.logit - found.empty, abs=1e-3)
    assert found.logit == pytest.approx(logit("a man with a gun", z), abs=1e-3)
    assert found.empty == pytest.approx(logit("", z), abs=1e-3)


def test_leave_one_out_is_the_whole_minus_the_rest(z: FloatArray) -> None:
    found = Words(bag).vectors("red gun", ("{}",)).values(z, SCALE, 1.0)
    expected = logit("red gun", z) - logit("gun", z)
    assert found.words[0].leave_one_out == pytest.approx(expected, abs=1e-3)


def test_a_template_is_one_unit(z: FloatArray) -> None:
    templates = ("a photo of {}", "a picture of {}")
    found = Words(bag).vectors("red gun", templates).values(z, SCALE, 1.0)
    assert [w.word for w in found.words] == [TEMPLATE, "red", "gun"]
    whole = ensemble(["red gun"], templates, bag)[0]
    assert found.logit == pytest.approx(SCALE * float(whole @ z), abs=1e-3)
    assert sum(w.shapley for w in found.words) == pytest.approx(found.logit - found.empty, abs=1e-3)


def test_exact_values_have_no_error_and_sampled_ones_do(z: FloatArray) -> None:
    short = Words(bag).vectors("one two three", ("{}",)).values(z, SCALE, 1.0)
    assert {w.standard_error for w in short.words} == {0.0}
    long = " ".join(f"w{i}" for i in range(11))
    sampled = Words(bag).vectors(long, ("{}",)).values(z, SCALE, 1.0)
    assert all(w.standard_error > 0 for w in sampled.words)
    total = sum(w.shapley for w in sampled.words)
    assert total == pytest.approx(sampled.logit - sampled.empty, abs=1e-2)


def test_sampling_comes_near_the_exact_values(
    z: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "one two three four"
    exact = Words(bag).vectors(prompt, ("{}",)).values(z, SCALE, 1.0)
    monkeypatch.setattr("filter_service.explain.words.EXACT_UP_TO", 3)
    sampled = Words(bag).vectors(prompt, ("{}",)).values(z, SCALE, 1.0)
    for e, s in zip(exact.words, sampled.words, strict=True):
        assert abs(e.shapley - s.shapley) < 5 * s.standard_error


def test_a_word_whose_sign_depends_on_its_removal_is_marked(z: FloatArray) -> None:
    prompts = [f"{a} {b}" for a in ("red", "old", "big") for b in ("gun", "knife", "axe")]
    words = [w for p in prompts for w in Words(bag).vectors(p, ("{}",)).values(z, SCALE, 1.0).words]
    assert any(w.doubtful for w in words) and not all(w.doubtful for w in words)
    assert all(w.doubtful == (w.shapley * w.substituted < 0) for w in words)


def test_a_prompt_is_folded_once() -> None:
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> FloatArray:
        asked.extend(texts)
        return bag(texts)

    words = Words(encode)
    first = words.vectors("red gun", ("{}",))
    count = len(asked)
    assert words.vectors("red gun", ("{}",)) is first
    assert len(asked) == count


def test_values_of_a_served_model_add_up() -> None:
    encoder = tiny("vit")
    v = np.random.default_rng(1).standard_normal(64)
    z = np.asarray(v / np.linalg.norm(v), dtype=np.float32)
    found = (
        Words(encoder.encode_texts)
        .vectors("a red gun", ("{}", "a photo of {}"))
        .values(z, SCALE, 1.0)
    )
    assert sum(w.shapley for w in found.words) == pytest.approx(found.logit - found.empty, abs=1e-3)
