"""From vectors to margins to verdicts, by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from filter_service.images.views import View
from filter_service.policy import Calibration, ForbiddenClass, Policy
from filter_service.scoring import (
    ClassVectors,
    FloatArray,
    LearntDirection,
    LogitScale,
    ensemble,
    policy_vectors,
)
from filter_service.verdicts import (
    Outcome,
    Score,
    Verdict,
    judge,
    probability,
    score,
    threshold_margin,
)

SOFTMAX = LogitScale(factor=10.0)
SIGMOID = LogitScale(factor=10.0, bias=-4.0, sigmoid=True)


def _unit(*rows: Sequence[float]) -> FloatArray:
    v = np.array(rows, dtype=np.float32)
    return np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), dtype=np.float32)


def _random(n: int, d: int = 8, seed: int = 0) -> FloatArray:
    return _unit(*np.random.default_rng(seed).standard_normal((n, d)))


LEARNT = LearntDirection(_random(1, seed=3)[0] * 5, -0.7)


def _class(
    logit_scale: LogitScale = SOFTMAX,
    prompts: int = 3,
    neutral: int = 4,
    learnt: LearntDirection | None = None,
) -> ClassVectors:
    sides = _random(prompts, seed=1), _random(neutral, seed=2)
    return ClassVectors("gun", *sides, logit_scale, learnt)


def _forbidden(threshold: float = 0.5, calibration: Calibration | None = None) -> ForbiddenClass:
    return ForbiddenClass(
        name="gun", prompts=("a gun",), threshold=threshold, calibration=calibration
    )


def _policy(*classes: ForbiddenClass) -> Policy:
    return Policy(name="p", neutral=("a photo",), classes=classes or (_forbidden(),))


def test_a_margin_by_hand() -> None:
    c = ClassVectors("gun", _unit([1, 0], [0, 1]), _unit([-1, 0]), SOFTMAX)
    # prompts 8 and 6, neutral -8: log((e^8 + e^6) / 2) + 8
    expected = math.log((math.exp(8) + math.exp(6)) / 2) + 8
    assert c.margins(_unit([0.8, 0.6])) == pytest.approx([expected], abs=1e-5)


def test_one_prompt_against_one_neutral_prompt_is_a_difference_of_logits() -> None:
    c = _class(prompts=1, neutral=1)
    z = _random(5)
    expected = 10 * z @ (c.prompts[0] - c.neutral[0])
    np.testing.assert_allclose(c.margins(z), expected, atol=1e-5)


def test_a_neutral_prompt_said_twice_shifts_nothing() -> None:
    c = _class()
    doubled = ClassVectors("gun", c.prompts, np.concatenate([c.neutral, c.neutral]), SOFTMAX)
    np.testing.assert_allclose(doubled.margins(_random(5)), c.margins(_random(5)), atol=1e-9)


def test_a_prompt_said_twice_shifts_nothing() -> None:
    c = _class()
    doubled = ClassVectors("gun", np.concatenate([c.prompts, c.prompts]), c.neutral, SOFTMAX)
    np.testing.assert_allclose(doubled.margins(_random(5)), c.margins(_random(5)), atol=1e-9)


def test_a_large_scale_does_not_overflow() -> None:
    c = _class(LogitScale(factor=1e5))
    assert np.isfinite(c.margins(_random(5))).all()


def test_a_sigmoid_margin_is_the_best_prompt_and_the_bias() -> None:
    c = ClassVectors("gun", _unit([1, 0], [0, 1]), _unit([-1, 0]), SIGMOID)
    assert c.margins(_unit([0.8, 0.6])) == pytest.approx([8 - 4], abs=1e-5)


@pytest.mark.parametrize("learnt", [None, LEARNT])
@pytest.mark.parametrize("logit_scale", [SOFTMAX, SIGMOID])
def test_the_direction_is_the_gradient_of_the_margin(
    logit_scale: LogitScale, learnt: LearntDirection | None
) -> None:
    c, z, step = _class(logit_scale, learnt=learnt), _random(1)[0].astype(np.float64), 1e-5
    numerical = [
        (c.margins((z + e)[None])[0] - c.margins((z - e)[None])[0]) / (2 * step)
        for e in step * np.eye(len(z))
    ]
    np.testing.assert_allclose(c.direction(np.asarray(z, np.float32)), numerical, atol=1e-3)


@pytest.mark.parametrize("logit_scale", [SOFTMAX, SIGMOID])
def test_a_margin_is_what_stands_over_the_neutral_level(logit_scale: LogitScale) -> None:
    c, z = _class(logit_scale, prompts=1), _random(5)
    expected = 10 * z @ c.prompts[0] - c.level(z)
    np.testing.assert_allclose(c.margins(z), expected, atol=1e-5)


@pytest.mark.parametrize("logit_scale", [SOFTMAX, SIGMOID])
def test_a_head_adds_its_product_with_the_vector_and_its_offset(logit_scale: LogitScale) -> None:
    z = _random(5)
    gained = _class(logit_scale, learnt=LEARNT).margins(z) - _class(logit_scale).margins(z)
    np.testing.assert_allclose(gained, z @ LEARNT.weights - 0.7, atol=1e-5)


def test_a_head_that_learnt_nothing_leaves_the_margins_of_the_prompts() -> None:
    nothing = LearntDirection(np.zeros(8, np.float32), 0.0)
    z = _random(50)
    difference = _class(learnt=nothing).margins(z) - _class().margins(z)
    assert np.abs(difference).max() <= 1e-6


def _letters(texts: Sequence[str]) -> FloatArray:
    """Each text a direction of its own, drawn from its letters."""
    return np.concatenate([_random(1, seed=sum(map(ord, t))) for t in texts])


def test_templates_are_averaged_as_unit_vectors() -> None:
    v = ensemble(["gun", "knife"], ["{}", "a photo of {}"], _letters)
    first = _letters(["gun"])[0] + _letters(["a photo of gun"])[0]
    np.testing.assert_allclose(v[0], first / np.linalg.norm(first), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, atol=1e-6)


def test_a_prompt_with_braces_is_left_alone() -> None:
    seen: list[str] = []

    def encode(texts: Sequence[str]) -> FloatArray:
        seen.extend(texts)
        return _letters(texts)

    ensemble(["{0} or {x}"], ["a photo of {}"], encode)
    assert seen == ["a photo of {0} or {x}"]


def test_margins_stand_in_the_order_of_the_classes() -> None:
    gun = _forbidden()
    knife = gun.model_copy(update={"name": "knife", "prompts": ("a knife",)})
    vectors = policy_vectors(_policy(gun, knife), _letters, SOFTMAX)
    margins = vectors.margins(_random(5))
    assert margins.shape == (5, 2)
    np.testing.assert_array_equal(margins[:, 1], vectors.classes[1].margins(_random(5)))


def test_a_class_may_bring_its_own_templates_and_neutral_prompts() -> None:
    own = ForbiddenClass(
        name="gun", prompts=("gun",), threshold=0.5, templates=("my {}",), neutral=("my dog",)
    )
    (c,) = policy_vectors(_policy(own), _letters, SOFTMAX).classes
    np.testing.assert_allclose(c.prompts, _letters(["my gun"]), atol=1e-6)
    np.testing.assert_allclose(c.neutral, _letters(["my my dog"]), atol=1e-6)


def test_look_alikes_count_as_neutral_prompts_do() -> None:
    """The margin by its definition, over the policy's neutral prompt and the class's look-alike."""
    own = ForbiddenClass(name="gun", prompts=("gun",), threshold=0.5, look_alikes=("toy gun",))
    plain = own.model_copy(update={"name": "plain", "look_alikes": None})
    with_, without = policy_vectors(_policy(own, plain), _letters, SOFTMAX).classes
    z, against = _random(5), _letters(["a photo", "toy gun"])
    logits = 10 * z.astype(np.float64) @ _letters(["gun"])[0]
    expected = logits - np.log(np.exp(10 * z.astype(np.float64) @ against.T).mean(axis=1))
    np.testing.assert_allclose(with_.margins(z), expected, atol=1e-5)
    np.testing.assert_array_equal(without.neutral, with_.neutral[:1])


def test_an_uncalibrated_probability_is_the_sigmoid_of_the_margin() -> None:
    assert probability(0.0, _forbidden()) == 0.5
    assert probability(2.0, _forbidden()) == pytest.approx(1 / (1 + math.exp(-2)))


def test_a_calibration_stretches_and_shifts() -> None:
    calibrated = _forbidden(calibration=Calibration(a=2, b=-1))
    assert probability(1.5, calibrated) == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize("margin", [-1e4, 1e4])
def test_a_huge_margin_gives_a_probability_still(margin: float) -> None:
    assert probability(margin, _forbidden()) == (margin > 0)


@pytest.mark.parametrize("calibration", [None, Calibration(a=0.3, b=2.0)])
@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.9])
def test_the_threshold_margin_has_the_threshold_probability(
    threshold: float, calibration: Calibration | None
) -> None:
    forbidden = _forbidden(threshold, calibration)
    assert probability(threshold_margin(forbidden), forbidden) == pytest.approx(threshold)


def test_the_worst_frame_counts_and_is_named() -> None:
    margins = np.array([[-1.0], [3.0], [2.0]])
    views = [View(0), View(7), View(14)]
    (s,) = score(margins, views, exact=[False, True, False], policy=_policy())
    assert (s.margin, s.frame, s.exact) == (3.0, 7, True)


def test_each_class_has_its_own_worst_frame() -> None:
    knife = _forbidden().model_copy(update={"name": "knife"})
    margins = np.array([[1.0, -5.0], [0.0, 5.0]])
    scores = score(margins, [View(0), View(1)], [True, True], _policy(_forbidden(), knife))
    assert [(s.class_name, s.frame) for s in scores] == [("gun", 0), ("knife", 1)]


def _score(probability: float, threshold: float = 0.5) -> Score:
    return Score("gun", 0.0, probability, threshold, view=View(), exact=True)


def test_a_probability_at_the_threshold_is_flagged() -> None:
    assert judge([_score(0.5)]) is Verdict.FLAGGED
    assert judge([_score(math.nextafter(0.5, 0))]) is Verdict.CLEAR


def test_one_flagged_class_is_enough() -> None:
    assert judge([_score(0.1), _score(0.9), _score(0.1)]) is Verdict.FLAGGED


def test_the_worst_score_is_the_furthest_over_its_threshold() -> None:
    near, far = _score(0.9, threshold=0.95), _score(0.6, threshold=0.3)
    assert Outcome("d", Verdict.FLAGGED, (near, far)).worst is far


def test_an_outcome_without_scores_has_no_worst() -> None:
    assert Outcome("d", Verdict.UNDETERMINED, reason="unreadable").worst is None
