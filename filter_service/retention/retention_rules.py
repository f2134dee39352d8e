"""Retention rules for a class and an outcome, of which the most specific one applies."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import RetentionRule
from filter_service.errors import InvalidRequest, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.policy.strict import Name

COMPLAINTS = 183  # days: for six months a user may complain of a decision (DSA, article 20)
LONGEST = 36_500  # days
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class RetainedPart(StrEnum):
    """What is kept of an item's image."""

    BYTES = "bytes"
    EMBEDDINGS = "embeddings"  # and the perceptual hash
    EXPLANATIONS = "explanations"


class ItemOutcome(StrEnum):
    """How an item stands."""

    CLEAR = "clear"
    FLAGGED = "flagged"  # nobody has decided
    UNDETERMINED = "undetermined"
    CONFIRMED = "confirmed"  # forbidden, as somebody or a list decided; a missed one, too
    OVERTURNED = "overturned"  # flagged, but wrongly


CLASSLESS = (ItemOutcome.CLEAR, ItemOutcome.UNDETERMINED)
COMPLAINED_OF = (None, ItemOutcome.FLAGGED, ItemOutcome.CONFIRMED)


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """What a rule says: of these items, these parts are kept so many days."""

    days: int  # after the last thing that happened to the item
    parts: tuple[RetainedPart, ...]
    class_name: str | None = None  # None: every class, and what has none
    outcome: ItemOutcome | None = None  # None: any

    @property
    def warning(self) -> str | None:
        """What somebody should know before they add it."""
        if self.outcome not in COMPLAINED_OF or self.days >= COMPLAINTS:
            return None
        what = "flagged and confirmed" if self.outcome is None else self.outcome.value
        return (
            f"After {self.days} days {listed(self.parts)} of {what} items would be gone, but their "
            f"users may complain for six months ({COMPLAINTS} days; DSA, article 20)."
        )


@dataclass(frozen=True, slots=True)
class EffectiveRetentionRule(RetentionTerms):
    """A retention rule in force."""

    id: int = 0
    created_by: str = ""
    created_at: datetime = datetime.min

    @property
    def specific(self) -> tuple[bool, bool, int]:
        """The greatest wins; of two that say the same, the one that keeps longer."""
        return self.class_name is not None, self.outcome is not None, self.days


def add_rule(sessions: Sessions, terms: RetentionTerms, actor: str) -> EffectiveRetentionRule:
    """Let something be deleted from now on, in its time. Raises InvalidRequest."""
    _check(terms)
    details = asdict(terms)
    with sessions.begin() as session:
        added = insert(RetentionRule).values(**details | {"parts": list(terms.parts)})
        row = session.scalars(added.values(created_by=actor).returning(RetentionRule)).one()
        about = {"rule": row.id, **details}
        ledger.append(session, [Entry(Event.RETENTION_ADDED, actor, details=about)])
        return _rule(row)


def remove_rule(sessions: Sessions, rule_id: int, actor: str) -> None:
    """Delete nothing more under a rule. Raises UnknownEntry."""
    gone = (
        update(RetentionRule)
        .where(RetentionRule.id == rule_id, RetentionRule.removed_at.is_(None))
        .values(removed_at=func.now())
        .returning(RetentionRule.id)
    )
    with sessions.begin() as session:
        if session.scalar(gone) is None:
            raise UnknownEntry(f"There is no retention rule {rule_id} to remove: list the rules.")
        about = {"rule": rule_id}
        ledger.append(session, [Entry(Event.RETENTION_REMOVED, actor, details=about)])


def rules(sessions: Sessions) -> list[EffectiveRetentionRule]:
    """The rules that hold now, oldest first."""
    with sessions.begin() as session:
        return active_rules(session)


def active_rules(session: Session) -> list[EffectiveRetentionRule]:
    """The same in the caller's transaction."""
    rows = select(RetentionRule).where(RetentionRule.removed_at.is_(None))
    return [_rule(row) for row in session.scalars(rows.order_by(RetentionRule.id))]


def winning(
    rules: Iterable[EffectiveRetentionRule], class_name: str | None, outcome: str | None
) -> dict[RetainedPart, EffectiveRetentionRule]:
    """The rule that counts for each part of an item; a part without one is kept."""
    found: dict[RetainedPart, EffectiveRetentionRule] = {}
    for rule in sorted(rules, key=lambda r: r.specific):
        if rule.class_name in (None, class_name) and rule.outcome in (None, outcome):
            found |= dict.fromkeys(rule.parts, rule)
    return found


def listed(parts: Sequence[RetainedPart]) -> str:
    """In words."""
    *first, last = [p.value for p in RetainedPart if p in parts]
    return f"{', '.join(first)} and {last}" if first else last


def _check(terms: RetentionTerms) -> None:
    if not 0 <= terms.days <= LONGEST:
        raise InvalidRequest(f"The rule has {terms.days} days: give 0 to {LONGEST:,}.")
    if not terms.parts:
        raise InvalidRequest(
            f"The rule deletes nothing: name one or more of {', '.join(RetainedPart)}."
        )
    if terms.class_name is not None and terms.outcome in CLASSLESS:
        raise InvalidRequest(
            f"An item that is {terms.outcome} is of no class: leave {terms.class_name!r} out."
        )
    try:
        _NAME.validate_python("any" if terms.class_name is None else terms.class_name)
    except ValidationError as error:
        raise InvalidRequest(
            f"{terms.class_name!r} names no class: use lower case, digits, - and _; none is every "
            "class."
        ) from error


def _rule(row: RetentionRule) -> EffectiveRetentionRule:
    return EffectiveRetentionRule(
        days=row.days,
        parts=tuple(p for p in RetainedPart if p in row.parts),
        class_name=row.class_name,
        outcome=None if row.outcome is None else ItemOutcome(row.outcome),
        id=row.id,
        created_by=row.created_by,
        created_at=row.created_at,
    )
