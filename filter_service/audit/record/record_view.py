"""The view model of a decision record: chapters, lines, evidence and inconsistencies."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from filter_service.audit.record import consistency
from filter_service.audit.record.consistency_check import Check
from filter_service.audit.record.event_descriptions import (
    RecordChapter,
    chapter_of,
    said_in,
    sentence,
    who,
)
from filter_service.audit.record.headline import headline
from filter_service.audit.record.item_history import ItemHistory
from filter_service.audit.record.stored_sections import (
    ExplanationSection,
    MeasurementSection,
    NotificationSection,
    ReviewSection,
)
from filter_service.db.tables import Appeal, LedgerEntry, Report
from filter_service.images.views import ShareSeen
from filter_service.ledger import Event
from filter_service.policy import ForbiddenClass
from filter_service.rendering.class_evidence import ClassEvidence, evidence
from filter_service.rendering.formats import signed
from filter_service.verdicts import probability, threshold_margin

LONGEST = 200  # letters of a value that two sides do not agree about


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A class as it was measured, beside what the policy asks for."""

    forbidden: ForbiddenClass
    margin: float
    probability: float
    flagged: bool
    exact: bool

    @property
    def certain(self) -> bool:
        """Sure enough for a flag to act by itself."""
        certain = self.forbidden.certain
        return certain is not None and self.probability >= certain

    @property
    def threshold_margin(self) -> float:
        return threshold_margin(self.forbidden)


@dataclass(frozen=True)
class Record:
    """One item's record, ready to be drawn as a page or as a file."""

    history: ItemHistory

    @cached_property
    def checks(self) -> list[Check]:
        return consistency.checks(self.history)

    @property
    def broken(self) -> list[Check]:
        """Where tables and ledger do not say the same."""
        return [check for check in self.checks if not check.holds]

    @property
    def wrong(self) -> frozenset[int]:
        """Entries that something does not agree with."""
        return frozenset(number for check in self.broken for number in check.entries)

    @cached_property
    def chapters(self) -> Mapping[RecordChapter, list[LedgerEntry]]:
        """The entries of each chapter, oldest first."""
        found = defaultdict(list)
        for entry in self.history.entries:
            found[chapter_of(entry.event)].append(entry)
        return found

    def lines(self, *names: str) -> list[LedgerEntry]:
        return [entry for name in names for entry in self.chapters.get(RecordChapter(name), [])]

    def says(self, entry: LedgerEntry) -> str:
        return sentence(entry)

    def who(self, actor: str | None) -> str:
        return who(actor)

    def sealed(self, number: int) -> bool:
        """The entry has its place in the tree."""
        place = self.history.places.get(number)
        return place is not None and place.inclusion is not None

    def worded(self, value: object) -> str:
        """One side of a comparison, for people."""
        said = ", ".join(map(_said, value)) if isinstance(value, tuple) else _said(value)
        return said if len(said) <= LONGEST else f"{said[:LONGEST]}…"

    def listed(self, values: Sequence[float]) -> str:
        return ", ".join(signed(v, 2) for v in values)

    def json(self, value: object) -> str:
        return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)

    @property
    def policy_text(self) -> str:
        """The whole document whose digest names the version."""
        return self.json(self.history.judged.stored.document)

    @property
    def encoder_facts(self) -> list[tuple[str, str]]:
        """Library versions, precision, preprocessing, by name."""
        encoder = self.history.judged.encoder
        return (
            []
            if encoder is None
            else [(name.replace("_", " "), _said(value)) for name, value in encoder.details.items()]
        )

    @property
    def calibrated(self) -> bool:
        return any(s.forbidden.calibration is not None for s in self.scores)

    @property
    def seen(self) -> ShareSeen | None:
        """How much of the image the model looked at."""
        item = self.history.item
        return ShareSeen.of(item.seen_pixels, item.seen_time)

    @property
    def picture_kept(self) -> bool:
        """Its bytes are still here."""
        image = self.history.image
        return image is not None and image.digest is not None and image.bytes_gone_at is None

    @property
    def judging(self) -> tuple[int, ...]:
        """The entry of the verdict that stands."""
        return self.numbers("judged")[-1:]

    @cached_property
    def scores(self) -> list[ScoreLine]:
        """Every class of the policy, as far as it was measured."""
        measured = {m.class_name: m for m in self.history.judged.scores}
        policy = self.history.judged.policy
        classes = policy.classes if policy else ()
        return [_score(c, measured[c.name]) for c in classes if c.name in measured]

    @property
    def judged_for(self) -> list[ForbiddenClass]:
        """The classes whose words the record shows in full: flagged, or the nearest one."""
        judged = self.history.judged
        flagged = {s.forbidden.name for s in self.scores if s.flagged}
        flagged |= {e.class_name for e in judged.explanations} | {judged.class_name or ""}
        return [c for c in (judged.policy.classes if judged.policy else ()) if c.name in flagged]

    def evidence(self, explained: ExplanationSection) -> ClassEvidence | None:
        """What an explanation says, as the item's page draws it; None where it cannot be read."""
        forbidden = self.history.judged.forbidden(explained.class_name)
        record = explained.record
        if forbidden is None or record is None:
            return None
        return evidence(self.history.item.id, forbidden, record.margin, record)

    def explaining(self, explained: ExplanationSection) -> tuple[int, ...]:
        """The entry that holds an explanation's digest."""
        return self._about(Event.EXPLAINED, "class", explained.class_name)[-1:]

    def review_of(self, entry: LedgerEntry) -> ReviewSection | None:
        """The row of a decision, beside its entry."""
        number = said_in(entry).get("review") if entry.event == Event.DECIDED else None
        return next((r for r in self.history.people.reviews if r.review.id == number), None)

    @property
    def reviews_without_entry(self) -> list[ReviewSection]:
        """Decisions whose entries were erased, or never written."""
        told = [said_in(entry).get("review") for entry in self.history.of(Event.DECIDED)]
        return [r for r in self.history.people.reviews if r.review.id not in told]

    def appeal_of(self, entry: LedgerEntry) -> Appeal | None:
        number = said_in(entry).get("appeal")
        return next((a for a in self.history.people.appeals if str(a.id) == number), None)

    def report_of(self, entry: LedgerEntry) -> Report | None:
        number = said_in(entry).get("report")
        return next((r for r in self.history.people.reports if str(r.id) == number), None)

    def stating(self, puid: object) -> tuple[int, ...]:
        return self._about(Event.STATED, "puid", str(puid))

    def causing(self, told: NotificationSection) -> tuple[int, ...]:
        """The entries of the transaction in which something was written for the platforms."""
        return tuple(e.id for e in self.history.entries if e.at == told.at)

    def numbers(self, *events: str) -> tuple[int, ...]:
        return tuple(e.id for e in self.history.of(*(Event(name) for name in events)))

    @property
    def title(self) -> str:
        """What it was decided for, in a word or two."""
        return self.history.judged.class_name or f"item {self.history.item.id}"

    @property
    def headline(self) -> str:
        """What was decided, in a sentence."""
        return headline(self.history)

    @property
    def gone(self) -> str:
        """What of it was deleted; empty if nothing was."""
        image = self.history.image
        if self.history.last(Event.ERASED):
            return (
                "Erased: the payloads are gone, the commitments intact. What is still shown "
                "proves that something was decided here, and when, but not any more about whom."
            )
        if image is not None and image.bytes_gone_at is not None:
            return "The picture's time was over and its bytes were deleted; its digest is kept."
        return ""

    def _about(self, event: Event, name: str, value: object) -> tuple[int, ...]:
        return tuple(e.id for e in self.history.of(event) if said_in(e).get(name) == value)


def _said(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value)


def _score(forbidden: ForbiddenClass, measured: MeasurementSection) -> ScoreLine:
    p = probability(measured.margin, forbidden)
    return ScoreLine(forbidden, measured.margin, p, p >= forbidden.threshold, measured.exact)
