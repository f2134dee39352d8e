"""Checks that decisions, appeals and statements agree with their ledger entries."""

from collections.abc import Iterator
from typing import Any

from filter_service.audit.record.consistency_check import Check, details_of, entry_ids
from filter_service.audit.record.event_descriptions import RecordChapter
from filter_service.audit.record.item_history import ItemHistory
from filter_service.audit.record.stored_json import digest_of
from filter_service.audit.record.stored_sections import ReviewSection, StatementSection
from filter_service.canonical import text_digest
from filter_service.db.tables import Appeal, LedgerEntry, Report
from filter_service.ledger import Event

FINAL = "final"  # what a settled decision says is next where nothing is
SAID = ("stage", "decision", "reason", "note", "seconds", "revealed")  # of a decision


def reviews(history: ItemHistory) -> Iterator[Check]:
    """Each decision has its entry, and each entry its decision."""
    entries = {
        event: {s.get("review"): e for e in history.of(event) if (s := details_of(e)) is not None}
        for event in (Event.DECIDED, Event.UNDONE, Event.SETTLED)
    }
    for section in history.people.reviews:
        yield from _review(section, history, entries)
    known = {section.review.id for section in history.people.reviews}
    for event, recorded in entries.items():
        for review, entry in recorded.items():
            if review not in known:
                yield Check(
                    RecordChapter.DECIDED, f"decision {review}", None, event.value, (entry.id,)
                )


def _review(
    section: ReviewSection, history: ItemHistory, entries: dict[Event, dict[Any, LedgerEntry]]
) -> Iterator[Check]:
    review = section.review
    decided = entries[Event.DECIDED].get(review.id)
    if decided is None:
        if all(e.details is not None for e in history.of(Event.DECIDED)):
            yield Check(RecordChapter.DECIDED, f"decision {review.id}", review.decision, None)
        return
    details = decided.details
    names = [name for name in SAID if name in details]  # older entries hold fewer
    table = (f"person {section.login}", *(getattr(review, name) for name in names))
    recorded = (decided.actor, *(details[name] for name in names))
    what = f"decision {review.id}: who, {', '.join(names)}"
    yield Check(RecordChapter.DECIDED, what, table, recorded, (decided.id,))
    undone = entries[Event.UNDONE].get(review.id)
    if undone is not None or review.undone_at is not None:
        both = (review.undone_at is not None, undone is not None)
        yield Check(RecordChapter.DECIDED, f"decision {review.id} undone", *both, entry_ids(undone))
    settled = entries[Event.SETTLED].get(review.id)
    if settled is not None:
        table_says = review.decision if review.settled_at else None
        what = f"decision {review.id} took effect"
        yield Check(
            RecordChapter.DECIDED, what, table_says, settled.details.get("decision"), (settled.id,)
        )


def outcome(history: ItemHistory) -> Iterator[Check]:
    """How the review ended is what was decided last and for good, by a person or a list."""
    final = None
    for entry in history.of(Event.SETTLED, Event.LIST_DECIDED):
        if (details := details_of(entry)) is None:
            return
        if entry.event == Event.LIST_DECIDED or details.get("next") == FINAL:
            final = entry
    outcome = history.people.outcome
    if final is not None or outcome is not None:
        recorded = final and (final.details.get("decision"), final.details.get("review"))
        held = outcome and (outcome.decision, outcome.review_id)
        yield Check(
            RecordChapter.DECIDED,
            "how it ended, by which decision",
            held,
            recorded,
            entry_ids(final),
        )


def appeals(history: ItemHistory) -> Iterator[Check]:
    opened = {s.get("appeal"): e for e in history.of(Event.APPEALED) if (s := details_of(e))}
    closed = {s.get("appeal"): e for e in history.of(Event.APPEAL_CLOSED) if (s := details_of(e))}
    rows: dict[str, Appeal] = {str(a.id): a for a in history.people.appeals}
    erased = any(e.details is None for e in history.of(Event.APPEALED, Event.APPEAL_CLOSED))
    known: set[Any] = {*opened, *closed, *(() if erased else rows)}
    for appeal in sorted(known):
        row, first, last = rows.get(appeal), opened.get(appeal), closed.get(appeal)
        what = f"appeal {str(appeal)[:8]}: by whom, and the flag stands"
        recorded = (first and first.actor, last and last.details.get("upheld"))
        held = (row and row.opened_by, row and row.upheld)
        yield Check(RecordChapter.APPEALED, what, held, recorded, entry_ids(first, last))


def reports(history: ItemHistory) -> Iterator[Check]:
    """Each report was made and answered as the ledger says."""
    made = {s.get("report"): e for e in history.of(Event.REPORTED) if (s := details_of(e))}
    closed = {s.get("report"): e for e in history.of(Event.REPORT_CLOSED) if (s := details_of(e))}
    rows: dict[str, Report] = {str(r.id): r for r in history.people.reports}
    erased = any(e.details is None for e in history.of(Event.REPORTED, Event.REPORT_CLOSED))
    known: set[Any] = {*made, *closed, *(() if erased else rows)}
    for report in sorted(known):
        row, first, last = rows.get(report), made.get(report), closed.get(report)
        what = f"report {str(report)[:8]}: by whom, as whose, and the answer"
        told = first.details if first else {}
        recorded = (first and first.actor, told.get("reported_as"), last and last.details["final"])
        held = (row and row.reported_by, row and row.source, row and row.final)
        yield Check(RecordChapter.REPORTED, what, held, recorded, entry_ids(first, last))


def statements(history: ItemHistory) -> Iterator[Check]:
    """What each statement of reasons says, and whether it stands."""
    recorded = {
        s.get("puid"): e for e in history.of(Event.STATED) if (s := details_of(e)) is not None
    }
    ended = {
        s.get("puid"): e for e in history.of(Event.STATEMENT_WITHDRAWN) if (s := details_of(e))
    }
    rows = {str(s.statement.puid): s for s in history.people.statements}
    erased = any(e.details is None for e in history.of(Event.STATED, Event.STATEMENT_WITHDRAWN))
    for puid in sorted({*recorded, *ended, *(() if erased else rows)}):
        entry, end, row = recorded.get(puid), ended.get(puid), rows.get(puid)
        details = entry.details if entry else {}
        what = f"statement of reasons {str(puid)[:8]}: document, notice, withdrawn"
        ledger = entry and (details.get("document"), details.get("notice"), end is not None)
        yield Check(
            RecordChapter.STATED, what, row and _stated(row, details), ledger, entry_ids(entry, end)
        )


def _stated(row: StatementSection, said: dict[str, Any]) -> tuple[str, str, bool]:
    notice = text_digest(row.statement.notice)
    withdrawn = row.statement.withdrawn_at is not None
    return digest_of(row.text, said.get("document")), notice, withdrawn
