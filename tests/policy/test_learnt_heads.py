"""Heads in policies: bound to words and margins; older digests stay."""

import base64
from datetime import date

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from filter_service.policy import (
    Calibration,
    CalibrationOrigin,
    ForbiddenClass,
    Policy,
    parse_policy,
)
from filter_service.policy.learnt_head import packed, unpacked
from filter_service.rollout.diff import Change, differ
from tests.support.learnt_heads import head_for, with_head

ENCODER = "ab" * 32
WEIGHTS = np.array([1.5, -2.0, 0.25], np.float32)
POLICY = Policy(
    name="tested",
    neutral=("a street",),
    classes=(ForbiddenClass(name="gun", prompts=("a gun",), threshold=0.8),),
)
HEAD = head_for(POLICY, "gun", ENCODER, WEIGHTS, 0.5)


def fitted(head: str | None) -> Calibration:
    """A calibration of margins with this head."""
    origin = CalibrationOrigin(
        encoder=ENCODER,
        wording=POLICY.wording(POLICY.classes[0]),
        head=head,
        reviews=60,
        until=date(2026, 11, 30),
        covariance=(0.01, 0.0, 0.01),
    )
    return Calibration(a=1.0, b=0.0, origin=origin)


def test_a_direction_is_kept_bit_by_bit() -> None:
    assert (unpacked(packed(WEIGHTS)) == WEIGHTS).all()
    policy = with_head(POLICY, "gun", HEAD)
    again = Policy.model_validate_json(policy.model_dump_json())
    assert again.digest == policy.digest != POLICY.digest
    assert again.classes[0].head is not None
    assert (again.classes[0].head.weights == WEIGHTS).all()


def test_a_policy_without_a_head_does_not_speak_of_it() -> None:
    assert "head" not in POLICY.model_dump(mode="json")["classes"][0]
    assert "head" not in fitted(None).model_dump(mode="json")["origin"]


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        ("!", "base64 of float32 numbers"),
        ("", "this has 0 bytes"),
        (base64.b64encode(b"123").decode(), "this has 3 bytes"),
        (packed(np.array([1.0, np.nan])), "finite numbers only"),
        (packed(np.array([1.0, np.inf])), "finite numbers only"),
        (packed(np.full(3, 1e30)), "10000 logits at most"),
    ],
)
def test_what_is_no_direction_is_refused_with_a_sentence(direction: str, said: str) -> None:
    written = POLICY.model_dump(mode="json")
    written["classes"][0]["head"] = HEAD.model_dump(mode="json") | {"direction": direction}
    with pytest.raises(ValidationError, match=said):
        Policy.model_validate(written)


def test_other_words_refuse_a_head() -> None:
    written = with_head(POLICY, "gun", HEAD).model_dump(mode="json")
    written["classes"][0]["prompts"] = ["a big gun"]
    with pytest.raises(ValidationError, match=r"head of gun was learnt for other prompts.*fit it"):
        Policy.model_validate(written)


@pytest.mark.parametrize(("with_", "of"), [(False, HEAD.digest), (True, None), (True, "ab" * 32)])
def test_a_calibration_of_other_margins_is_refused(with_: bool, of: str | None) -> None:
    policy = with_head(POLICY, "gun", HEAD) if with_ else POLICY
    written = policy.model_dump(mode="json")
    written["classes"][0]["calibration"] = fitted(of).model_dump(mode="json")
    with pytest.raises(ValidationError, match=r"calibration of gun .* another head, or with none"):
        Policy.model_validate(written)


def test_a_calibration_of_the_heads_own_margins_stays() -> None:
    written = with_head(POLICY, "gun", HEAD).model_dump(mode="json")
    written["classes"][0]["calibration"] = fitted(HEAD.digest).model_dump(mode="json")
    assert Policy.model_validate(written).classes[0].calibration == fitted(HEAD.digest)


def test_two_versions_show_what_a_head_says_in_words() -> None:
    (section,) = differ(POLICY, with_head(POLICY, "gun", HEAD)).classes
    (line,) = [line for line in section.lines if line.field == "head"]
    told = [value.text for value in line.new]
    assert section.change is Change.CHANGED and line.old == ()
    assert told[0] == "60 labels until 30 Nov 2026, 20 of which show it"
    assert "the prompts account for 60% of its direction" in told
    assert not any(HEAD.direction in text for text in told)


def test_a_head_survives_yaml() -> None:
    policy = with_head(POLICY, "gun", HEAD)
    assert parse_policy(yaml.safe_dump(policy.model_dump(mode="json"))).digest == policy.digest
