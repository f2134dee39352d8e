"""Which reviews made a probability: as fitting again says, and of what the reader may see only."""

from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import func, select, true, update
from sqlalchemy.orm import Session

from filter_service.accounts import Role
from filter_service.audit.record import read
from filter_service.audit.record.record_view import Record
from filter_service.calibration import labels
from filter_service.calibration.calibrators import fit_calibrator
from filter_service.calibration.heads import LabelledVectors, fit_head
from filter_service.calibration.labelled_margins import LabelledMargins
from filter_service.calibration.training_labels import keep_training
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, PolicyClass, Restriction
from filter_service.policy import Policy
from filter_service.reviews.influential_labels import InfluentialLabels, influential_labels
from filter_service.rollout.calibrated_version import calibrate, calibrated_policy, keep_fits
from filter_service.rollout.taught_version import taught_policy, teach
from filter_service.storage import Storage
from filter_service.verdicts import probability
from filter_service.web.app import create_app
from tests.support.taught_world import (
    FINGERPRINT,
    POLICY,
    TaughtWorld,
    pictures,
    reviewed_pictures,
)
from tests.support.web_clients import client_of, web_service

TRUTHS = np.arange(50) % 3 == 0
NEW = np.array([True])


@pytest.fixture
def taught(sessions: Sessions) -> tuple[Policy, TaughtWorld, TaughtWorld]:
    """A version with a head of 50 labels, what it learnt from, and an item that it judged."""
    with sessions.begin() as session:
        learnt_from = reviewed_pictures(session, pictures(1, TRUTHS), TRUTHS)
        found = teach(session, POLICY, "gun", learnt_from.encoder)
        keep_training(session, found.head.digest, found.training)
        version = taught_policy(POLICY, found)
        judged = reviewed_pictures(session, pictures(7, NEW), NEW, version)
    return version, learnt_from, judged


def margin_of(world: TaughtWorld, policy: Policy) -> float:
    return float(world.encoder.policy(policy)[1].classes[0].margins(world.vectors)[0])


def told(
    session: Session, version: Policy, judged: TaughtWorld, seen: object = None
) -> InfluentialLabels:
    item = session.get_one(Item, judged.items[0])
    gun, margin = version.classes[0], margin_of(judged, version)
    found = influential_labels(session, item, gun, margin, true() if seen is None else seen)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_five_for_and_five_against_move_a_probability_as_learning_again_says(
    sessions: Sessions, taught: tuple[Policy, TaughtWorld, TaughtWorld]
) -> None:
    version, world, judged = taught
    with sessions.begin() as session:
        found = told(session, version, judged)
    gun, margin = version.classes[0], margin_of(judged, version)
    assert gun.head is not None
    alone = world.encoder.policy(POLICY)[1].classes[0]
    known = LabelledVectors(world.vectors.astype(np.float64), alone.margins(world.vectors), TRUTHS)
    assert len(found.raising) == len(found.lowering) == 5 and found.labels == 50
    for one in (*found.raising, *found.lowering):
        assert one.item_id is not None
        rest = np.array(world.items) != one.item_id
        less = fit_head(known.among(rest), gun.head.strength).added(judged.vectors)[0]
        without = probability(float(alone.margins(judged.vectors)[0] + less), gun)
        assert one.change == pytest.approx(probability(margin, gun) - without, abs=1e-3)
        assert one.truth == bool(TRUTHS[world.items.index(one.item_id)])
    changes = [one.change for one in found.raising]
    assert changes == sorted(changes, reverse=True) and changes[-1] > 0
    assert found.added == pytest.approx(margin - float(alone.margins(judged.vectors)[0]), abs=1e-2)


def test_the_labels_of_a_calibration_move_it_as_fitting_again_says(sessions: Sessions) -> None:
    with sessions.begin() as session:
        world = reviewed_pictures(session, pictures(1, TRUTHS), TRUTHS)
        fitted = calibrate(session, POLICY, world.policy_id, (world.encoder.id, FINGERPRINT))
        keep_fits(session, fitted)
        version = calibrated_policy(POLICY, fitted)
        judged = reviewed_pictures(session, pictures(7, NEW), NEW, version)
        found = told(session, version, judged)
    gun, margin = version.classes[0], margin_of(judged, version)
    assert gun.calibration and gun.calibration.origin and gun.calibration.origin.common
    margins = world.encoder.policy(POLICY)[1].classes[0].margins(world.vectors)
    assert found.raising and found.lowering and found.added is None
    for one in (*found.raising, *found.lowering):
        rest = np.array(world.items) != one.item_id
        less = LabelledMargins.of(margins[rest], TRUTHS[rest])
        with_one = LabelledMargins.of(margins, TRUTHS)
        common = np.array(gun.calibration.origin.common)
        if len(less) < 50:  # as many as a calibration needs at least
            less = LabelledMargins.of([*less.margins, 0.0], [*less.truths, False])
            with_one = LabelledMargins.of([*margins, 0.0], [*TRUTHS, False])
        before, after = (fit_calibrator(k, common, "gun") for k in (with_one, less))
        at = np.array([margin])
        moved = before.probability(at)[0] - after.probability(at)[0]
        assert one.change == pytest.approx(moved, abs=1e-3)


def test_an_items_own_label_is_not_told(
    sessions: Sessions, taught: tuple[Policy, TaughtWorld, TaughtWorld]
) -> None:
    version, world, judged = taught
    with sessions.begin() as session:
        first = told(session, version, judged).raising[0].item_id
        assert first is not None
        own = TaughtWorld(
            judged.policy_id,
            judged.encoder,
            world.images,
            [first],
            world.vectors[[world.items.index(first)]],
        )
        found = told(session, version, own)
    assert first not in {one.item_id for one in (*found.raising, *found.lowering)}


def test_a_picture_that_the_reader_may_not_see_is_not_named(
    sessions: Sessions, taught: tuple[Policy, TaughtWorld, TaughtWorld]
) -> None:
    version, _, judged = taught
    with sessions.begin() as session:
        first = told(session, version, judged).raising[0]
        found = told(session, version, judged, Item.id != first.item_id)
    assert found.raising[0].item_id is None and not found.raising[0].uploaded
    assert found.raising[0].change == first.change
    assert found.raising[1].item_id is not None


def test_an_erased_label_is_counted_and_not_told(
    sessions: Sessions, taught: tuple[Policy, TaughtWorld, TaughtWorld]
) -> None:
    version, world, judged = taught
    with sessions.begin() as session:
        first = told(session, version, judged).raising[0].item_id
        assert first is not None
        labels.forget(session, world.images[world.items.index(first)])
        found = told(session, version, judged)
    assert (found.labels, found.gone) == (49, 1)
    assert first not in {one.item_id for one in (*found.raising, *found.lowering)}


def test_a_class_that_learnt_nothing_has_no_such_reviews(sessions: Sessions) -> None:
    with sessions.begin() as session:
        world = reviewed_pictures(session, pictures(1, TRUTHS), TRUTHS)
        item = session.get_one(Item, world.items[0])
        assert influential_labels(session, item, POLICY.classes[0], 1.0, true()) is None


def test_item_page_and_record_tell_the_reviews_and_name_no_locked_picture(
    sessions: Sessions,
    storage: Storage,
    taught: tuple[Policy, TaughtWorld, TaughtWorld],
) -> None:
    version, world, judged = taught
    app = create_app(web_service(sessions, storage))
    auditor = client_of(app, sessions, Role.AUDITOR)
    with sessions.begin() as session:
        locked, named = (one.item_id for one in told(session, version, judged).raising[:2])
        assert locked is not None and named is not None
        seal = Restriction(
            item_id=locked,
            image_id=world.images[world.items.index(locked)],
            class_name="secret",
            preserve_until=session.scalar(select(func.now() + timedelta(days=1))),
        )
        session.add(seal)
    page = auditor.get(f"/items/{judged.items[0]}").text
    assert "Which reviews made this probability" in page
    assert f'<a href="/items/{named}">item {named}</a>, shows it' in page
    assert f"item {locked}<" not in page and "a picture that you may not see" in page
    life = read(sessions, judged.items[0], "person ada", "page")
    made = Record(life).history.influences["gun"]
    assert [one.item_id for one in made.raising[:2]] == [None, named]
    record = auditor.get(f"/items/{judged.items[0]}/record").text
    assert "Reviews that made the probability" in record and f"item {named} shows it" in record
    assert "What reviews taught" in record and "50 labels until" in record


def test_a_moderator_is_told_of_no_item_of_a_class_that_is_closed_to_them(
    sessions: Sessions, storage: Storage, taught: tuple[Policy, TaughtWorld, TaughtWorld]
) -> None:
    version, world, judged = taught
    with sessions.begin() as session:
        closed, named = (one.item_id for one in told(session, version, judged).raising[:2])
        knife = session.scalar(
            select(PolicyClass.id).where(
                PolicyClass.policy_id == world.policy_id, PolicyClass.name == "knife"
            )
        )
        session.execute(update(Item).where(Item.id == closed).values(class_id=knife))
    app = create_app(web_service(sessions, storage))
    mod = client_of(app, sessions, Role.MODERATOR, classes=("gun",))
    page = mod.get(f"/items/{judged.items[0]}").text
    assert f'"/items/{named}"' in page and f'"/items/{closed}"' not in page
