"""Edited documents: what was learnt stays where the words do, and nowhere else."""

from datetime import date
from typing import Any

import pytest

from filter_service.policy import Calibration, CalibrationOrigin, Policy, parse_policy
from filter_service.rollout.edited_version import edited, policy_document
from tests.support.simple_classifier import FINGERPRINT, POLICY


def calibrated() -> Policy:
    """The knife's margins are calibrated on reviews."""
    knife, gun = POLICY.classes
    origin = CalibrationOrigin(
        encoder=FINGERPRINT,
        wording=POLICY.wording(knife),
        reviews=60,
        until=date(2026, 5, 1),
        covariance=(0.1, 0.0, 0.2),
    )
    found = Calibration(a=1.5, b=-2.0, origin=origin)
    knife = knife.model_copy(update={"calibration": found})
    return POLICY.model_copy(update={"classes": (knife, gun)})


BASE = calibrated().model_dump(mode="json", exclude_none=True)
NAMES = ["knife", "gun"]


def changed(number: int, **fields: Any) -> dict[str, Any]:
    classes = [c | fields if i == number else c for i, c in enumerate(BASE["classes"])]
    return BASE | {"classes": classes}


def test_a_threshold_or_a_name_changes_and_the_calibration_stays() -> None:
    found = edited(changed(0, threshold=0.3, name="blade", severity="high"), BASE, NAMES)
    assert found.policy is not None
    assert found.policy.classes[0].calibration == calibrated().classes[0].calibration
    assert found.left_out == ()


@pytest.mark.parametrize(
    "words",
    [
        changed(0, prompts=["a knife", "a dagger"]),
        changed(0, look_alikes=["a spoon"]),
        BASE | {"neutral": ["a photo", "a street"]},
        BASE | {"templates": ["a photo of {}"]},
        BASE | {"coverage": "model"},
    ],
)
def test_other_words_leave_the_calibration_out_and_say_so(words: dict[str, Any]) -> None:
    found = edited(words, BASE, NAMES)
    assert found.policy is not None and found.policy.classes[0].calibration is None
    assert found.left_out == (0,)


def test_another_class_s_words_leave_it_alone() -> None:
    found = edited(changed(1, prompts=["a pistol"]), BASE, NAMES)
    assert found.policy is not None and found.policy.classes[0].calibration is not None


def test_a_calibration_of_nobody_knows_what_is_no_calibration() -> None:
    assert edited(BASE, {}, NAMES).left_out == (0,)


def test_what_is_wrong_is_told_by_its_place() -> None:
    found = edited(changed(1, threshold="much"), BASE, NAMES)
    assert [f.place for f in found.faults] == [("classes", 1, "threshold")]
    assert found.policy is None


def test_a_policy_written_down_is_the_same_version_when_it_is_read() -> None:
    policy = calibrated()
    assert parse_policy(policy_document(policy)).digest == policy.digest
