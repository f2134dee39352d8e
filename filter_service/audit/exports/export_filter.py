"""Export filters: validated, resolved to ids, and turned into SQL conditions."""

import re
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from filter_service.db.tables import Batch, Item, PolicyClass, ReviewOutcome, StoredPolicy
from filter_service.errors import InvalidRequest, UnknownBatch, UnknownPolicy
from filter_service.verdicts import Verdict

DECISIONS = ("confirmed", "overturned")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class PeriodBasis(StrEnum):
    """Which of an item's moments a period is about."""

    SUBMITTED = "submitted"
    JUDGED = "judged"


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """The conditions of an export; None: no restriction."""

    since: datetime | None = None
    until: datetime | None = None  # before it
    by: PeriodBasis = PeriodBasis.SUBMITTED
    class_name: str | None = None  # flagged for it, or nearest to it
    policy: str | None = None  # name, or the digest of one version
    verdict: Verdict | None = None
    decision: str | None = None  # of people or of a list, as it stands
    batch: uuid.UUID | None = None

    @classmethod
    def parse(cls, **texts: str) -> Self:
        """From what a person typed, empty texts meaning nothing; raises InvalidRequest."""
        given = {name: text.strip() for name, text in texts.items() if text.strip()}
        if unknown := set(given) - set(cls.__dataclass_fields__):
            raise InvalidRequest(f"{', '.join(sorted(unknown))} narrows nothing: leave it out.")
        kinds: dict[str, Any] = {
            "since": moment,
            "until": lambda text: moment(text, end=True),
            "by": lambda text: _one_of(PeriodBasis, "time", text),
            "verdict": lambda text: _one_of(Verdict, "verdict", text),
            "batch": _batch,
        }
        return cls(**{name: kinds.get(name, str)(text) for name, text in given.items()})

    def __post_init__(self) -> None:
        if self.since and self.until and self.since >= self.until:
            raise InvalidRequest(
                f"The period ends {self.until:%Y-%m-%d %H:%M}, which is not after it begins: give "
                "an end after the beginning."
            )
        if self.decision is not None and self.decision not in DECISIONS:
            raise InvalidRequest(
                f"{self.decision!r} is no decision: give {' or '.join(DECISIONS)}."
            )

    @property
    def details(self) -> dict[str, str]:
        """For the ledger: what was narrowed, and nothing else."""
        texts = {
            k: v.isoformat() if isinstance(v, datetime) else v for k, v in asdict(self).items()
        }
        timed = self.since is not None or self.until is not None
        return {k: str(v) for k, v in texts.items() if v is not None and (k != "by" or timed)}

    def conditions(self, session: Session) -> list[ColumnElement[bool]]:
        """On items, batches and outcomes; raises for what this service has never known."""
        conditions: list[ColumnElement[bool]] = []
        at = Batch.submitted_at if self.by is PeriodBasis.SUBMITTED else Item.judged_at
        if self.since is not None:
            conditions.append(at >= self.since)
        if self.until is not None:
            conditions.append(at < self.until)
        if self.policy is not None:
            conditions.append(Batch.policy_id.in_(_policies(session, self.policy)))
        if self.class_name is not None:
            conditions.append(Item.class_id.in_(_classes(session, self.class_name)))
        if self.decision is not None:
            conditions.append(ReviewOutcome.decision == self.decision)
        if self.batch is not None and session.get(Batch, self.batch) is None:
            raise UnknownBatch(
                f"There is no batch {self.batch}: take its id as submitting gave it."
            )
        return conditions + self.walked()

    def walked(self) -> list[ColumnElement[bool]]:
        """Of the conditions those that an index in the order of items answers by itself."""
        found: list[ColumnElement[bool]] = []
        if self.batch is not None:
            found.append(Item.batch_id == self.batch)
        if self.verdict is not None:
            found.append(Item.verdict == self.verdict)
        return found


def moment(text: str, end: bool = False) -> datetime:
    """A moment or a day, in UTC unless it says otherwise; a day as an end is over when it is."""
    try:
        if (day := _day(text)) is not None:
            return datetime.combine(day + timedelta(days=end), time.min, UTC)
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{text[:80]!r} is no time: give a day such as 2026-01-31, or 2026-01-31T12:00Z."
        ) from error


def _day(text: str) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat(text)
    return None


def _one_of(kind: type[StrEnum], what: str, text: str) -> StrEnum:
    if text not in list(kind):
        raise InvalidRequest(f"{text[:80]!r} is no {what}: give {', '.join(kind)}.")
    return kind(text)


def _batch(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{text[:80]!r} is no batch's id: take it as submitting gave it."
        ) from error


def _policies(session: Session, policy: str) -> list[int]:
    named = StoredPolicy.name == policy
    exact = StoredPolicy.digest == policy if _DIGEST.fullmatch(policy) else None
    query = select(StoredPolicy.id).where(named if exact is None else or_(named, exact))
    if not (ids := list(session.scalars(query))):
        raise UnknownPolicy(
            f"No stored policy has the name or digest {policy[:80]!r}: nothing was judged by it."
        )
    return ids


def _classes(session: Session, name: str) -> list[int]:
    found = list(session.scalars(select(PolicyClass.id).where(PolicyClass.name == name)))
    if not found:
        raise InvalidRequest(f"No stored policy has a class {name[:80]!r}: look at the policies.")
    return found
