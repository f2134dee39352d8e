"""What a threshold would do, against counts by brute force over everything that there is."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import insert, select

from filter_service.calibration.estimates import class_estimates
from filter_service.db.session import Sessions
from filter_service.db.tables import Embedding, Restriction
from filter_service.errors import ModelUnavailable
from filter_service.policy import Policy
from filter_service.reviews.expected_looks import expected_looks
from filter_service.reviews.review_rules import CERTAIN_SHARE, RuleKind, SamplingRule
from filter_service.rollout.class_margins import ClassMargins, EditedClass, class_margins
from filter_service.rollout.margin_store import MarginStore, key_of
from filter_service.rollout.threshold_effects import (
    CROSSING,
    ThresholdEffects,
    Thresholds,
    Traffic,
    effects,
)
from filter_service.storage import Storage
from filter_service.verdicts import threshold_margin
from tests.support.margin_house import (
    KnownImage,
    WordSeeker,
    encoder_of,
    furnished,
    worded,
)
from tests.support.policy_versions import with_threshold
from tests.support.simple_classifier import POLICY

House = dict[int, KnownImage]
REWORDED = POLICY.model_copy(
    update={
        "classes": (
            POLICY.classes[0].model_copy(update={"prompts": ("a dagger",), "threshold": 0.7}),
            POLICY.classes[1],
        )
    }
)


@pytest.fixture
def house(sessions: Sessions, storage: Storage) -> House:
    return furnished(sessions, storage)


def asked(policy: Policy) -> EditedClass:
    return EditedClass(policy, "knife", POLICY, "knife")


def found(sessions: Sessions, policy: Policy) -> ClassMargins:
    return class_margins(sessions, asked(policy), WordSeeker(encoder_of(sessions)).words)


def rule(kind: RuleKind, share: float, near: float | None = None) -> SamplingRule:
    return SamplingRule(1, kind, None, near, share, "person ada", datetime.now(UTC))


def margin_of(policy: Policy) -> float:
    return threshold_margin(policy.classes[0])


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.83])
def test_kept_margins_give_what_counting_gives(
    sessions: Sessions, house: House, threshold: float
) -> None:
    policy = with_threshold(threshold)
    at = margin_of(policy)
    done = effects(found(sessions, policy), Thresholds(at, 0.0), Traffic(1_500.0, "knife", ()))
    flagged = [i for i in house.values() if i.margin >= at]
    assert (done.images, done.flagged) == (len(house), len(flagged))
    assert done.flags is not None
    assert done.flags.value == pytest.approx(1_500 * len(flagged) / len(house))
    assert done.flags.low < done.flags.value < done.flags.high
    check_known(house, done, {i: (k.margin >= 0, k.margin >= at) for i, k in house.items()})
    known = [i for i in house.values() if i.truth is not None]
    truths = np.array([k.truth for k in known])
    margins, chances = np.array([k.margin for k in known]), np.full(len(known), 0.5)
    assert done.precision == class_estimates(margins, truths, chances, at).precision
    assert done.recall == class_estimates(margins, truths, chances, at).recall


def check_known(house: House, done: ThresholdEffects, flags: dict[int, tuple[bool, bool]]) -> None:
    """Labelled images and examples that cross, by counting one after the other."""
    for change, examples, wanted in (
        (done.lost, done.crossing_down, (True, False)),
        (done.won, done.crossing_up, (False, True)),
    ):
        crossed = {i for i, both in flags.items() if both == wanted}
        assert change.forbidden == sum(house[i].truth is True for i in crossed)
        assert change.clear == sum(house[i].truth is False for i in crossed)
        assert {e.image_id for e in examples} <= crossed
        assert len(examples) == min(len(crossed), CROSSING)
        known = [e.truth for e in examples if e.truth is not None]
        assert [e.truth for e in examples[: len(known)]] == known == sorted(known, reverse=True)


def test_other_words_are_computed_over_kept_vectors(sessions: Sessions, house: House) -> None:
    got = found(sessions, REWORDED)
    assert got.stream.active is not None
    assert got.computed and sorted(got.stream.images.tolist()) == sorted(house)
    new, old = worded(REWORDED).classes[0], worded(POLICY).classes[0]
    for image, edited, active in zip(
        got.stream.images.tolist(), got.stream.edited, got.stream.active, strict=True
    ):
        assert edited == pytest.approx(new.margins(house[image].vectors).max(), abs=0.02)
        assert active == pytest.approx(old.margins(house[image].vectors).max(), abs=0.02)
    at = margin_of(REWORDED)
    done = effects(got, Thresholds(at, 0.0), Traffic(0.0, "knife", ()))
    margins = dict(zip(got.stream.images.tolist(), got.stream.edited, strict=True))
    before = dict(zip(got.stream.images.tolist(), got.stream.active, strict=True))
    check_known(house, done, {i: (before[i] >= 0, margins[i] >= at) for i in house})
    assert (done.flags, done.labels) == (None, len(got.labelled))


def test_what_acts_by_itself_is_counted_apart(sessions: Sessions, house: House) -> None:
    got = found(sessions, POLICY)
    done = effects(got, Thresholds(0.0, 0.0, certain=2.0), Traffic(300.0, "knife", ()))
    acting = sum(known.margin >= 2 for known in house.values())
    over = sum(known.margin >= 0 for known in house.values())
    assert done.acting is not None and done.reviews is not None
    assert done.acting.value == pytest.approx(300 * acting / len(house))
    looks = over - acting + CERTAIN_SHARE * acting
    assert done.reviews.value == pytest.approx(300 * looks / len(house))
    drawn = got.labelled
    wanted = class_estimates(drawn.margins, drawn.truths, drawn.chances, 2.0).precision
    assert done.acting_precision == wanted
    none = effects(got, Thresholds(0.0, 0.0), Traffic(300.0, "knife", ()))
    assert (none.acting, none.acting_precision) == (None, None)


def test_the_worst_view_of_an_image_counts(sessions: Sessions, house: House) -> None:
    """By more vectors of the same image than it came with."""
    image = max(house)
    towards = worded(REWORDED).classes[0].prompts[0]
    with sessions.begin() as session:
        row = session.scalars(select(Embedding).where(Embedding.image_id == image)).one()
        session.add(
            Embedding(encoder_id=row.encoder_id, image_id=image, frame=1, vector=towards, view="")
        )
    got = found(sessions, REWORDED)
    place = got.stream.images.tolist().index(image)
    best = worded(REWORDED).classes[0].margins(towards[None])[0]
    assert got.stream.edited[place] == pytest.approx(best, abs=0.02)
    assert len(got.stream) == len(house)


def test_nothing_is_told_of_what_is_locked_away(sessions: Sessions, house: House) -> None:
    locked = next(i for i, known in house.items() if known.truth is not None)
    with sessions.begin() as session:
        session.execute(
            insert(Restriction).values(
                item_id=house[locked].item,
                image_id=locked,
                class_name="secret",
                preserve_until=datetime.now(UTC) + timedelta(days=9),
            )
        )
    for policy in (POLICY, REWORDED):
        got = found(sessions, policy)
        assert locked not in {*got.stream.images.tolist(), *got.known.images.tolist()}
        assert len(got.stream) == len(house) - 1


def test_other_words_need_a_model_and_the_same_do_not(sessions: Sessions, house: House) -> None:
    def none(policy: Policy) -> object:
        raise ModelUnavailable("No model.")

    assert not class_margins(sessions, asked(with_threshold(0.9)), none).computed  # type: ignore[arg-type]
    with pytest.raises(ModelUnavailable):
        class_margins(sessions, asked(REWORDED), none)  # type: ignore[arg-type]


def test_a_class_that_is_new_wins_whatever_it_flags(sessions: Sessions, house: House) -> None:
    policy = REWORDED.model_copy(
        update={"classes": (REWORDED.classes[0].model_copy(update={"name": "dagger"}),)}
    )
    new = EditedClass(policy, "dagger", POLICY, "dagger")
    got = class_margins(sessions, new, WordSeeker(encoder_of(sessions)).words)
    done = effects(got, Thresholds(margin_of(policy)), Traffic(100.0, "dagger", ()))
    assert got.stream.active is None and done.flagged > 0
    assert len(done.crossing_up) == min(CROSSING, done.flagged)


def test_reviews_are_flags_second_looks_and_what_is_drawn() -> None:
    above = np.array([-3.0, -0.5, 0.2, 4.0])
    rules = (
        rule(RuleKind.SECOND_LOOK, 0.5, near=1.0),
        rule(RuleKind.CLEAR_SAMPLE, 0.1),
        rule(RuleKind.CLEAR_SAMPLE, 0.2, near=1.0),
    )
    looks = expected_looks(rules, "knife", above)
    assert looks.tolist() == pytest.approx([0.1, 1 - 0.9 * 0.8, 1.5, 1.0])
    certain = expected_looks(rules, "knife", above, certain=3.0)
    assert certain.tolist()[3] == pytest.approx(CERTAIN_SHARE)
    drawn = (*rules, rule(RuleKind.CERTAIN_SAMPLE, 0.3))
    assert expected_looks(drawn, "knife", above, certain=3.0).tolist()[3] == pytest.approx(0.3)
    other = replace(rules[0], class_name="gun")
    assert expected_looks([other], "knife", above).tolist() == [0, 0, 1, 1]


def test_margins_are_made_once_for_all_thresholds_and_again_for_other_words() -> None:
    keys = {key_of(asked(p)) for p in (POLICY, with_threshold(0.2), with_threshold(0.9))}
    assert len(keys) == 1 and key_of(asked(REWORDED)) not in keys
    store, made = MarginStore[int](most=2), []

    def make() -> int:
        made.append(1)
        return len(made)

    assert [store.get(k, make) for k in "aabab"] == [1, 1, 2, 1, 2]
    assert [store.get(k, make) for k in "cba"] == [3, 2, 4]  # a was the least lately asked for
    stale = MarginStore[int](fresh=-1.0)
    assert [stale.get("a", make), stale.get("a", make)] == [5, 6]


def test_what_failed_is_tried_again() -> None:
    store = MarginStore[float]()
    with pytest.raises(ZeroDivisionError):
        store.get("a", lambda: 1 / 0)
    assert store.get("a", lambda: math.pi) == math.pi
