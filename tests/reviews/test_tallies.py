"""What is counted equals what counting finds, whatever happens and whenever it is put together."""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from threading import Event

import pytest
from sqlalchemy import Engine, delete, func, insert, select, text, update

from filter_service.db.session import Sessions
from filter_service.db.tables import Item, PolicyClass, ReviewCase, Tally
from filter_service.reviews import tallies
from filter_service.reviews.tallies import DecisionTally, waiting_now
from filter_service.verdicts import Verdict
from tests.support.listed_items import Desk, desk_of

CLEAR, KNIFE, GUN = (-1.0, -5.0), (2.0, -5.0), (-5.0, 3.0)
STAGES = ("first", "second", "senior", "appeal")


@pytest.fixture
def desk(sessions: Sessions) -> Desk:
    return desk_of(sessions)


def counted(sessions: Sessions) -> dict[tuple[str, str], int]:
    """What is really there and waits."""
    query = select(ReviewCase.stage, ReviewCase.class_name, func.count())
    waiting = query.where(ReviewCase.review_id.is_(None))
    with sessions.begin() as session:
        rows = session.execute(waiting.group_by(ReviewCase.stage, ReviewCase.class_name))
        return {(stage, name): n for stage, name, n in rows}


def sums(sessions: Sessions) -> dict[tuple[str, str, date], float]:
    """Per day, except what waits."""
    day = func.date_trunc("day", Tally.at)
    query = select(Tally.kind, Tally.class_name, day, func.sum(Tally.amount))
    ended = query.where(~Tally.kind.startswith("waiting:"))
    with sessions.begin() as session:
        rows = session.execute(ended.group_by(Tally.kind, Tally.class_name, day))
        return {(kind, name, at.date()): n for kind, name, at, n in rows}


def rows(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(Tally)) or 0


def age(owner: Engine) -> None:
    """As if everything had been counted at some time in the last days."""
    with owner.begin() as connection:
        connection.execute(text("UPDATE tallies SET at = at - random() * interval '5 days'"))


def storm(sessions: Sessions, items: list[int], chance: random.Random, steps: int) -> None:
    """Cases are claimed, decided, undone, passed on and closed."""
    for _ in range(steps):
        some = chance.sample(items, chance.randint(1, 5))
        mine = update(ReviewCase).where(ReviewCase.item_id.in_(sorted(some)))
        change = chance.choice(
            [
                mine.values(review_id=chance.randint(1, 99)),
                mine.values(review_id=None, stage=chance.choice(STAGES)),
                mine.values(leased_until=func.now()),
                mine.values(stage=chance.choice(STAGES)),
                delete(ReviewCase).where(ReviewCase.item_id == some[0]),
            ]
        )
        with sessions.begin() as session:
            session.execute(change)


@contextmanager
def compacting(sessions: Sessions) -> Iterator[None]:
    """Others put the tallies together, two at once and all the time."""
    over = Event()

    def run() -> None:
        while not over.is_set():
            tallies.compact(sessions)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run) for _ in range(2)]
        try:
            yield
        finally:
            over.set()
        for future in running:
            future.result()


def test_what_waits_is_what_counting_finds(sessions: Sessions, owner: Engine, desk: Desk) -> None:
    chance = random.Random(1)
    with compacting(sessions):
        for _ in range(4):
            items = desk.judge(*[chance.choice([CLEAR, KNIFE, GUN]) for _ in range(40)])
            shares = [(items[::2], random.Random(2)), (items[1::2], random.Random(3))]
            with ThreadPoolExecutor(2) as pool:
                done = [pool.submit(storm, sessions, mine, own, 25) for mine, own in shares]
                for future in done:
                    future.result()
            age(owner)
    tallies.compact(sessions)
    found, waiting = counted(sessions), waiting_now(sessions)
    by_class, by_stage = Counter[str](), Counter[str]()
    for (stage, name), n in found.items():
        by_class[name] += n
        by_stage[stage] += n
    assert (waiting.by_class, waiting.by_stage) == (by_class, by_stage)
    assert waiting.count == sum(found.values()) > 0


def test_verdicts_are_counted_as_they_stand_in_the_items(sessions: Sessions, desk: Desk) -> None:
    chance = random.Random(4)
    for _ in range(3):
        desk.judge(*[chance.choice([CLEAR, KNIFE, GUN, None]) for _ in range(50)])
    flagged = (
        select(PolicyClass.name, func.count())
        .join(Item, Item.class_id == PolicyClass.id)
        .where(Item.verdict == Verdict.FLAGGED)
        .group_by(PolicyClass.name)
    )
    judged = select(func.count()).where(Item.verdict.in_([Verdict.FLAGGED, Verdict.CLEAR]))
    failed = select(func.count()).where(Item.verdict == Verdict.UNDETERMINED)
    with sessions.begin() as session:
        by_class, n = dict(session.execute(flagged).all()), session.scalar(judged)
        undetermined = session.scalar(failed)
    days = tallies.flagged_by_day(sessions)
    assert {d.class_name: d.flagged for d in days} == by_class
    assert {d.judged for d in days} == {n}
    assert tallies.undetermined_by_day(sessions) == {datetime.now(UTC).date(): undetermined}


def test_compaction_changes_no_sum(sessions: Sessions, owner: Engine) -> None:
    chance = random.Random(5)
    kinds = ("judged", "flagged", "seconds")
    many = [
        {"kind": chance.choice(kinds), "class_name": chance.choice("abc"), "amount": amount / 1024}
        for amount in (chance.randint(-5_000_000, 5_000_000) for _ in range(3_000))
    ]
    with sessions.begin() as session:
        session.execute(insert(Tally), many)
    age(owner)
    before, number = sums(sessions), rows(sessions)
    assert tallies.compact(sessions) == number - rows(sessions) > 2_000
    assert sums(sessions) == before
    assert tallies.compact(sessions) == 0


def test_sums_stay_while_two_put_them_together(sessions: Sessions, owner: Engine) -> None:
    with compacting(sessions):
        for _ in range(30):
            with sessions.begin() as session:
                amounts = {(kind, "a"): 0.1 for kind in ("judged", "seconds")}
                for _ in range(5):
                    tallies.count_all(session, amounts)
            age(owner)
    total = select(Tally.kind, func.sum(Tally.amount)).group_by(Tally.kind)
    with sessions.begin() as session:
        found = dict(session.execute(total).all())
    tenth = round(0.1 * 1024) / 1024
    assert found == {"judged": 150 * tenth, "seconds": 150 * tenth}


def test_only_the_classes_asked_for_are_counted(sessions: Sessions, desk: Desk) -> None:
    desk.judge(KNIFE, GUN, GUN)
    assert waiting_now(sessions, ["gun"]).by_class == {"gun": 2}
    assert waiting_now(sessions, []).count == 0
    assert waiting_now(sessions, []).oldest is None


def test_the_oldest_is_the_one_that_waits_longest(sessions: Sessions, desk: Desk) -> None:
    first, second, gun = desk.judge(KNIFE, KNIFE, GUN)
    long_ago = datetime.now(UTC) - timedelta(days=3)
    for days, item in ((0, first), (1, second), (2, gun)):
        with sessions.begin() as session:
            at = long_ago + timedelta(days=days)
            change = update(ReviewCase).where(ReviewCase.item_id == item)
            session.execute(change.values(opened_at=at, review_id=1 if item == first else None))
    assert waiting_now(sessions).oldest == long_ago + timedelta(days=1)
    assert waiting_now(sessions, ["gun"]).oldest == long_ago + timedelta(days=2)


def test_decisions_are_summed_by_class(sessions: Sessions) -> None:
    with sessions.begin() as session:
        for kind, amount in (("confirmed", 6), ("overturned", 2), ("sampled:overturned", 1)):
            tallies.count(session, kind, "knife", amount)
        for seconds in (2.0, 6.0):
            tallies.count_seconds(session, "knife", seconds)
    assert tallies.overturned_by_class(sessions) == {"knife": DecisionTally(6, 2)}
    assert tallies.overturned_by_class(sessions)["knife"].share == 0.25
    assert tallies.overturned_by_class(sessions, sampled=True) == {"knife": DecisionTally(0, 1)}
    assert tallies.seconds_to_decide(sessions) == {"knife": 4.0}
    assert tallies.seconds_to_decide(sessions, ["gun"]) == {}


def test_what_is_too_long_ago_is_left_out(sessions: Sessions, owner: Engine) -> None:
    with sessions.begin() as session:
        tallies.count(session, "confirmed", "knife", 5)
    with owner.begin() as connection:
        connection.execute(text("UPDATE tallies SET at = at - interval '7 days'"))
    assert tallies.overturned_by_class(sessions, days=7) == {}
    assert tallies.overturned_by_class(sessions, days=8) == {"knife": DecisionTally(5, 0)}
