"""Look-alikes wait with an item, precedents were decided before it; both come nearest first."""

from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import func, insert, select, text, update

from filter_service.db.embeddings import index_grown
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, Person, Review, ReviewCase, ReviewOutcome
from filter_service.db.vectors import StoredMemory
from filter_service.errors import UnknownItem
from filter_service.reviews.similar_images import lookalikes, precedents
from filter_service.verdicts import Verdict
from tests.support.listed_items import DIM, Desk, bits, desk_of, person_of, turned
from tests.support.simple_classifier import POLICY

KNIFE, GUN, CLEAR = (2.0, -5.0), (-5.0, 3.0), (-1.0, -5.0)
FAR = 18.3  # degrees; 18.2 is a cosine of 0.95


@pytest.fixture
def desk(sessions: Sessions) -> Desk:
    return desk_of(sessions)


@pytest.fixture
def person(sessions: Sessions) -> Person:
    return person_of(sessions, "kim", "moderator")


def found(sessions: Sessions, person: Person, item: int, limit: int = 60) -> list[int]:
    return [x.item_id for x in lookalikes(sessions, person, item, limit)]


def change(sessions: Sessions, item: int, **values: object) -> None:
    with sessions.begin() as session:
        session.execute(update(ReviewCase).where(ReviewCase.item_id == item).values(**values))


def decided(
    sessions: Sessions, person: Person, item: int, decision: str, *, name: str = "knife"
) -> None:
    """As if this person's decision had taken effect."""
    with sessions.begin() as session:
        image, sampled = session.execute(
            select(Item.image_id, Item.verdict == Verdict.CLEAR).where(Item.id == item)
        ).one()
        review = session.scalar(
            insert(Review)
            .values(
                item_id=item,
                stage="first",
                person_id=person.id,
                decision=decision,
                revealed=False,
                effective_at=func.now(),
            )
            .returning(Review.id)
        )
        session.execute(
            insert(ReviewOutcome).values(
                item_id=item,
                image_id=image,
                class_name=name,
                decision=decision,
                sampled=sampled,
                review_id=review,
            )
        )
        session.execute(text("DELETE FROM review_cases WHERE item_id = :i"), {"i": item})


def test_near_images_come_nearest_first(sessions: Sessions, desk: Desk, person: Person) -> None:
    one, far, near, same = desk.judge(*[KNIFE] * 4, vectors=turned([0, 18, 5, 0]))
    assert found(sessions, person, one) == [same, near, far]
    looks = lookalikes(sessions, person, one)
    assert [x.degrees for x in looks] == pytest.approx([0, 5, 18], abs=0.1)


def test_what_is_not_near_is_no_lookalike(sessions: Sessions, desk: Desk, person: Person) -> None:
    one, _ = desk.judge(KNIFE, KNIFE, vectors=turned([0, FAR]))
    assert found(sessions, person, one) == []


def test_a_copy_by_its_hash_is_a_lookalike_from_further_away(
    sessions: Sessions, desk: Desk, person: Person
) -> None:
    one, copy, _ = desk.judge(
        *[KNIFE] * 3, vectors=turned([0, 40, 40]), hashes=[bits(1), bits(1, 31), bits(1, 32)]
    )
    assert [(x.item_id, x.pdq_bits) for x in lookalikes(sessions, person, one)] == [(copy, 31)]


def test_only_what_can_be_decided_together_is_found(
    sessions: Sessions, desk: Desk, person: Person
) -> None:
    z = turned([0] * 7)
    one, mine, held, senior, drawn, _, _ = desk.judge(*[KNIFE] * 5, GUN, CLEAR, vectors=z)
    later = func.now() + timedelta(minutes=1)
    other = person_of(sessions, "lee")
    change(sessions, mine, holder=person.id, leased_until=later)
    change(sessions, held, holder=other.id, leased_until=later)
    change(sessions, senior, stage="senior")
    change(sessions, drawn, sampled=True)
    assert found(sessions, person, one) == [mine]


def test_classes_that_a_person_may_not_see_are_not_found(
    sessions: Sessions, desk: Desk, person: Person
) -> None:
    one, _ = desk.judge(KNIFE, KNIFE, vectors=turned([0, 0]))
    person.classes = ["gun"]
    assert found(sessions, person, one) == []


def test_an_item_that_was_never_encoded_has_none(
    sessions: Sessions, desk: Desk, person: Person
) -> None:
    broken, _ = desk.judge(None, KNIFE)
    assert found(sessions, person, broken) == []
    assert precedents(sessions, broken, "knife") == []
    with pytest.raises(UnknownItem):
        lookalikes(sessions, person, 999)


def test_precedents_are_what_people_decided(sessions: Sessions, desk: Desk, person: Person) -> None:
    one, near, far, other, waits = desk.judge(
        KNIFE, KNIFE, KNIFE, GUN, KNIFE, vectors=turned([0, 10, 50, 5, 1])
    )
    decided(sessions, person, far, "confirmed")
    decided(sessions, person, near, "overturned")
    decided(sessions, person, other, "confirmed", name="gun")
    answers = [(p.item_id, p.decision) for p in precedents(sessions, one, "knife")]
    assert answers == [(near, "overturned"), (far, "confirmed")]
    assert waits not in [p.item_id for p in precedents(sessions, one, "gun")]


def test_an_image_is_one_precedent_by_its_last_decision(
    sessions: Sessions, desk: Desk, person: Person
) -> None:
    names = ["ab" * 32, "cd" * 32, "cd" * 32]
    one, first, second = desk.judge(*[KNIFE] * 3, vectors=turned([0, 10, 10]), digests=names)
    decided(sessions, person, first, "confirmed")
    decided(sessions, person, second, "overturned")
    assert [p.item_id for p in precedents(sessions, one, "knife")] == [second]


def test_distant_precedents_are_found_where_the_walk_ends(
    sessions: Sessions, desk: Desk, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filter_service.reviews.similar_images.WALKED", 5)
    z = np.concatenate([turned([0, 80]), turned([1] * 30)])
    one, far, *_ = desk.judge(*[KNIFE] * 32, vectors=z)
    with sessions.begin() as session:
        assert index_grown(session, at_least=30) == 1
    decided(sessions, person, far, "confirmed")
    assert [p.item_id for p in precedents(sessions, one, "knife")] == [far]


@pytest.mark.parametrize(
    ("margins", "decision", "said"),
    [
        (KNIFE, "confirmed", "confirmed"),
        (KNIFE, "overturned", "overturned"),
        (CLEAR, "confirmed", "rightly clear"),
        (CLEAR, "overturned", "missed"),
    ],
)
@pytest.mark.parametrize("few", [1, 1_000])
def test_neighbours_carry_what_a_moderator_said(
    sessions: Sessions,
    desk: Desk,
    person: Person,
    margins: tuple[float, float],
    decision: str,
    said: str,
    few: int,
) -> None:
    one, other = desk.judge(margins, margins, vectors=turned([10, 20]))
    decided(sessions, person, one, decision)
    decided(sessions, person, other, decision, name="gun")
    memory = StoredMemory(sessions, desk.encoder_id, DIM, scale=100.0, few=few)
    side = Verdict.FLAGGED if margins == KNIFE else Verdict.CLEAR
    near = memory.images(
        turned([0])[0], policy=POLICY, class_name="knife", side=side, beyond=0.0, limit=2
    )
    assert [n.decision for n in near] == [said, None]


def test_what_a_list_decided_is_no_precedent(
    sessions: Sessions, desk: Desk, person: Person
) -> None:
    one, listed = desk.judge(KNIFE, KNIFE, vectors=turned([0, 1]))
    decided(sessions, person, listed, "confirmed")
    with sessions.begin() as session:
        session.execute(update(ReviewOutcome).values(review_id=None))
    assert precedents(sessions, one, "knife") == []
