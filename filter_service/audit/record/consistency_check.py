"""One comparison of a table with the ledger, and what it takes from an entry."""

from dataclasses import dataclass
from typing import Any

from filter_service.audit.record.event_descriptions import RecordChapter
from filter_service.db.tables import LedgerEntry


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of a table with the ledger."""

    chapter: RecordChapter
    what: str
    table: object  # what the table says, and
    ledger: object  # what the entry says
    entries: tuple[int, ...] = ()

    @property
    def holds(self) -> bool:
        return self.table == self.ledger


def details_of(entry: LedgerEntry | None) -> dict[str, Any] | None:
    return None if entry is None else entry.details


def entry_ids(*entries: LedgerEntry | None) -> tuple[int, ...]:
    return tuple(e.id for e in entries if e is not None)
