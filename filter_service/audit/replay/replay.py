"""Replays items: recomputes, compares with the record, and notes the result in the ledger."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.audit.replay.explanation_comparison import (
    RecomputedImage,
    compare_explanation,
    compare_told,
)
from filter_service.audit.replay.item_on_record import (
    Apart,
    NotReplayed,
    OnRecord,
    on_record,
    require_same,
)
from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.rescoring import Rescorer
from filter_service.audit.replay.score_comparison import compare_row, compare_scores
from filter_service.audit.replay.tolerances import VERSION
from filter_service.db.session import Sessions
from filter_service.encoder import Encoder
from filter_service.errors import AnotherEncoder, ImageError
from filter_service.images import Limits
from filter_service.ledger import Entry, Event
from filter_service.pipeline import moderate
from filter_service.pipeline.subject import Subject, prepare
from filter_service.policy.coverage import Coverage
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
        found = RecordComparison()
        compare_row(found, record)
        screened = record.row["verdict"] is Verdict.CLEAR
        try:
            subject = self._subject(found, record)
        except ImageError as error:  # the store should have it, whole
            found.same("image", record.digest, str(error))
            return ReplayedItem(record.item_id, found, screened)
        (outcome,) = moderate([subject], record.policy.policy, self.encoder)
        found.same("verdict", record.row["verdict"], outcome.verdict)
        bands = self._bands(record)
        compare_scores(found, record, outcome.scores, bands)
        computed = RecomputedImage(subject, outcome, record.policy.policy, self.encoder, bands)
        self._compare_explanations(found, record, computed)
        return ReplayedItem(record.item_id, found, screened)

    def _bands(self, record: OnRecord) -> npt.NDArray[np.float64]:
        """How far a fast look's margins may lie apart, in its precision then or now: (classes,)."""
        then = self.encoder.screening_in(record.precision)
        policy = record.policy.policy
        return np.maximum(then.band(policy), self.encoder.band(policy))

    def _subject(self, found: RecordComparison, record: OnRecord) -> Subject:
        """Seen as it was then, as the stored views tell; a note where nothing gives those here."""
        data, said = self.storage.get(record.digest), record.policy.policy.coverage
        for coverage in dict.fromkeys((said or Coverage.WHOLE, *Coverage)):
            subject = prepare(data, self.encoder, self.limits, coverage)
            if record.views.issuperset(subject.views) or not record.views:
                return subject
        found.notes.append(
            "the image is looked at in other views here than those on record: they are chosen "
            "otherwise by now, or its frames are."
        )
        return prepare(data, self.encoder, self.limits, said or Coverage.WHOLE)

    def _compare_explanations(
        self, found: RecordComparison, record: OnRecord, computed: RecomputedImage
    ) -> None:
        alike = self.encoder.precision == record.precision
        if not alike:
            found.notes.append(
                f"screened in {record.precision}, here in {self.encoder.precision}: what comes "
                "from that pass is compared within the band; set FILTER_SERVICE_PRECISION."
            )
        rescorer = Rescorer(
            sessions=self.sessions,
            storage=self.storage,
            encoder=self.encoder,
            encoder_id=record.encoder_id,
            limits=self.limits,
            exact=alike and self.encoder.screening_is_exact,
        )
        told, now = record.told, {e.class_name for e in computed.outcome.explanations}
        for name in sorted({*record.explanations, *told.explained, *now}):
            stored = record.explanations.get(name)
            if stored is not None:
                compare_told(found, name, stored, told.explained.get(name), record.fingerprint)
                compare_explanation(found, name, stored, computed, rescorer)
            elif name in told.deleted:
                found.notes.append(f"{name}: the explanation was deleted, as the ledger says.")
            else:
                found.same(f"{name}: explanation", None, "explained")


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
