"""Counters of judged, flagged, reviewed and waiting items, stored as increments.

Nobody counts a table and no two writers wait for one row: each adds rows of its own, and `compact`
puts old ones together. What waits is written by a trigger on the cases themselves.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, text, true
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import ReviewCase, Tally

JUDGED = "judged"  # of no class: an image is judged for all of them at once
FLAGGED = "flagged"
UNDETERMINED = "undetermined"  # of no class
CONFIRMED = "confirmed"
OVERTURNED = "overturned"
SAMPLED = "sampled:"  # before either: clear items that were drawn
REPORTED = "reported:"  # before either: clear items that somebody pointed at
SECONDS = "seconds"  # from the claim to a decision
TIMED = "timed"  # decisions of which the seconds are known
WAITING = "waiting:"  # and the stage

DAYS = 30  # that a series goes back
STEP = 1024  # of a second: sums of such fractions are exact in whatever order they are added

# What is older is kept by the hour, then by the day; of what waits only the whole sum is asked.
_COMPACT = text("""
    WITH old AS (
        SELECT id, kind, class_name, amount, CASE
            WHEN kind LIKE 'waiting:%' THEN timestamptz 'epoch'
            WHEN date_trunc('hour', at) < now() - interval '2 days' THEN date_trunc('day', at)
            ELSE date_trunc('hour', at)
        END AS during
        FROM tallies WHERE at < now() - interval '2 minutes'
    ), many AS (
        SELECT unnest(array_agg(id)) AS id, kind, class_name, during
        FROM old GROUP BY kind, class_name, during HAVING count(*) > 1
    ), gone AS (
        DELETE FROM tallies USING many WHERE tallies.id = many.id
        RETURNING many.kind, many.class_name, during, tallies.amount
    ), together AS (
        INSERT INTO tallies (kind, class_name, at, amount)
        SELECT kind, class_name, during, sum(amount)
        FROM gone GROUP BY kind, class_name, during HAVING sum(amount) <> 0
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM together)
""")


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many cases wait for somebody, and since when the oldest does."""

    count: int
    by_class: dict[str, int]
    by_stage: dict[str, int]
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Day:
    """What was flagged for one class on one day (UTC), of all that was judged."""

    day: date
    class_name: str
    flagged: int
    judged: int

    @property
    def share(self) -> float:
        return self.flagged / self.judged if self.judged else 0.0


@dataclass(frozen=True, slots=True)
class DecisionTally:
    """How the decisions about one class fell."""

    confirmed: int
    overturned: int

    @property
    def share(self) -> float:
        decided = self.confirmed + self.overturned
        return self.overturned / decided if decided else 0.0


def count(session: Session, kind: str, class_name: str = "", amount: float = 1) -> None:
    """Add to a tally in the caller's transaction; a negative amount takes back."""
    count_all(session, {(kind, class_name): amount})


def count_all(session: Session, amounts: Mapping[tuple[str, str], float]) -> None:
    """Add to several tallies, by kind and class, in one statement."""
    rows = [
        {"kind": kind, "class_name": class_name, "amount": round(amount * STEP) / STEP}
        for (kind, class_name), amount in amounts.items()
        if amount
    ]
    if rows:
        session.execute(insert(Tally), rows)


def count_seconds(session: Session, class_name: str, seconds: float) -> None:
    """Add the time that one decision took."""
    count_all(session, {(SECONDS, class_name): seconds, (TIMED, class_name): 1})


def compact(sessions: Sessions) -> int:
    """Put old rows together, no sum ever changing; how many rows fewer there are.

    Safe to run at any time and twice at once: whoever comes second finds nothing to do.
    """
    with sessions.begin() as session:
        alone = func.pg_try_advisory_xact_lock(func.hashtext("filter_service tallies"))
        return int(session.scalar(_COMPACT) or 0) if session.scalar(select(alone)) else 0


def totals(session: Session, kinds: Collection[str]) -> list[tuple[str, str, float]]:
    """What was counted of some kinds since the beginning: kind, class, amount."""
    sums = (
        select(Tally.kind, Tally.class_name, func.sum(Tally.amount))
        .where(Tally.kind.in_(kinds))
        .group_by(Tally.kind, Tally.class_name)
    )
    return [(kind, class_name, amount) for kind, class_name, amount in session.execute(sums)]


def waiting_now(sessions: Sessions, classes: Collection[str] | None = None) -> Waiting:
    """How many cases of these classes wait, None meaning all; nothing is counted for it."""
    stage = func.split_part(Tally.kind, ":", 2)
    sums = (
        select(stage, Tally.class_name, func.sum(Tally.amount))
        .where(Tally.kind >= WAITING, Tally.kind < "waiting;", _of(Tally.class_name, classes))
        .group_by(stage, Tally.class_name)
    )
    oldest = (
        select(ReviewCase.opened_at)
        .where(ReviewCase.review_id.is_(None), _of(ReviewCase.class_name, classes))
        .order_by(ReviewCase.opened_at)
        .limit(1)
    )
    with sessions.begin() as session:
        rows = session.execute(sums).all()
        since = session.scalar(oldest)
    by_class, by_stage = _sums((c, n) for _, c, n in rows), _sums((s, n) for s, _, n in rows)
    return Waiting(sum(by_stage.values()), by_class, by_stage, since)


def flagged_by_day(
    sessions: Sessions, classes: Collection[str] | None = None, days: int = DAYS
) -> list[Day]:
    """Per day and class what was flagged, oldest first; days on which nothing was are left out."""
    found = _by_day(sessions, (JUDGED, FLAGGED), days)
    judged = {day: n for (kind, day, _), n in found.items() if kind == JUDGED}
    return [
        Day(day, class_name, round(n), round(judged.get(day, 0)))
        for (kind, day, class_name), n in sorted(found.items(), key=lambda pair: pair[0][1:])
        if kind == FLAGGED and (classes is None or class_name in classes)
    ]


def undetermined_by_day(sessions: Sessions, days: int = DAYS) -> dict[date, int]:
    """How many items became undetermined on each day, oldest first."""
    return _days(_by_day(sessions, (UNDETERMINED,), days))


def judged_by_day(sessions: Sessions, days: int = DAYS) -> dict[date, int]:
    """How many items were judged on each day, oldest first."""
    return _days(_by_day(sessions, (JUDGED,), days))


def overturned_by_class(
    sessions: Sessions,
    classes: Collection[str] | None = None,
    days: int = DAYS,
    sampled: bool = False,
) -> dict[str, DecisionTally]:
    """How people decided, by class; what lists decided is not in it.

    Of clear items that were drawn (`sampled`), those overturned are the ones that were missed.
    """
    prefix = SAMPLED if sampled else ""
    confirmed, overturned = prefix + CONFIRMED, prefix + OVERTURNED
    by_class = _by_class(sessions, (confirmed, overturned), classes, days)
    names = sorted({name for _, name in by_class})
    return {
        name: DecisionTally(
            # A decision changed on appeal is taken back on a later day than it was counted.
            confirmed=max(0, round(by_class.get((confirmed, name), 0))),
            overturned=max(0, round(by_class.get((overturned, name), 0))),
        )
        for name in names
    }


def seconds_to_decide(
    sessions: Sessions, classes: Collection[str] | None = None, days: int = DAYS
) -> dict[str, float]:
    """Mean time from the claim to the decision, by class."""
    found = _by_class(sessions, (SECONDS, TIMED), classes, days)
    names = sorted(name for kind, name in found if kind == TIMED)
    return {name: found.get((SECONDS, name), 0.0) / found[TIMED, name] for name in names}


def _of(
    column: ColumnElement[str] | Any,  # noqa: ANN401  (a mapped attribute is one, too)
    classes: Collection[str] | None,
) -> ColumnElement[bool]:
    return true() if classes is None else column.in_(sorted(classes))


def _by_day(
    sessions: Sessions, kinds: Collection[str], days: int
) -> dict[tuple[str, date, str], float]:
    day = func.date_trunc("day", Tally.at)
    rows = _since(sessions, kinds, days, day, Tally.class_name)
    return {(kind, at.date(), class_name): n for kind, at, class_name, n in rows}


def _days(found: dict[tuple[str, date, str], float]) -> dict[date, int]:
    return {day: round(n) for (_, day, _), n in sorted(found.items())}


def _by_class(
    sessions: Sessions, kinds: Collection[str], classes: Collection[str] | None, days: int
) -> dict[tuple[str, str], float]:
    rows = _since(sessions, kinds, days, Tally.class_name)
    return {
        (kind, class_name): n
        for kind, class_name, n in rows
        if classes is None or class_name in classes
    }


def _since(
    sessions: Sessions,
    kinds: Collection[str],
    days: int,
    *keys: Any,  # noqa: ANN401  (columns and expressions)
) -> list[Any]:
    """Sums over the last days, today included, by kind and the keys."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with sessions.begin() as session:
        return list(
            session.execute(
                select(Tally.kind, *keys, func.sum(Tally.amount))
                .where(Tally.kind.in_(kinds), Tally.at >= today - timedelta(days=days - 1))
                .group_by(Tally.kind, *keys)
            )
        )


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, int]:
    found: dict[str, float] = defaultdict(float)
    for key, n in pairs:
        found[key] += n
    return {key: round(n) for key, n in sorted(found.items()) if round(n)}
