"""Counts what happened in a period, in SQL, for the transparency report."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from filter_service.calibration.intervals import Stratum
from filter_service.db.tables import PolicyClass, ReviewRule
from filter_service.errors import InvalidRequest
from filter_service.reviews.review_rules import CERTAIN_SHARE, RuleKind, any_of

DAYS = 30  # of a period that nobody has chosen


@dataclass(frozen=True, slots=True)
class Period:
    """A period of time: from a moment on, and before another."""

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        if self.since >= self.until:
            raise InvalidRequest(
                f"The period ends {self.until:%Y-%m-%d %H:%M}, which is not after it begins: give "
                "an end after the beginning."
            )

    @classmethod
    def of(cls, since: datetime | None, until: datetime | None) -> Self:
        """Up to the end of today, and DAYS days long, unless it is said otherwise."""
        tomorrow = datetime.combine(datetime.now(UTC).date(), time.min, UTC) + timedelta(days=1)
        end = until or tomorrow
        return cls(since or end - timedelta(days=DAYS), end)

    @property
    def days(self) -> int:
        return math.ceil((self.until - self.since) / timedelta(days=1))

    @property
    def last(self) -> date:
        """The last day that is in it."""
        return (self.until - timedelta(microseconds=1)).date()


@dataclass(frozen=True, slots=True)
class Group:
    """How many items have the same judgement and the same outcome."""

    verdict: str
    class_name: str | None  # flagged for it, or drawn for review because of it
    policy_id: int
    epoch: int  # during which the same rules drew clear items
    day: date
    decided_by: str  # nobody, list or people
    decision: str | None
    sampled: bool
    superseded: bool  # another version has judged them anew since
    acted: bool  # the flag acted by itself
    drawn: bool  # for review, as the rules said, not on appeal
    count: int


@dataclass(frozen=True, slots=True)
class PeriodCounts:
    """Everything that was counted of a period."""

    submitted: int
    judged: Sequence[Group]
    decided: Mapping[str, int]  # outcomes of flags that took effect in the period, by decision
    appeals: Mapping[str, int]  # opened, upheld, reversed, appealed flags
    seconds: Mapping[str, float | None]  # medians
    waiting: int  # clear items that were drawn and nobody has looked at
    strata: Sequence[Stratum]  # clear items that some rule could have drawn; none judged anew since
    never_drawn: int  # clear items that none could
    acted: Mapping[str, Sequence[Stratum]]  # flags that acted by themselves, by class; hits: right


def count(session: Session, period: Period) -> PeriodCounts:
    """All of it as of one moment, which ends with the caller's transaction, its first statement."""
    session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    during = {"since": period.since, "until": period.until}
    rules = _sampling_rules(session, period)
    bounds = _bounds(rules, period)
    rows = session.execute(_JUDGED, {**during, "bounds": bounds})
    judged = [Group(*row) for row in rows]
    shares = _Shares(rules, bounds, _classes(session, {g.policy_id for g in judged}))
    strata, never_drawn = _strata(judged, shares)
    return PeriodCounts(
        submitted=int(session.scalar(_SUBMITTED, during) or 0),
        judged=judged,
        decided=dict(session.execute(_DECIDED, during).all()),
        appeals=session.execute(_APPEALS, during).mappings().one(),  # type: ignore[arg-type]
        seconds=session.execute(_SECONDS, during).mappings().one(),  # type: ignore[arg-type]
        waiting=int(session.scalar(_WAITING, during) or 0),
        strata=strata,
        never_drawn=never_drawn,
        acted=_acted(judged, shares),
    )


@dataclass(frozen=True, slots=True)
class _Shares:
    """How likely an item that waits for nobody was to be drawn."""

    rules: Sequence[ReviewRule]
    bounds: Sequence[datetime]
    classes: Mapping[int, set[str]]  # of each policy

    def of(self, policy_id: int, epoch: int) -> float:
        """Each rule draws by itself, whatever class of the item's policy it names."""
        return any_of(self._shares(RuleKind.CLEAR_SAMPLE, epoch, self.classes[policy_id]))

    def of_acted(self, class_name: str, epoch: int) -> float:
        """Of flags that act by themselves for a class."""
        shares = self._shares(RuleKind.CERTAIN_SAMPLE, epoch, {class_name})
        return any_of(shares or [CERTAIN_SHARE])

    def _shares(self, kind: RuleKind, epoch: int, classes: Collection[str]) -> list[float]:
        start = self.bounds[epoch - 1]
        return [
            rule.share
            for rule in self.rules
            if rule.kind == kind
            and rule.created_at <= start
            and (rule.removed_at is None or rule.removed_at > start)
            and (rule.class_name is None or rule.class_name in classes)
        ]


def _sampling_rules(session: Session, period: Period) -> list[ReviewRule]:
    """Those that look at no margin: what others alone have drawn is left out of the figures."""
    query = select(ReviewRule).where(
        ReviewRule.kind.in_([RuleKind.CLEAR_SAMPLE, RuleKind.CERTAIN_SAMPLE]),
        ReviewRule.margin_below.is_(None),
        ReviewRule.created_at < period.until,
        ReviewRule.removed_at.is_(None) | (ReviewRule.removed_at > period.since),
    )
    return list(session.scalars(query.order_by(ReviewRule.id)))


def _bounds(rules: Sequence[ReviewRule], period: Period) -> list[datetime]:
    """Where the rules changed; an epoch begins with each."""
    moments = {at for rule in rules for at in (rule.created_at, rule.removed_at) if at is not None}
    return sorted({period.since} | {at for at in moments if period.since < at < period.until})


def _classes(session: Session, policies: set[int]) -> dict[int, set[str]]:
    found: defaultdict[int, set[str]] = defaultdict(set)
    query = select(PolicyClass.policy_id, PolicyClass.name)
    for policy, name in session.execute(query.where(PolicyClass.policy_id.in_(policies))):
        found[policy].add(name)
    return found


def _strata(judged: Sequence[Group], shares: _Shares) -> tuple[list[Stratum], int]:
    """Clear items by the share of them that was drawn; -> those, and how many never could be."""
    found: defaultdict[float, list[Group]] = defaultdict(list)
    for group in judged:
        if group.verdict == "clear" and not group.superseded:
            found[round(shares.of(group.policy_id, group.epoch), 12)].append(group)
    never = sum(g.count for g in found.pop(0.0, []))
    return [_stratum(groups) for _, groups in sorted(found.items())], never


def _stratum(groups: Sequence[Group]) -> Stratum:
    seen = [g for g in groups if g.sampled and g.decided_by == "people"]
    return Stratum(
        cases=sum(g.count for g in groups),
        seen=sum(g.count for g in seen),
        hits=sum(g.count for g in seen if g.decision == "overturned"),
    )


def _acted(judged: Sequence[Group], shares: _Shares) -> dict[str, list[Stratum]]:
    """Flags that acted by themselves, by class and by the share of them that was drawn."""
    found: defaultdict[str, defaultdict[float, list[Group]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for group in judged:
        if group.acted and group.class_name is not None and not group.superseded:
            share = round(shares.of_acted(group.class_name, group.epoch), 12)
            found[group.class_name][share].append(group)
    return {
        name: [_acted_stratum(groups) for _, groups in sorted(by_share.items())]
        for name, by_share in found.items()
    }


def _acted_stratum(groups: Sequence[Group]) -> Stratum:
    seen = [g for g in groups if g.drawn and g.decided_by == "people"]
    return Stratum(
        cases=sum(g.count for g in groups),
        seen=sum(g.count for g in seen),
        hits=sum(g.count for g in seen if g.decision == "confirmed"),
    )


def _median(of: str) -> str:
    return f"percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM {of}))"


# A batch knows how many items it has; only what still arrives has to be counted.
_SUBMITTED = text("""
    SELECT sum(coalesce(total, (SELECT count(*) FROM items WHERE batch_id = batches.id)))
    FROM batches
    WHERE submitted_at >= :since AND submitted_at < :until
      AND NOT EXISTS (SELECT FROM policy_activations a WHERE a.batch_id = batches.id)
""")
_JUDGED: Any = text("""
    WITH counted AS (
        SELECT i.verdict, i.class_id, b.policy_id, o.class_name,
            width_bucket(i.judged_at, CAST(:bounds AS timestamptz[])) AS epoch,
            CAST(i.judged_at AT TIME ZONE 'UTC' AS date) AS day,
            CASE WHEN o.item_id IS NULL THEN 'nobody'
                WHEN o.review_id IS NULL THEN 'list' ELSE 'people' END AS decided_by,
            o.decision, coalesce(o.sampled AND o.evenly, false) AS sampled,
            anew.supersedes IS NOT NULL AS superseded,
            i.fully_automated AS acted, o.chance IS NOT NULL AS drawn, count(*) AS n
        FROM (
            SELECT id, batch_id, verdict, judged_at, fully_automated,
                CASE WHEN verdict = 'flagged' THEN class_id END AS class_id
            FROM items WHERE judged_at >= :since AND judged_at < :until
        ) i
        JOIN batches b ON b.id = i.batch_id
        LEFT JOIN review_outcomes o ON o.item_id = i.id
        LEFT JOIN items anew ON anew.supersedes = i.id AND anew.verdict IN ('clear', 'flagged')
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
    )
    SELECT CAST(verdict AS varchar), coalesce(c.name, class_name), counted.policy_id, epoch, day,
        decided_by, decision, sampled, superseded, acted, drawn, n
    FROM counted LEFT JOIN policy_classes c ON c.id = class_id
""")
_DECIDED = text("""
    SELECT decision, count(*) FROM review_outcomes
    WHERE at >= :since AND at < :until AND NOT sampled AND review_id IS NOT NULL GROUP BY decision
""")
_APPEALS = text("""
    SELECT count(*) FILTER (WHERE opened_at >= :since AND opened_at < :until) AS opened,
        count(*) FILTER (WHERE upheld AND closed_at >= :since AND closed_at < :until) AS upheld,
        count(*) FILTER (WHERE NOT upheld AND closed_at >= :since AND closed_at < :until)
            AS reversed,
        (SELECT count(DISTINCT a.item_id) FROM appeals a JOIN items i ON i.id = a.item_id
            WHERE i.verdict = 'flagged' AND i.judged_at >= :since AND i.judged_at < :until)
            AS appealed
    FROM appeals WHERE coalesce(closed_at, 'infinity') >= :since AND opened_at < :until
""")
_SECONDS = text(f"""
    WITH decided AS (
        SELECT item_id, seconds, decided_at, NOT EXISTS (
            SELECT FROM reviews before WHERE before.item_id = r.item_id AND before.id < r.id
                AND before.undone_at IS NULL AND before.decision IN ('confirmed', 'overturned')
        ) AS first
        FROM reviews r
        WHERE decided_at >= :since AND decided_at < :until AND undone_at IS NULL
            AND decision IN ('confirmed', 'overturned')
    )
    SELECT
        (SELECT {_median("i.judged_at - b.submitted_at")} FROM items i
            JOIN batches b ON b.id = i.batch_id
            WHERE judged_at >= :since AND judged_at < :until AND i.supersedes IS NULL) AS verdict,
        (SELECT {_median("d.decided_at - i.judged_at")} FROM decided d
            JOIN items i ON i.id = d.item_id WHERE d.first AND i.verdict = 'flagged') AS decision,
        (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM decided) AS claim,
        (SELECT {_median("closed_at - opened_at")} FROM appeals
            WHERE closed_at >= :since AND closed_at < :until) AS appeal
""")
_WAITING = text("""
    SELECT count(*) FROM review_cases c JOIN items i ON i.id = c.item_id
    WHERE c.sampled AND c.evenly AND c.stage <> 'appeal'
        AND judged_at >= :since AND judged_at < :until
""")
