"""Labels: what decisions say about images, how likely it was to be known, and who may read it."""

import math
import uuid
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import Engine, func, insert, select, text, update

from filter_service import retention
from filter_service.accounts import Role
from filter_service.calibration import labels
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.calibration.standing_estimates import refresh, standing_estimates
from filter_service.db import schema
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import load_policy, store_policy
from filter_service.db.session import Sessions, connect
from filter_service.db.tables import (
    Batch,
    Item,
    Person,
    Restriction,
    ReviewOutcome,
    StoredImage,
    StoredLabel,
    StoredScore,
)
from filter_service.errors import InvalidRequest, NotAllowed
from filter_service.policy import Calibration, Policy, Preservation
from filter_service.reviews import restricted
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.case_claims import claim
from filter_service.reviews.case_opening import ReviewChance
from filter_service.reviews.decisions import decide
from filter_service.reviews.missing_cases import open_missing
from filter_service.reviews.review_rules import RuleKind, add_rule
from filter_service.reviews.settlement import Decision, settle
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tests.support.review_cases import LEASE, POLICY, Wanted, cases_of, colleague, one_case

CONFIRMED, OVERTURNED = Decision.CONFIRMED, Decision.OVERTURNED
DRAWN = ReviewChance(0.25, {"gun": 0.2, "knife": 0.05})


@pytest.fixture
def ada(sessions: Sessions) -> Person:
    return colleague(sessions, "ada")


@pytest.fixture
def ben(sessions: Sessions) -> Person:
    return colleague(sessions, "ben")


def say(sessions: Sessions, person: Person, item: int, decision: Decision) -> None:
    claim(sessions, person, item, LEASE)
    decide(sessions, person, item, decision, undo_seconds=0)
    settle(sessions)


def opened(sessions: Sessions, sampled: bool, chance: ReviewChance) -> int:
    """An item that waits, as a worker lets it wait."""
    return cases_of(sessions, [Wanted("gun", -1.0 if sampled else 1.0, sampled, chance)])[0]


def known(sessions: Sessions, item: int) -> dict[str, tuple[bool, str, float | None]]:
    """Labels of an item's image, by class."""
    with sessions.begin() as session:
        image = session.scalar(select(Item.image_id).where(Item.id == item))
        rows = session.scalars(select(StoredLabel).where(StoredLabel.image_id == image))
        return {row.class_name: (row.truth, row.source, row.chance) for row in rows}


@pytest.mark.parametrize(("decision", "truth"), [(CONFIRMED, True), (OVERTURNED, False)])
def test_a_reviewed_flag_labels_its_class(
    sessions: Sessions, ada: Person, decision: Decision, truth: bool
) -> None:
    item = opened(sessions, False, ReviewChance.of_flag("gun"))
    assert known(sessions, item) == {}
    say(sessions, ada, item, decision)
    assert known(sessions, item) == {"gun": (truth, "flag", 1.0)}


def test_a_clear_item_that_was_drawn_labels_the_classes_it_was_drawn_for(
    sessions: Sessions, ada: Person
) -> None:
    clear, missed = (opened(sessions, True, DRAWN) for _ in range(2))
    say(sessions, ada, clear, CONFIRMED)
    say(sessions, ada, missed, OVERTURNED)
    assert known(sessions, clear) == {
        "gun": (False, "sample", 0.2),
        "knife": (False, "sample", 0.05),
    }
    assert known(sessions, missed) == {"gun": (True, "sample", 0.2)}
    with sessions.begin() as session:
        chances = session.scalars(select(ReviewOutcome.chance)).all()
    assert chances == [0.25, 0.25]


def test_a_second_look_that_disagrees_gives_no_label_yet(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = opened(sessions, False, ReviewChance.of_flag("gun"))
    add_rule(sessions, colleague(sessions, "boss", Role.ADMIN), RuleKind.SECOND_LOOK)
    for person, decision in ((ada, CONFIRMED), (ben, OVERTURNED)):
        say(sessions, person, item, decision)
        assert known(sessions, item) == {}


def test_an_appeal_turns_the_truth_but_not_how_it_came_to_be_known(
    sessions: Sessions, ada: Person, ben: Person
) -> None:
    item = opened(sessions, False, ReviewChance.of_flag("gun"))
    say(sessions, ada, item, CONFIRMED)
    open_appeal(sessions, item, "It is a toy.", "key a")
    say(sessions, ben, item, OVERTURNED)
    assert known(sessions, item) == {"gun": (False, "flag", 1.0)}


def test_what_only_an_appeal_made_known_has_no_chance(sessions: Sessions, ada: Person) -> None:
    (item,) = cases_of(sessions, [Wanted()], review=False)  # flagged, and nobody was asked
    open_appeal(sessions, item, "It is a toy.", "key a")
    say(sessions, ada, item, OVERTURNED)
    assert known(sessions, item) == {"gun": (False, "appeal", None)}


def test_flags_without_a_case_get_one_with_their_chance(sessions: Sessions, ada: Person) -> None:
    (item,) = cases_of(sessions, [Wanted()], review=False)
    open_missing(sessions)
    say(sessions, ada, item, CONFIRMED)
    assert known(sessions, item) == {"gun": (True, "flag", 1.0)}


def test_an_erased_image_has_no_labels(sessions: Sessions, storage: Storage, ada: Person) -> None:
    item, other = (opened(sessions, False, ReviewChance.of_flag("gun")) for _ in range(2))
    for each in (item, other):
        say(sessions, ada, each, CONFIRMED)
    receipt = retention.erase(sessions, storage, item, "somebody asked for it", "service")
    assert known(sessions, item) == {}
    assert len(known(sessions, other)) == 1
    assert receipt.removed["labels"] == 1


def image_of(sessions: Sessions, item: int) -> int:
    with sessions.begin() as session:
        return session.scalars(select(Item.image_id).where(Item.id == item)).one() or 0


def lock(sessions: Sessions, item: int) -> None:
    with sessions.begin() as session:
        row = session.get_one(Item, item)
        sealing = restricted.RestrictedFlag(item, row.batch_id, row.image_id or 0, "gun", 30)
        restricted.lock_away(session, [sealing], "worker 1")


def test_an_image_that_is_locked_away_loses_its_labels(sessions: Sessions, ada: Person) -> None:
    item = opened(sessions, False, ReviewChance.of_flag("gun"))
    say(sessions, ada, item, CONFIRMED)
    lock(sessions, item)
    assert known(sessions, item) == {}


SEALING = POLICY.model_copy(
    update={
        "classes": (
            POLICY.classes[0].model_copy(update={"sealed": Preservation(days=9)}),
            POLICY.classes[1],
        )
    }
)


def scored(
    sessions: Sessions, policy: Policy, count: int, encoder: str = "ab" * 32
) -> tuple[int, int, list[int]]:
    """A policy, an encoder, and images with margins 0, 1, 2, ... for its first class."""
    with sessions.begin() as session:
        policy_id = store_policy(session, policy)
        encoder_id = register_encoder(session, encoder, "simple", 4, {})
        class_id = load_policy(session, policy_id).class_ids[policy.classes[0].name]
        rows = [{"digest": f"{n:064x}", "bytes": 1} for n in range(count)]
        images = list(session.scalars(insert(StoredImage).returning(StoredImage.id), rows))
        scores = [
            {
                "encoder_id": encoder_id,
                "class_id": class_id,
                "image_id": image,
                "margin": float(number),
                "frame": 0,
                "exact": True,
            }
            for number, image in enumerate(images)
        ]
        session.execute(insert(StoredScore), scores)
    return policy_id, encoder_id, images


def test_labels_are_read_with_the_margins_of_an_encoder_newest_first(sessions: Sessions) -> None:
    policy, encoder, images = scored(sessions, POLICY, 4)
    with sessions.begin() as session:
        labels.keep(
            session,
            [
                ClassLabel(image, "gun", number > 1, LabelSource.SAMPLE, chance)
                for number, (image, chance) in enumerate(
                    zip(images, (0.5, None, 1.0, 0.25), strict=True)
                )
            ],
        )
        for number, image in enumerate(images):
            session.execute(
                update(StoredLabel)
                .where(StoredLabel.image_id == image)
                .values(at=StoredLabel.at - timedelta(hours=number))
            )
    with sessions.begin() as session:
        found = labels.of_class(session, policy, "gun", encoder)
        two = labels.of_class(session, policy, "gun", encoder, limit=2)
        other = labels.of_class(session, policy, "gun", encoder + 1)
    assert list(found.images) == images
    read = found.labelled
    assert list(read.margins) == [0, 1, 2, 3] and read.margins.dtype == np.float64
    assert list(read.truths) == [False, False, True, True] and read.truths.dtype == np.bool_
    assert np.array_equal(read.chances, [0.5, math.nan, 1.0, 0.25], equal_nan=True)
    assert list(read.drawn().margins) == [0, 2, 3]
    assert list(two.images) == images[:2]
    assert len(other) == 0


def test_margins_of_a_version_with_the_same_words_count(sessions: Sessions) -> None:
    _, encoder, images = scored(sessions, POLICY, 1)
    gun, knife = POLICY.classes
    calibrated = gun.model_copy(
        update={"threshold": 0.9, "calibration": Calibration(a=1.0, b=-4.0)}
    )
    reworded = gun.model_copy(update={"prompts": ("a toy gun",)})
    with sessions.begin() as session:
        same = store_policy(session, POLICY.model_copy(update={"classes": (calibrated, knife)}))
        other = store_policy(session, POLICY.model_copy(update={"classes": (reworded, knife)}))
        labels.keep(session, [ClassLabel(images[0], "gun", True, LabelSource.UPLOAD)])
        found = [len(labels.of_class(session, each, "gun", encoder)) for each in (same, other)]
    assert found == [1, 0]


def test_a_restricted_class_is_for_custodians_only(sessions: Sessions) -> None:
    policy, encoder, images = scored(sessions, SEALING, 1)
    with sessions.begin() as session:
        labels.keep(session, [ClassLabel(images[0], "gun", True, LabelSource.FLAG, 1.0)])
        labels.keep(session, [ClassLabel(images[0], "knife", False, LabelSource.FLAG, 1.0)])
        with pytest.raises(NotAllowed, match="restricted: only a custodian"):
            labels.of_class(session, policy, "gun", encoder)
        seen = labels.of_class(session, policy, "gun", encoder, custodian=True)
        counted = [row.class_name for row in labels.count(session)]
        with pytest.raises(InvalidRequest, match="restricted: nobody labels"):
            labels.upload(session, SEALING, {(images[0], "gun"): True}, "person ada")
    assert len(seen) == 1
    assert counted == ["knife"]


def test_a_locked_image_is_read_and_counted_nowhere(sessions: Sessions) -> None:
    policy, encoder, _ = scored(sessions, POLICY, 1)
    item = one_case(sessions)
    image = image_of(sessions, item)
    with sessions.begin() as session:
        class_id = load_policy(session, policy).class_ids["gun"]
        score = {"encoder_id": encoder, "class_id": class_id, "image_id": image, "margin": 1.0}
        session.execute(insert(StoredScore).values(**score, frame=0, exact=True))
        labels.keep(session, [ClassLabel(image, "gun", True, LabelSource.FLAG, 1.0, item)])
        assert len(labels.of_class(session, policy, "gun", encoder)) == 1
        # A legal hold keeps what was computed of it, so that the label is there, but hidden.
        sealed = Restriction(item_id=item, image_id=image, class_name="gun")
        sealed.preserve_until = session.scalar(select(text("now() + interval '1 day'")))
        session.add(sealed)
        session.flush()
        assert len(labels.of_class(session, policy, "gun", encoder)) == 0
        assert labels.count(session) == []
        with pytest.raises(InvalidRequest, match="not here any more"):
            labels.upload(session, POLICY, {(image, "gun"): True}, "person ada")


def test_a_class_that_the_policy_has_not_is_refused(sessions: Sessions) -> None:
    policy, encoder, images = scored(sessions, POLICY, 1)
    with sessions.begin() as session:
        with pytest.raises(InvalidRequest, match="no class 'bomb': it has gun, knife"):
            labels.of_class(session, policy, "bomb", encoder)
        with pytest.raises(InvalidRequest, match="no class 'bomb': it has gun, knife"):
            labels.upload(session, POLICY, {(images[0], "bomb"): True}, "person ada")


def test_an_upload_does_not_overrule_a_decision(sessions: Sessions) -> None:
    _, _, images = scored(sessions, POLICY, 4)
    decided, uploaded, _, same = images
    with sessions.begin() as session:
        labels.keep(session, [ClassLabel(decided, "gun", True, LabelSource.FLAG, 1.0)])
        labels.keep(session, [ClassLabel(same, "gun", False, LabelSource.FLAG, 1.0)])
        labels.upload(session, POLICY, {(uploaded, "gun"): True}, "person ada")
        kept = labels.upload(
            session, POLICY, {(image, "gun"): False for image in images}, "person ada"
        )
        rows = session.scalars(select(StoredLabel).order_by(StoredLabel.image_id)).all()
    assert (kept.new, kept.unchanged, kept.contradicted) == (1, 1, (decided,))
    assert [row.truth for row in rows] == [True, False, False, False]
    assert [row.source for row in rows] == ["flag", "upload", "upload", "flag"]


def test_as_many_labels_are_uploaded_as_there_are(sessions: Sessions) -> None:
    """More than a statement of one parameter for each value could hold."""
    _, _, images = scored(sessions, POLICY, 6_000)
    truths = {(image, name): image % 2 == 0 for image in images for name in ("gun", "knife")}
    for new, same in ((12_000, 0), (0, 12_000)):
        with sessions.begin() as session:
            kept = labels.upload(session, POLICY, truths, "person ada")
        assert (kept.new, kept.unchanged) == (new, same)


def test_labels_are_counted_by_class_and_source(sessions: Sessions) -> None:
    _, _, images = scored(sessions, POLICY, 3)
    with sessions.begin() as session:
        for image, truth, source, chance in zip(
            images, (True, False, False), ("flag", "flag", "appeal"), (1.0, 1.0, None), strict=True
        ):
            labels.keep(session, [ClassLabel(image, "gun", truth, LabelSource(source), chance)])
        counted = labels.count(session)
    assert [(c.source, c.present, c.absent, c.drawn) for c in counted] == [
        ("appeal", 0, 1, 0),
        ("flag", 1, 1, 2),
    ]


def test_estimates_stand_for_the_version_that_judged_last(sessions: Sessions) -> None:
    """Thirty flags, of which ten were wrong, and no clear item: precision and nothing else."""
    policy, encoder, images = scored(sessions, POLICY, 30)
    batch = uuid.uuid4()
    with sessions.begin() as session:
        assert standing_estimates(sessions) == []
        session.add(Batch(id=batch, policy_id=policy, label="", priority=0))
        session.flush()
        about = {"batch_id": batch, "source": "", "verdict": Verdict.FLAGGED}
        about |= {"judged_at": func.now(), "encoder_id": encoder}
        session.execute(insert(Item).values([{"image_id": i, **about} for i in images]))
        labels.keep(
            session,
            [
                ClassLabel(image, name, number >= 10, LabelSource.FLAG, 1.0)
                for number, image in enumerate(images)
                for name in ("gun", "unknown")
            ],
        )
    assert standing_estimates(sessions) == []
    assert refresh(sessions) == 1
    (found,) = standing_estimates(sessions)
    assert (found.policy, found.class_name, found.labels) == ("house", "gun", 30)
    assert found.estimates.precision.value == pytest.approx(20 / 30)
    assert "Only flags were reviewed" in found.estimates.recall.why_none
    assert standing_estimates(sessions, ["knife"]) == []
    with sessions.begin() as session:
        sealed = store_policy(session, SEALING)
        session.execute(update(Batch).values(policy_id=sealed))
    assert standing_estimates(sessions) == []  # restricted from now on, whatever was estimated
    refresh(sessions)
    assert standing_estimates(sessions) == []


BEFORE = """
INSERT INTO policies (digest, name, document) VALUES (decode(repeat('01', 32), 'hex'), 'a', '{}');
INSERT INTO policy_classes (policy_id, position, name) VALUES (1, 0, 'gun');
INSERT INTO people (login, name, role) VALUES ('ada', 'Ada', 'moderator');
INSERT INTO batches (id, policy_id, label, priority)
VALUES ('00000000-0000-4000-8000-000000000001', 1, '', 0);
INSERT INTO images (digest, bytes) SELECT decode(repeat(d, 32), 'hex'), 9
FROM unnest(ARRAY['0a', '0b', '0c', '0d', '0e']) d;
INSERT INTO images (digest, bytes) VALUES (NULL, 9);
INSERT INTO items (batch_id, image_id, source, verdict, judged_at)
SELECT '00000000-0000-4000-8000-000000000001', n, '', 'flagged', now() FROM generate_series(1, 6) n;
INSERT INTO reviews (item_id, stage, person_id, decision, revealed, effective_at)
SELECT n, 'first', 1, 'confirmed', false, now() FROM generate_series(1, 6) n;
INSERT INTO review_outcomes (item_id, image_id, class_name, decision, sampled, review_id) VALUES
    (1, 1, 'gun', 'confirmed', false, 1), (2, 2, 'gun', 'overturned', false, 2),
    (3, 3, 'gun', 'confirmed', true, 3), (4, 4, 'gun', 'overturned', true, 4),
    (5, 5, 'gun', 'confirmed', false, NULL), (6, 6, 'gun', 'confirmed', false, 6);
INSERT INTO review_rules (kind, margin_below, share, created_by) VALUES
    ('clear_sample', 2, 0.5, 'x'), ('second_look', 2, 0.5, 'x');
"""


def test_decisions_of_before_become_labels_and_old_rules_draw_what_they_drew(
    empty_database_url: str,
) -> None:
    schema.upgrade(empty_database_url, "0007")
    engine: Engine = connect(empty_database_url, role=None)
    with engine.begin() as connection:
        connection.execute(text(BEFORE))
    schema.upgrade(empty_database_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT image_id, truth, source, chance FROM labels"))
        found = sorted(map(tuple, rows))
        rules = connection.execute(text("SELECT kind, margin_below FROM review_rules ORDER BY id"))
        margins = dict(map(tuple, rules))
    engine.dispose()
    # The fifth a list decided, and the sixth is erased.
    assert found == [
        (1, True, "flag", None),
        (2, False, "flag", None),
        (3, False, "sample", None),
        (4, True, "sample", None),
    ]
    assert margins == {"clear_sample": None, "second_look": 2.0}
