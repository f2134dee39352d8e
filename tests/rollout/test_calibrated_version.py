"""Versions that are calibrated on decisions: bound to encoder and words, proposed and no more."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.threshold_choice import for_precision
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.encoder import load_encoder
from filter_service.errors import AnotherEncoder, InvalidRequest
from filter_service.policy import ForbiddenClass, Policy, Preservation
from filter_service.rendering.class_evidence import ClassEvidence
from filter_service.rollout.calibrated_version import (
    KEPT,
    ThresholdAims,
    calibrate,
    calibrated_policy,
)
from filter_service.verdicts import (
    certain_margin,
    probability,
    probability_interval,
    threshold_margin,
)
from tests.support.labelled_decisions import keep_decisions
from tests.support.margin_worlds import reviewed

FINGERPRINT = "ab" * 32
POLICY = Policy(
    name="tested",
    neutral=("a street", "a dog"),
    classes=(
        ForbiddenClass(name="gun", prompts=("a gun",), threshold=0.8),
        ForbiddenClass(name="knife", prompts=("a knife",), threshold=0.8),
        ForbiddenClass(
            name="secret", prompts=("a secret",), threshold=0.8, sealed=Preservation(days=9)
        ),
    ),
)


def decided(session: Session, policy: Policy, seed: int, count: int) -> tuple[int, int]:
    """Reviewed images of a gun; -> ids of policy and encoder."""
    policy_id = store_policy(session, policy)
    encoder_id = register_encoder(session, FINGERPRINT, "tested", 8, {})
    keep_decisions(session, (policy_id, "gun"), encoder_id, reviewed(seed, count))
    return policy_id, encoder_id


def made(sessions: Sessions, count: int, aims: ThresholdAims = KEPT) -> Policy:
    with sessions.begin() as session:
        policy_id, encoder_id = decided(session, POLICY, 1, count)
        found = calibrate(session, POLICY, policy_id, (encoder_id, FINGERPRINT), aims)
    return calibrated_policy(POLICY, found)


def test_what_is_flagged_stays_flagged_and_probabilities_mean_something(
    sessions: Sessions,
) -> None:
    version = made(sessions, 400)
    gun, knife, secret = version.classes
    assert threshold_margin(gun) == pytest.approx(threshold_margin(POLICY.classes[0]), abs=1e-6)
    assert gun.threshold < 0.4
    assert probability(3.0, gun) == pytest.approx(0.5, abs=0.15)
    assert (knife, secret) == POLICY.classes[1:]
    origin = gun.calibration and gun.calibration.origin
    assert origin
    assert (origin.encoder, origin.reviews) == (FINGERPRINT, 400)
    assert origin.until == datetime.now(UTC).date()
    low, high = probability_interval(3.0, gun) or (0, 0)
    assert 0.2 < low < probability(3.0, gun) < high < 0.8
    shown = ClassEvidence(1, gun, 3.0, probability(3.0, gun), None).calibration
    assert shown.startswith("Calibrated on 400 reviews until ")
    assert ClassEvidence(1, knife, 3.0, probability(3.0, knife), None).calibration == ""


def test_a_threshold_that_keeps_a_promise_of_precision_lies_higher(sessions: Sessions) -> None:
    gun = made(sessions, 400, ThresholdAims(precision=0.8)).classes[0]
    assert threshold_margin(gun) > threshold_margin(POLICY.classes[0]) + 1


def test_flags_act_by_themselves_where_enough_of_them_are_right(sessions: Sessions) -> None:
    with sessions.begin() as session:
        policy_id, encoder_id = decided(session, POLICY, 1, 1_000)
        asked = (POLICY, policy_id, (encoder_id, FINGERPRINT))
        gun, knife, secret = calibrate(session, *asked, ThresholdAims(certain=0.9))
        stream = labels.margins_of(session, policy_id, "gun", encoder_id)
    made = gun.after
    assert made.certain is not None and gun.calibrator is not None
    assert threshold_margin(made) == pytest.approx(threshold_margin(POLICY.classes[0]), abs=1e-6)
    assert certain_margin(made) >= for_precision(gun.calibrator, stream, 0.9)
    assert gun.certain is not None and 0.9 <= gun.certain.low < 1
    assert gun.certain.right <= gun.certain.reviewed < 1_000
    assert (knife.after.certain, secret.after.certain) == (None, None)  # nothing is known of them


def test_a_line_alone_lets_no_flag_act(sessions: Sessions) -> None:
    """It promises anything far enough up, where people have seen next to nothing."""
    with sessions.begin() as session:
        policy_id, encoder_id = decided(session, POLICY, 1, 60)
        aims = ThresholdAims(certain=0.999)
        gun = calibrate(session, POLICY, policy_id, (encoder_id, FINGERPRINT), aims)[0]
    assert gun.after.certain is None
    assert gun.refusals[0].startswith("gun keeps what acts by itself. ")
    assert "reviewed images from" in gun.refusals[0]


def test_what_acts_by_itself_stays_so_when_it_is_calibrated(sessions: Sessions) -> None:
    gun = POLICY.classes[0].model_copy(update={"certain": 0.99})
    policy = POLICY.model_copy(update={"classes": (gun, *POLICY.classes[1:])})
    with sessions.begin() as session:
        policy_id, encoder_id = decided(session, policy, 1, 400)
        asked = (policy, policy_id, (encoder_id, FINGERPRINT))
        kept = calibrate(session, *asked)[0].after
        higher = calibrate(session, *asked, ThresholdAims(precision=0.97))[0].after
    assert certain_margin(kept) == pytest.approx(certain_margin(gun), abs=1e-6)
    assert certain_margin(gun) < threshold_margin(higher)
    assert higher.certain == higher.threshold  # which had risen above it


def test_a_promise_that_cannot_be_kept_leaves_the_threshold_and_says_so(sessions: Sessions) -> None:
    with sessions.begin() as session:
        policy_id, encoder_id = decided(session, POLICY, 1, 60)
        found = calibrate(
            session, POLICY, policy_id, (encoder_id, FINGERPRINT), ThresholdAims(most_missed=0.01)
        )
    gun = found[0]
    assert gun.calibrator is not None
    assert "gun keeps its threshold" in gun.refusals[0]
    assert threshold_margin(gun.after) == pytest.approx(threshold_margin(gun.before), abs=1e-6)


def test_too_few_reviews_propose_nothing(sessions: Sessions) -> None:
    with pytest.raises(InvalidRequest, match=r"can be calibrated yet.*gun stays.*49 labels"):
        made(sessions, 49)


def test_two_aims_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="one promise"):
        ThresholdAims(most_missed=0.1, precision=0.9)


def test_other_words_refuse_a_calibration(sessions: Sessions) -> None:
    document = made(sessions, 400).model_dump(mode="json")
    document["classes"][0]["prompts"] = ["a big gun"]
    with pytest.raises(ValidationError, match="calibration of gun was fitted for other prompts"):
        Policy.model_validate(document)


def test_another_encoder_refuses_a_calibration(sessions: Sessions) -> None:
    version = made(sessions, 400)
    with pytest.raises(AnotherEncoder, match=r"calibration of gun .* encoder abababababab"):
        load_encoder("bundled", device="cpu").vectors(version)


def test_after_a_change_of_the_encoder_the_probability_stays(sessions: Sessions) -> None:
    version = made(sessions, 400)
    with sessions.begin() as session:
        policy_id = store_policy(session, version)
        other = register_encoder(session, "cd" * 32, "another", 8, {})
        shifted = reviewed(2, 400)
        shifted = replace(shifted, margins=shifted.margins + 3)
        keep_decisions(session, (policy_id, "gun"), other, shifted, first=400)
        again = calibrate(session, version, policy_id, (other, "cd" * 32))[0]
    assert again.after.threshold == pytest.approx(version.classes[0].threshold)
    moved = threshold_margin(again.after) - threshold_margin(version.classes[0])
    assert moved == pytest.approx(3, abs=0.5)


def test_labels_of_a_calibrated_version_are_those_of_before(sessions: Sessions) -> None:
    version = made(sessions, 400)
    with sessions.begin() as session:
        policy_id = store_policy(session, version)
        encoder_id = register_encoder(session, FINGERPRINT, "tested", 8, {})
        again = calibrate(session, version, policy_id, (encoder_id, FINGERPRINT))
    assert again[0].calibrator is not None
    assert again[0].calibrator.a == pytest.approx(version.classes[0].calibration.a)  # type: ignore[union-attr]


def test_margins_as_they_come_are_those_of_the_class(sessions: Sessions) -> None:
    with sessions.begin() as session:
        policy_id, encoder_id = decided(session, POLICY, 1, 60)
        stream = labels.margins_of(session, policy_id, "gun", encoder_id)
        none = labels.margins_of(session, policy_id, "knife", encoder_id)
    assert np.sort(stream) == pytest.approx(np.sort(reviewed(1, 60).margins), abs=1e-5)
    assert len(none) == 0
