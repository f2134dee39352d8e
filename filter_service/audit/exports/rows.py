"""Reads the rows of an export chunk by chunk, in the order of items and in constant memory.

Each chunk is a short transaction of its own, so an export of hours holds nothing up. A row says
how its item stood when its chunk was read; items that are submitted after the export began are not
in it. Where more must be true of all rows at once, export a period that is over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, case, cast, exists, func, null, select, true
from sqlalchemy.orm import Session

from filter_service.audit.exports.export_columns import COLUMNS, Row
from filter_service.audit.exports.export_filter import DECISIONS, ExportFilter
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Batch,
    Item,
    ListEntry,
    PolicyClass,
    Report,
    Restriction,
    Review,
    ReviewOutcome,
    StoredEncoder,
    StoredImage,
    StoredPolicy,
    StoredStatement,
)

CHUNK = 2_000  # items looked at in one transaction

_NAMES = [c.name for c in COLUMNS]
_POLICY, _ENCODER = _NAMES.index("policy"), _NAMES.index("encoder")
_CLASS, _THRESHOLD = _NAMES.index("class"), _NAMES.index("threshold")


@dataclass
class _Names:
    """What never changes of policies, classes and encoders: looked up once for each."""

    policies: dict[int, tuple[str, str]] = field(default_factory=dict)  # name, digest
    classes: dict[int, tuple[float, str]] = field(default_factory=dict)  # threshold, name
    encoders: dict[int, tuple[str, str]] = field(default_factory=dict)  # name, fingerprint

    def put_into(self, session: Session, rows: Sequence[list[Any]]) -> None:
        """Names in place of the ids that the query gave."""
        self._learn(session, {r[_POLICY] for r in rows}, {r[_ENCODER] for r in rows} - {None})
        for row in rows:
            row[_THRESHOLD], row[_CLASS] = self.classes.get(row[_CLASS], (None, None))
            row[_POLICY : _POLICY + 2] = self.policies[row[_POLICY]]
            row[_ENCODER : _ENCODER + 2] = self.encoders.get(row[_ENCODER], (None, None))

    def _learn(self, session: Session, policies: set[int], encoders: set[int]) -> None:
        if unknown := policies - self.policies.keys():
            for policy in session.scalars(select(StoredPolicy).where(StoredPolicy.id.in_(unknown))):
                self.policies[policy.id] = (policy.name, policy.digest)
                thresholds = {c["name"]: c["threshold"] for c in policy.document["classes"]}
                classes = select(PolicyClass).where(PolicyClass.policy_id == policy.id)
                for c in session.scalars(classes):
                    self.classes[c.id] = (thresholds[c.name], c.name)
        if new := encoders - self.encoders.keys():
            known = select(StoredEncoder).where(StoredEncoder.id.in_(new))
            self.encoders |= {e.id: (e.name, e.fingerprint) for e in session.scalars(known)}


class Rows:
    """The rows that somebody wants and may see."""

    def __init__(
        self, sessions: Sessions, wanted: ExportFilter, seen: ColumnElement[bool] | None = None
    ) -> None:
        """`seen` is a condition on items; raises for a filter that names what never was."""
        self._sessions = sessions
        self._names = _Names()
        with sessions.begin() as session:
            self._conditions = [*wanted.conditions(session), true() if seen is None else seen]
            self._walked = wanted.walked()
            ends = select(func.min(Item.id), func.max(Item.id)).where(*self._walked)
            first, last = session.execute(ends).one()
        self.reached: int = (first or 1) - 1  # the last item that was looked at
        self.last: int = last or 0

    def chunks(self) -> Iterator[list[Row]]:
        """Lists of rows; empty ones, too, so that whoever listens sees the export move."""
        while self.reached < self.last:
            with self._sessions.begin() as session:
                rows = self._after(session)
            yield rows

    def _after(self, session: Session) -> list[Row]:
        """The rows of the next CHUNK items that the indexes find, however few are wanted."""
        next_ids = (
            select(Item.id)
            .where(Item.id > self.reached, Item.id <= self.last, *self._walked)
            .order_by(Item.id)
            .limit(CHUNK)
            .subquery()
        )
        upto = session.scalar(select(func.max(next_ids.c.id)))
        if upto is None:
            self.reached = self.last
            return []
        query = _ROWS.where(Item.id > self.reached, Item.id <= upto, *self._conditions)
        rows = [list(row) for row in session.execute(query.order_by(Item.id))]
        self.reached = upto
        self._names.put_into(session, rows)
        return [tuple(row) for row in rows]


def _newest(table: type[Appeal | StoredStatement], *columns: Any, by: Any) -> Any:  # noqa: ANN401
    """The newest row of an item, beside it."""
    of_item = select(*columns).where(table.item_id == Item.id).order_by(by.desc()).limit(1)
    return of_item.correlate(Item).lateral()


def _stages() -> Any:  # noqa: ANN401
    """In which stages people decided."""
    decided = (
        select(Review.stage, func.min(Review.id).label("first"))
        .where(
            Review.item_id == Item.id,
            Review.undone_at.is_(None),
            Review.decision.in_(DECISIONS),
        )
        .group_by(Review.stage)
        .correlate(Item)
        .subquery()
    )
    together = func.string_agg(decided.c.stage, "+").aggregate_order_by(decided.c.first)
    return select(together).scalar_subquery()


def _reports() -> Any:  # noqa: ANN401
    """How often an item was reported, and by whom."""
    who = func.string_agg(func.distinct(Report.source), "+")
    counted = select(func.count(Report.id).label("n"), who.label("who"))
    return counted.where(Report.item_id == Item.id).correlate(Item).lateral()


def _rows() -> Select[*tuple[Any, ...]]:
    """Every column; ids stand where `_Names` puts names."""
    outcome = ReviewOutcome
    appeal = _newest(Appeal, Appeal.opened_at, Appeal.closed_at, Appeal.upheld, by=Appeal.opened_at)
    statement = _newest(StoredStatement, StoredStatement.puid, by=StoredStatement.issued_at)
    reports = _reports()
    verdict = cast(Item.verdict, Text)
    other = case((verdict == "clear", "flagged"), (verdict == "flagged", "clear"))
    columns: tuple[Any, ...] = (
        *(Item.id, cast(Item.batch_id, Text), Batch.label, Item.source),
        *(StoredImage.digest, StoredImage.bytes, Batch.submitted_at, Item.content_date),
        *(Batch.policy_id, null(), Item.encoder_id, null()),
        *(verdict, Item.reason, Item.class_id, Item.margin, Item.probability, null()),
        *(Item.judged_at, Item.list_entry_id),
        case((ListEntry.kind == "block", "confirmed"), (ListEntry.kind == "allow", "overturned")),
        outcome.sampled,
        case((outcome.review_id.is_not(None), outcome.decision)),
        *(Review.decided_at, _stages(), Review.seconds),
        case((outcome.decision == "overturned", other), else_=verdict),
        *(appeal.c.opened_at, appeal.c.closed_at, appeal.c.upheld),
        *(cast(statement.c.puid, Text), Item.supersedes, StoredImage.bytes_gone_at),
        case((StoredImage.id.is_not(None), StoredImage.digest.is_(None))),
        Item.fully_automated,
        *(reports.c.n, reports.c.who),
    )
    named = (e.label(c.name) for c, e in zip(COLUMNS, columns, strict=True))
    return (
        select(*named)
        .select_from(Item)
        .join(Batch, Batch.id == Item.batch_id)
        .outerjoin(StoredImage, StoredImage.id == Item.image_id)
        .outerjoin(ListEntry, ListEntry.id == Item.list_entry_id)
        .outerjoin(outcome, outcome.item_id == Item.id)
        .outerjoin(Review, Review.id == outcome.review_id)
        .outerjoin(appeal, true())
        .outerjoin(statement, true())
        .join(reports, true())
        .where(~exists().where(Restriction.image_id == Item.image_id))
    )


_ROWS = _rows()
