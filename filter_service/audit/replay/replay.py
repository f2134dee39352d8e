"""Replays items: recomputes, compares with the record, and notes the result in the ledger."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.audit.replay.comparison import compare
from filter_service.audit.replay.evidence_rescoring import Rescorer
from filter_service.audit.replay.item_on_record import (
    Apart,
    NotReplayed,
    OnRecord,
    on_record,
    require_same,
)
from filter_service.audit.replay.recomputation import recompute
from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.tolerances import VERSION
from filter_service.db.session import Sessions
from filter_service.encoder import Encoder
from filter_service.errors import AnotherEncoder
from filter_service.images import Limits
from filter_service.ledger import Entry, Event
from filter_service.storage import Storage
from filter_service.verdicts import Verdict

ACTOR = "service"


class ReplayResult(StrEnum):
    """How a replay ended."""

    SAME = "within tolerance"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class ReplayedItem:
    """One item beside its record."""

    item_id: int
    found: RecordComparison
    screened: bool  # its margin was a fast look's, and was compared with the encoder's band

    @property
    def result(self) -> ReplayResult:
        return ReplayResult.DIFFERS if self.found.differences else ReplayResult.SAME


@dataclass(frozen=True)
class Replay:
    """Replays items with an encoder and the stored bytes."""

    sessions: Sessions
    storage: Storage
    encoder: Encoder
    limits: Limits

    def one(self, item_id: int) -> ReplayedItem | NotReplayed:
        """Raises UnknownItem, and AnotherEncoder where the record names one."""
        with self.sessions.begin() as session:
            record = on_record(session, item_id)
        if isinstance(record, NotReplayed):
            return record
        require_same(item_id, record.encoder, record.encoder_named, record.decoder, self.encoder)
        done = self._replayed(record)
        with self.sessions.begin() as session:
            _note(session, record, done)
        return done

    def many(self, items: Iterable[int]) -> Iterator[ReplayedItem | NotReplayed]:
        """One after the other; those of another encoder are counted apart."""
        for item_id in items:
            try:
                yield self.one(item_id)
            except AnotherEncoder as error:
                yield NotReplayed(item_id, Apart.ANOTHER_ENCODER, str(error))

    def _replayed(self, record: OnRecord) -> ReplayedItem:
        rescorer = Rescorer(
            self.sessions, self.storage, self.encoder, record.encoder_id, self.limits
        )
        screened = record.row["verdict"] is Verdict.CLEAR
        found = compare(record, recompute(record, rescorer))
        return ReplayedItem(record.item_id, found, screened)


def _note(session: Session, record: OnRecord, done: ReplayedItem) -> None:
    details: dict[str, Any] = {
        "result": done.result,
        "differences": len(done.found.differences),
        "tolerances": VERSION,
    }
    entry = Entry(Event.REPLAYED, ACTOR, record.item_id, record.batch_id, details)
    ledger.append(session, [entry])


class Total:
    """The results of a replay of many items, summed in constant memory."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.screened = 0
        self.largest: dict[str, float] = {}

    def add(self, done: ReplayedItem | NotReplayed) -> None:
        if isinstance(done, NotReplayed):
            self.results[done.why] += 1
            return
        self.results[done.result] += 1
        self.screened += done.screened
        for quantity, apart in done.found.largest.items():
            self.largest[quantity] = max(self.largest.get(quantity, 0.0), apart)

    @property
    def differs(self) -> bool:
        return bool(self.results[ReplayResult.DIFFERS])

    @property
    def replayed(self) -> int:
        return self.results[ReplayResult.SAME] + self.results[ReplayResult.DIFFERS]
