"""Fifty people at once on one queue: none in another's way, nothing decided twice or left over."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import func, select

from filter_service.accounts import Role
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import LedgerEntry, Person, Review, ReviewCase, ReviewOutcome
from filter_service.errors import Conflict, NotAllowed
from filter_service.ledger import Event
from filter_service.reviews import tallies
from filter_service.reviews.case_claims import claim_next, extend, hand_over, release
from filter_service.reviews.decisions import decide, undo
from filter_service.reviews.queue import Filter, QueuedCase, waiting
from filter_service.reviews.review_rules import RuleKind, add_rule
from filter_service.reviews.settlement import Decision, settle
from tests.support.review_cases import Wanted, cases_of, colleague

PEOPLE, SENIORS, LEAVING = 50, 5, 8
CASES = 160
LEASE = 3.0  # seconds
BEAT = 0.5  # seconds between two signs of life
UNDO = 0.8  # seconds
PATIENCE = 150.0  # seconds for everything, on a machine that is busy
PROCESSES = 4  # pools of connections, as that many web processes would have
ANY = Filter()


@dataclass
class Floor:
    """What is known about who works on what, kept apart from the database."""

    present: list[Person]  # who stay to the end
    began: float = field(default_factory=time.monotonic)
    working: dict[int, str] = field(default_factory=dict)
    alive: dict[str, float] = field(default_factory=dict)  # when each gave the last sign of life
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def took(self, item: int, login: str) -> None:
        with self.lock:
            if other := self._other(item, login):
                self.wrong.append(f"{login} got item {item} while {other} worked on it")
            self.working[item] = login

    def leaves(self, item: int, what: str) -> None:
        """Said before the database is told, so that nobody seems to take what is held."""
        with self.lock:
            self.working.pop(item, None)
            self.seen[what] += 1

    def decided_with(self, items: list[int], login: str) -> None:
        with self.lock:
            self.seen["look-alikes"] += len(items)
            taken = [i for i in items if self._other(i, login)]
        self.wrong += [f"{login} decided item {i}, which another worked on" for i in taken]

    def _other(self, item: int, login: str) -> str | None:
        """Who else works on it, and gave a sign of life in time."""
        other = self.working.get(item)
        if other in (None, login) or time.monotonic() - self.alive[other] >= LEASE:
            return None
        return other

    @property
    def late(self) -> bool:
        return time.monotonic() - self.began > PATIENCE


class Moderator:
    """Somebody who claims, looks, decides, and has a change of mind now and then."""

    def __init__(self, sessions: Sessions, person: Person, floor: Floor, seed: int) -> None:
        self.sessions, self.person, self.floor = sessions, person, floor
        self.login, self.random = person.login, random.Random(seed)

    def work(self, leaves: bool) -> None:
        while not self.floor.over.is_set() and not self.floor.late:
            began = time.monotonic()
            case = claim_next(self.sessions, self.person, ANY, LEASE)
            if case is None:
                time.sleep(self.random.uniform(0.05, 0.2))
                continue
            self.floor.alive[self.login] = began
            self.floor.took(case.item_id, self.login)
            if leaves and self.random.random() < 0.3:
                self.floor.leaves(case.item_id, "left without a word")
                return
            with self.holding(case):
                self.look(case)
                self.finish(case)

    @contextmanager
    def holding(self, case: QueuedCase) -> Iterator[None]:
        """Whoever gave signs of life in time must not hear that the case is another's."""
        try:
            yield
        except Conflict as error:
            if time.monotonic() - self.floor.alive[self.login] < LEASE:
                self.floor.wrong.append(f"{self.login} lost item {case.item_id}: {error}")
            self.floor.leaves(case.item_id, "starved")

    def look(self, case: QueuedCase) -> None:
        """Mostly a glance; now and then for longer than a lease."""
        until = time.monotonic() + self.random.choice([0.0, 0.05, 0.1, 0.2, 0.3])
        if self.random.random() < 0.05:
            until += LEASE + 1.0
            self.floor.seen["looked for longer than a lease"] += 1
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, BEAT))
            self.beat(case)

    def beat(self, case: QueuedCase) -> None:
        began = time.monotonic()
        extend(self.sessions, self.person, case.item_id, LEASE)
        self.floor.alive[self.login] = began

    def finish(self, case: QueuedCase) -> None:
        item, chance = case.item_id, self.random.random()
        if chance < 0.05:
            self.floor.leaves(item, "released")
            release(self.sessions, self.person, item)
        elif chance < 0.12:
            self.hand_over(case)
        elif chance < 0.17:
            self.decide(case, Decision.SKIPPED)
        elif chance < 0.22 and case.stage != "senior":
            self.decide(case, Decision.ESCALATED)
        else:
            self.decide(case, self.random.choice([Decision.CONFIRMED, Decision.OVERTURNED]))

    def hand_over(self, case: QueuedCase) -> None:
        to = self.random.choice(self.floor.present)
        with self.floor.lock:
            self.floor.working[case.item_id] = to.login
        try:
            hand_over(self.sessions, self.person, case.item_id, to.login)
            self.floor.seen["handed over"] += 1
        except (Conflict, NotAllowed):  # they may not take it: it stays here
            with self.floor.lock:
                self.floor.working[case.item_id] = self.login
            self.beat(case)
            self.decide(case, Decision.CONFIRMED)

    def decide(self, case: QueuedCase, decision: Decision) -> None:
        also: list[int] = []
        if self.random.random() < 0.2:
            alike = Filter(class_name=case.class_name)
            found = waiting(self.sessions, self.person, alike, limit=30).cases
            also = [c.item_id for c in self.random.sample(found, min(3, len(found)))]
        self.floor.leaves(case.item_id, decision)
        at = time.monotonic()
        decided = decide(
            self.sessions,
            self.person,
            case.item_id,
            decision,
            reason="as it happens",
            undo_seconds=UNDO,
            also=also,
        )
        self.floor.decided_with([d.item_id for d in decided[1:]], self.login)
        if self.random.random() < 0.15:
            self.think_again(case, [d.review_id for d in decided], at)

    def think_again(self, case: QueuedCase, reviews: list[int], decided_at: float) -> None:
        time.sleep(self.random.uniform(0, UNDO / 2))
        began = time.monotonic()
        try:
            undo(self.sessions, self.person, reviews, LEASE)
        except Conflict:
            if time.monotonic() - decided_at < UNDO:
                self.floor.wrong.append(f"{self.login} could not undo in time")
            return
        self.floor.alive[self.login] = began
        self.floor.took(case.item_id, self.login)
        self.floor.leaves(case.item_id, "undone")
        decide(self.sessions, self.person, case.item_id, Decision.CONFIRMED, undo_seconds=UNDO)


@pytest.fixture
def processes(database_url: str) -> Iterator[list[Sessions]]:
    """Sessions with connections of their own, as several web processes have them."""
    with ExitStack() as stack:
        engines = [connect(database_url) for _ in range(PROCESSES)]
        for engine in engines:
            stack.callback(engine.dispose)
        yield [sessions_of(engine) for engine in engines]


def chores(sessions: Sessions, floor: Floor) -> None:
    """Let decisions take effect until nothing waits any more."""
    while not floor.over.is_set() and not floor.late:
        settle(sessions)
        with sessions.begin() as session:
            if not session.scalar(select(select(ReviewCase.item_id).exists())):
                floor.over.set()
        time.sleep(0.1)


def test_fifty_moderators_share_a_queue(processes: list[Sessions]) -> None:
    sessions = processes[0]
    boss = colleague(sessions, "boss", Role.ADMIN)
    add_rule(sessions, boss, RuleKind.SECOND_LOOK, share=0.2)
    items = cases_of(
        sessions, [Wanted(("gun", "knife")[n % 2], margin=n % 7) for n in range(CASES)]
    )
    crowd = [
        colleague(sessions, f"m{n}", Role.SENIOR if n < SENIORS else Role.MODERATOR)
        for n in range(PEOPLE)
    ]
    floor = Floor(crowd[:-LEAVING])
    with ThreadPoolExecutor(PEOPLE + 2) as threads:
        work = [
            threads.submit(
                Moderator(processes[n % PROCESSES], person, floor, n).work, n >= PEOPLE - LEAVING
            )
            for n, person in enumerate(crowd)
        ]
        work += [threads.submit(chores, processes[n], floor) for n in (1, 2)]
    for done in work:
        done.result()
    print(dict(floor.seen), f"in {time.monotonic() - floor.began:.1f} s")

    assert floor.wrong == []
    assert left_over(sessions) == []
    assert decided_twice(sessions) == []
    assert final_outcomes(sessions) == {item: 1 for item in items}
    assert tallies.waiting_now(sessions).count == 0
    assert floor.seen["left without a word"] > 0
    assert floor.seen["handed over"] > 0
    assert floor.seen["look-alikes"] > 0


def left_over(sessions: Sessions) -> list[int]:
    with sessions.begin() as session:
        return list(session.scalars(select(ReviewCase.item_id)))


def decided_twice(sessions: Sessions) -> list[int]:
    """Items with two decisions of one stage, or of one person, that stand."""
    standing = select(Review.item_id).where(
        Review.undone_at.is_(None),
        Review.decision.in_(["confirmed", "overturned"]),
    )
    with sessions.begin() as session:
        return [
            item
            for key in (Review.stage, Review.person_id)
            for item in session.scalars(
                standing.group_by(Review.item_id, key).having(func.count() > 1)
            )
        ]


def final_outcomes(sessions: Sessions) -> dict[int, int]:
    """How often each item that has an outcome came to one."""
    final = (
        select(ReviewOutcome.item_id, func.count())
        .join(LedgerEntry, LedgerEntry.item_id == ReviewOutcome.item_id)
        .where(
            LedgerEntry.event == Event.SETTLED,
            LedgerEntry.details["next"].as_string() == "final",
        )
        .group_by(ReviewOutcome.item_id)
    )
    with sessions.begin() as session:
        return {item: n for item, n in session.execute(final)}
