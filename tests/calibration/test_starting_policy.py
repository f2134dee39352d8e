"""A first policy of one's own stream, in a small world of words and pictures."""

import math
from datetime import date
from typing import Any

import numpy as np
import pytest

from filter_service.calibration.picture_stream import PictureStream
from filter_service.calibration.starting_document import StartingConditions, starting_document
from filter_service.calibration.starting_policy import StartingPolicy, readable, starting_policy
from filter_service.errors import InvalidRequest
from filter_service.policy import Calibration, Policy, Preservation, Severity, parse_policy
from filter_service.scoring import ClassVectors, FloatArray, LogitScale, policy_vectors
from filter_service.verdicts import threshold_margin
from tests.support.vector_worlds import LOGIT_SCALE, SIGMOID, encode, policy

LOOK_ALIKE, SYNONYM = "wet gun", "very red gun"
HOLSTER = "red gun holster on a wall"
BANK = (LOOK_ALIKE, SYNONYM, "dog", "tall building")


def pictures(count: int, seed: int = 0) -> PictureStream:
    """Ordinary ones, and one of twenty of what is easily taken for a gun."""
    rng = np.random.default_rng(seed)
    things = encode(["dog", "cat", "apple", "green house", LOOK_ALIKE])
    which = np.where(np.arange(count) % 20 == 0, 4, rng.integers(4, size=count))
    z = things[which] + 0.1 * rng.standard_normal((count, things.shape[1]))
    z = np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), np.float32)
    return PictureStream.of(list(z[:, None]))


def asked(**fields: Any) -> Policy:
    """A policy that forbids guns, and calls ordinary what is nearer to one than its look-alike."""
    found = policy()
    c = found.classes[0].model_copy(update={"prompts": ("red gun",), **fields})
    return found.model_copy(update={"classes": (c,), "neutral": ("dog", HOLSTER)})


def started(
    given: Policy, logit_scale: LogitScale = LOGIT_SCALE, most: int = 5, share: float = 0.02
) -> StartingPolicy:
    return starting_policy(given, pictures(1_000), share, logit_scale, encode, BANK, most)


def above(found: Policy, stream: PictureStream) -> float:
    (c,) = policy_vectors(found, encode, LOGIT_SCALE).classes
    return float((stream.margins(c) >= threshold_margin(found.classes[0])).mean())


def test_the_share_that_was_asked_lies_above_also_on_fresh_pictures() -> None:
    found = started(asked(), most=0)
    assert found.classes[0].above == found.above == 20
    assert above(found.policy, pictures(5_000, seed=1)) == pytest.approx(0.02, abs=0.01)


def test_the_look_alike_of_the_stream_is_proposed_and_the_synonym_is_not() -> None:
    found = started(asked())
    assert found.classes[0].proposed == {LOOK_ALIKE: 49} and found.sought == 50
    assert found.policy.classes[0].look_alikes == (LOOK_ALIKE,)
    assert started(asked(look_alikes=("a pen",))).policy.classes[0].look_alikes == (
        "a pen",
        LOOK_ALIKE,
    )


def test_what_is_contrasted_with_already_is_not_proposed_again() -> None:
    assert LOOK_ALIKE not in started(asked(look_alikes=(LOOK_ALIKE,))).classes[0].proposed


def test_a_calibration_holds_for_other_words_no_longer() -> None:
    calibrated = asked(calibration=Calibration(a=0.5, b=-1.0))
    kept, dropped = started(calibrated, most=0), started(calibrated)
    assert kept.policy.classes[0].calibration and not kept.classes[0].dropped
    assert dropped.policy.classes[0].calibration is None
    assert dropped.classes[0].dropped == ("calibration",)
    assert threshold_margin(kept.policy.classes[0]) == pytest.approx(
        kept.classes[0].threshold.margin, abs=0.01
    )


def test_nothing_is_told_of_the_pictures_of_a_restricted_class() -> None:
    assert started(asked(sealed=Preservation(days=9))).classes[0].proposed == {}


def test_a_model_that_contrasts_with_nothing_gets_thresholds_alone() -> None:
    found = started(asked(), SIGMOID)
    assert found.classes[0].proposed == {} and found.classes[0].above == 20


def test_too_few_pictures_are_refused_before_anything_is_encoded() -> None:
    def encode_nothing(texts: object) -> FloatArray:
        raise AssertionError("asked for words")

    with pytest.raises(InvalidRequest, match="7 different pictures are too few"):
        starting_policy(asked(), pictures(7), 0.01, LOGIT_SCALE, encode_nothing)
    with pytest.raises(InvalidRequest, match="0 different pictures are too few"):
        starting_policy(asked(), PictureStream.of([]), 0.01, LOGIT_SCALE, encode_nothing)


def test_of_a_picture_the_view_counts_that_shows_a_class_most() -> None:
    views = encode(["dog", "red gun", "cat", "apple"])
    stream = PictureStream.of([views[:2], views[2:3], views[3:]])
    c = ClassVectors("gun", encode(["red gun"]), encode(["blue car"]), LOGIT_SCALE)
    margins = c.margins(views)
    assert len(stream) == 3
    assert stream.margins(c).tolist() == [margins[1], margins[2], margins[3]]
    np.testing.assert_array_equal(stream.top(c)[0], views[1])
    assert stream.top(c).shape == (3, views.shape[1])


@pytest.mark.parametrize("margin", [-20.0, -3.3, 0.0, 2.1972, 7.39, 18.4, 30.0])
def test_a_threshold_has_few_digits_and_keeps_its_margin(margin: float) -> None:
    p = readable(1 / (1 + math.exp(-margin)))
    assert math.log(p / (1 - p)) == pytest.approx(margin, abs=0.01)
    assert abs(margin) > 10 or len(str(p)) <= len("0.1234567")


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_threshold_stays_between_none_and_all(p: float) -> None:
    assert 0 < readable(p) < 1


def test_the_file_is_the_policy_and_says_how_it_was_made() -> None:
    found = started(asked(clause="Keine Schusswaffen – nie: 'gar' keine.", severity=Severity.HIGH))
    source = "the folder pictures\nname: evil\x1b\u2028and more " + "very " * 30
    conditions = StartingConditions(source, "bundled", "ab" * 32, date(2026, 11, 30))
    text = starting_document(found, conditions)
    assert parse_policy(text).digest == found.policy.digest
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert text.splitlines()[len(comments)] == "name: small"
    said = " ".join(line.lstrip("# ") for line in comments)
    for part in (
        *("2026-11-30", "1000 different pictures", "bundled", "ab" * 32),
        *("2 % of the stream", "a queue, not a probability", "nothing was activated"),
        *("weapons: ", f'"{LOOK_ALIKE}" (49)', "20 of these pictures above"),
    ):
        assert part in said
    assert all(len(line) <= 100 for line in comments)
