"""Versions with a head: proposed only for a proven gain, and a sentence for everything else."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.labels import LabelSource
from filter_service.calibration.reliability import average_precision
from filter_service.calibration.training_labels import keep_training, training_of
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import load_policy, store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredScore, TrainingLabel
from filter_service.errors import InvalidRequest, NotAllowed
from filter_service.policy import Calibration, Policy
from filter_service.rollout.taught_version import TaughtClass, same_share, taught_policy, teach
from filter_service.scoring import FloatArray
from filter_service.verdicts import threshold_margin
from tests.support.taught_world import (
    DIM,
    POLICY,
    TaughtWorld,
    pictures,
    reviewed_pictures,
)

Bools = npt.NDArray[np.bool_]
TRUTHS = np.arange(60) % 3 == 0


def taught(
    sessions: Sessions, vectors: FloatArray, truths: Bools, policy: Policy = POLICY
) -> tuple[TaughtClass, TaughtWorld]:
    with sessions.begin() as session:
        world = reviewed_pictures(session, vectors, truths, policy)
        return teach(session, policy, "gun", world.encoder), world


def test_a_class_learns_what_its_prompts_do_not_name(sessions: Sessions) -> None:
    found, world = taught(sessions, pictures(1, TRUTHS), TRUTHS)
    version = taught_policy(POLICY, found)
    truths = np.arange(2_000) % 3 == 0
    fresh = pictures(2, truths)
    before, after = (
        average_precision(world.encoder.policy(p)[1].classes[0].margins(fresh), truths)
        for p in (POLICY, version)
    )
    assert after > before + 0.1
    assert found.head.gain.low > 0
    assert version.classes[1:] == POLICY.classes[1:]


def test_a_head_says_what_it_rests_on_and_what_it_learnt(sessions: Sessions) -> None:
    head = taught(sessions, pictures(1, TRUTHS), TRUTHS)[0].head
    assert (head.labels, head.positives, head.encoder) == (60, 20, "ab" * 32)
    first = head.words.phrases[0]
    assert first.text == "a toy gun" and first.share > 0.2
    assert 0.05 < head.words.prompts < 0.95
    shares = sum(abs(p.share) for p in head.words.phrases)
    assert shares + head.words.unsaid == pytest.approx(1)


def test_the_same_share_of_the_stream_stays_flagged(sessions: Sessions) -> None:
    found, world = taught(sessions, pictures(1, TRUTHS), TRUTHS)
    flagged = [
        int((world.encoder.policy(p)[1].classes[0].margins(world.vectors) >= at).sum())
        for p, at in (
            (POLICY, threshold_margin(found.before)),
            (taught_policy(POLICY, found), threshold_margin(found.after)),
        )
    ]
    assert flagged[0] == flagged[1] > 0


@pytest.mark.parametrize(
    ("threshold", "expected"), [(2.5, 25.0), (3.0, 25.0), (0.5, 9.5), (5.0, 41.0)]
)
def test_as_many_lie_over_the_new_threshold_as_over_the_old(
    threshold: float, expected: float
) -> None:
    before, after = np.array([1.0, 2, 3, 4]), np.array([40.0, 30, 20, 10])
    assert same_share(before, after, threshold) == expected


def test_what_was_proven_of_the_prompts_margins_is_left_out(sessions: Sessions) -> None:
    gun = POLICY.classes[0].model_copy(
        update={"calibration": Calibration(a=0.9, b=-0.5), "certain": 0.9}
    )
    calibrated = POLICY.model_copy(update={"classes": (gun, *POLICY.classes[1:])})
    found, _ = taught(sessions, pictures(1, TRUTHS), TRUTHS, calibrated)
    assert found.before.calibration and found.after.calibration is None
    assert found.before.certain and found.after.certain is None


def test_a_head_that_is_learnt_again_has_to_gain_over_the_one_that_stands(
    sessions: Sessions,
) -> None:
    found, world = taught(sessions, pictures(1, TRUTHS), TRUTHS)
    version = taught_policy(POLICY, found)
    with sessions.begin() as session:
        store_policy(session, version)
        with pytest.raises(InvalidRequest, match=r"gun stays as it is: .* not above 0 for sure"):
            teach(session, version, "gun", world.encoder)


def test_a_class_that_its_prompts_name_well_stays_and_the_figures_are_said(
    sessions: Sessions,
) -> None:
    with pytest.raises(InvalidRequest, match=r"60 labels, 20 of which .* by [-+]0\.\d{3} \("):
        taught(sessions, pictures(1, TRUTHS, tilt=0.0), TRUTHS)


@pytest.mark.parametrize(
    ("truths", "said"),
    [
        (np.zeros(60, np.bool_), "from 60 labels, of which 0 show it"),
        (np.ones(60, np.bool_), "from 60 labels, of which 60 show it"),
        (TRUTHS[:49], "from 49 labels"),
        (TRUTHS[:0], "from 0 labels"),
    ],
)
def test_labels_that_say_too_little_are_a_sentence(
    sessions: Sessions, truths: Bools, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        taught(sessions, pictures(1, truths), truths)


def test_pictures_that_are_all_alike_contradict_each_other(sessions: Sessions) -> None:
    same = np.tile(pictures(1, TRUTHS[:1]), (60, 1))
    with pytest.raises(InvalidRequest, match="a vector of 60, and these contradict each other"):
        taught(sessions, same, TRUTHS)


def test_the_same_picture_with_opposite_answers_is_left_out_and_counted(
    sessions: Sessions,
) -> None:
    vectors = pictures(1, TRUTHS)
    again = np.concatenate([vectors, vectors[:2]])
    found, _ = taught(sessions, again, np.concatenate([TRUTHS, ~TRUTHS[:2]]))
    assert found.contradicting == 4 and found.head.labels == 58


def test_another_encoder_has_nothing_to_learn_from(sessions: Sessions) -> None:
    with sessions.begin() as session:
        world = reviewed_pictures(session, pictures(1, TRUTHS), TRUTHS)
        other = register_encoder(session, "cd" * 32, "other", DIM, {})
        strange = replace(world.encoder, id=other, fingerprint="cd" * 32)
        with pytest.raises(InvalidRequest, match="of its 60 labels encoder cdcdcdcdcdcd has a"):
            teach(session, POLICY, "gun", strange)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("bomb", InvalidRequest, "no class 'bomb': it has gun, knife, secret"),
        ("secret", NotAllowed, "restricted: only a custodian"),
    ],
)
def test_a_class_that_nobody_may_teach_is_refused(
    sessions: Sessions, name: str, error: type[Exception], said: str
) -> None:
    with sessions.begin() as session:
        world = reviewed_pictures(session, pictures(1, TRUTHS), TRUTHS)
        with pytest.raises(error, match=said):
            teach(session, POLICY, name, world.encoder)


def test_labels_of_appeals_teach_nothing_and_uploads_do(sessions: Sessions) -> None:
    vectors = pictures(1, TRUTHS)
    with sessions.begin() as session:
        world = reviewed_pictures(session, vectors, TRUTHS, source=LabelSource.APPEAL)
        with pytest.raises(InvalidRequest, match="from 0 labels"):
            teach(session, POLICY, "gun", world.encoder)
        labels.forget(session, world.images[0])
        truths = zip(world.images[1:], TRUTHS[1:].tolist(), strict=True)
        for image in world.images[1:]:
            labels.forget(session, image)
        labels.upload(
            session, POLICY, {(image, "gun"): truth for image, truth in truths}, "service"
        )
        assert teach(session, POLICY, "gun", world.encoder).head.labels == 59


def kept(session: Session, fit: str) -> int:
    query = select(func.count()).select_from(TrainingLabel)
    return session.scalar(query.where(TrainingLabel.fit == fit)) or 0


def test_what_a_head_learnt_from_is_kept_and_says_nothing_about_how_right_it_is(
    sessions: Sessions,
) -> None:
    found, world = taught(sessions, pictures(1, TRUTHS), TRUTHS)
    version = taught_policy(POLICY, found)
    with sessions.begin() as session:
        keep_training(session, found.head.digest, found.training)
        keep_training(session, found.head.digest, found.training)
        rows = training_of(session, found.head.digest)
        assert [(r.image_id, r.truth) for r in rows] == list(
            zip(world.images, TRUTHS.tolist(), strict=True)
        )
        margins = world.encoder.policy(POLICY)[1].classes[0].margins(world.vectors)
        assert [r.margin for r in rows] == pytest.approx(margins.tolist())
        more = np.arange(9) % 3 == 0
        reviewed_pictures(session, pictures(5, more), more, version)
        version_id = store_policy(session, version)
        class_id = load_policy(session, version_id).class_ids["gun"]
        about = {"encoder_id": world.encoder.id, "class_id": class_id, "frame": 0, "exact": True}
        again = [{"image_id": image, "margin": 0.0, **about} for image in world.images]
        session.execute(insert(StoredScore), again)  # judged anew by the version
        assert len(labels.of_class(session, version_id, "gun", world.encoder.id)) == 9
        assert len(labels.of_class(session, world.policy_id, "gun", world.encoder.id)) == 60


def test_an_erased_image_is_no_part_of_what_was_learnt(sessions: Sessions) -> None:
    found, world = taught(sessions, pictures(1, TRUTHS), TRUTHS)
    with sessions.begin() as session:
        keep_training(session, found.head.digest, found.training)
        assert labels.forget(session, world.images[3]) == 1
        assert kept(session, found.head.digest) == 59
