"""Checks that an item's database rows agree with its ledger entries."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from filter_service.audit.record.event_descriptions import RecordChapter
from filter_service.audit.record.item_history import ItemHistory
from filter_service.audit.record.stored_json import UNREADABLE, digest_of
from filter_service.audit.record.stored_sections import (
    ExplanationSection,
    ReviewSection,
    StatementSection,
)
from filter_service.canonical import text_digest
from filter_service.db.tables import Appeal, LedgerEntry
from filter_service.ledger import Event
from filter_service.verdicts import Verdict, threshold_margin

FINAL = "final"  # what a settled decision says is next where nothing is
NEAR = 1e-3  # logits: float32 numbers that are added in another order lie closer by far
SAID = ("stage", "decision", "reason", "note", "seconds", "revealed")  # of a decision


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


def checks(life: ItemHistory) -> list[Check]:
    """Every comparison that can be made; what was erased cannot be compared any more."""
    return [check for part in _PARTS for check in _readable(part(life))]


def _readable(found: Iterator[Check]) -> Iterator[Check]:
    """Somebody may have put anything in the place of what an entry said."""
    try:
        yield from found
    except UNREADABLE:
        yield Check(_AROUND, "what entries say", "it cannot be read", "what was written")


def _sealed(life: ItemHistory) -> Iterator[Check]:
    """Every entry says what it committed to, and stands where it was sealed."""
    for entry in life.entries:
        place = life.places[entry.id]
        lawful = place.payload is not None or life.erased(entry)
        wrong = place.broken or (None if lawful else "What it said is gone, and nothing erased it.")
        if wrong is not None:
            yield Check(_AROUND, "the entry itself", wrong, "as it was sealed", (entry.id,))
    if all(place.broken is None for place in life.places.values()):
        numbers = tuple(entry.id for entry in life.entries)
        yield Check(
            _AROUND, "every entry itself", "as it was written", "as it was written", numbers
        )


def _verdict(life: ItemHistory) -> Iterator[Check]:
    item = life.item
    last = life.last(Event.JUDGED, Event.FAILED, Event.RETRIED)
    if last is None or last.event == Event.RETRIED:
        yield _check(last, "verdict", item.verdict, None)
        return
    said = _details(last)
    if said is None:
        return
    if last.event == Event.FAILED:
        yield _check(last, "verdict", item.verdict, Verdict.UNDETERMINED)
        yield _check(last, "reason", item.reason, said.get("reason"))
        return
    blocked = _blocked(life)
    if blocked is None:
        yield _check(last, "verdict", item.verdict, said.get("verdict"))
        for name, held in (
            ("class", life.judged.class_name),
            ("margin", item.margin),
            ("probability", item.probability),
        ):
            yield _check(last, name, held, said.get(name))
    else:
        yield _check(blocked, "verdict, by a list", item.verdict, Verdict.FLAGGED)
    policy, encoder = life.judged.policy, life.judged.encoder
    yield _check(last, "the words of the policy", policy and policy.digest, said.get("policy"))
    yield _check(last, "encoder", encoder and encoder.fingerprint, said.get("encoder"))
    yield from _flags(life, last)
    listed = life.last(Event.LIST_DECIDED)
    if listed is None or listed.details is not None:
        told = listed and listed.details.get("entry")
        yield _check(listed, "the list that decided", life.item.list_entry_id, told)


def _flags(life: ItemHistory, last: LedgerEntry) -> Iterator[Check]:
    """What the table of scores flags, to a thousandth of a logit.

    An image has its scores once: another item of it may have been measured a rounding error apart,
    and of a class that is far from its threshold, by a fast look instead of an exact one.
    """
    told: dict[str, float] = last.details.get("flags", {})
    held = {}
    for one in life.judged.scores:
        forbidden = life.judged.forbidden(one.class_name)
        over = forbidden and one.margin >= threshold_margin(forbidden)
        if over or one.class_name in told:
            near = math.isclose(one.margin, told.get(one.class_name, math.inf), abs_tol=NEAR)
            held[one.class_name] = told[one.class_name] if near else one.margin
    # Scores go with an image that is erased or locked away.
    if life.judged.scores and "flags" in last.details:
        yield _check(last, "what was flagged, and by how much", held, told)


def _blocked(life: ItemHistory) -> LedgerEntry | None:
    """The list that flagged it whatever the model said."""
    decided = life.last(Event.LIST_DECIDED)
    said = _details(decided) or {}
    judged = _details(life.last(Event.JUDGED)) or {}
    forced = said.get("decision") == "confirmed" and judged.get("verdict") != Verdict.FLAGGED
    other = said.get("decision") == "confirmed" and said.get("class") != judged.get("class")
    return decided if forced or other else None


def _image(life: ItemHistory) -> Iterator[Check]:
    """One image, from the submission to the verdict; its digest goes only when it is erased."""
    if life.image is None:
        return
    if life.image.digest is None:
        erased = life.last(Event.ERASED)
        what = "its bytes and their digest are gone"
        yield Check(
            RecordChapter.KEPT, what, "erased", "erased" if erased else None, _numbers(erased)
        )
        return
    for entry in life.of(Event.SUBMITTED, Event.FETCHED, Event.JUDGED):
        said = _details(entry)
        if said is not None and said.get("digest") is not None:
            chapter = (
                RecordChapter.SCORED if entry.event == Event.JUDGED else RecordChapter.SUBMITTED
            )
            yield Check(chapter, "the image", life.image.digest, said["digest"], (entry.id,))


def _explanations(life: ItemHistory) -> Iterator[Check]:
    """The exact text of each has the digest that its entry holds."""
    held = {e.class_name: e for e in life.judged.explanations}
    told = {s["class"]: e for e in life.of(Event.EXPLAINED) if (s := _details(e)) is not None}
    for name, entry in told.items():
        kept: ExplanationSection | None = held.pop(name, None)
        what = f"the explanation for {name}"
        if kept is None and _forgotten(life, entry):
            continue
        said = entry.details.get("record")
        digest = None if kept is None else digest_of(kept.text, said)
        yield Check(RecordChapter.EXPLAINED, what, digest, said, (entry.id,))
    if all(e.details is not None for e in life.of(Event.EXPLAINED)):
        for name in held:
            yield Check(
                RecordChapter.EXPLAINED, f"the explanation for {name}", "there is one", None
            )


def _forgotten(life: ItemHistory, entry: LedgerEntry) -> bool:
    """A later entry says that explanations were deleted."""
    later = [e for e in life.of(*_FORGETTING) if e.id > entry.id]
    expired = (e for e in later if e.event == Event.EXPIRED)
    return any(e.event != Event.EXPIRED for e in later) or any(
        "explanations" in (_details(e) or {}).get("parts", ()) for e in expired
    )


def _reviews(life: ItemHistory) -> Iterator[Check]:
    """Each decision has its entry, and each entry its decision."""
    entries = {
        event: {s.get("review"): e for e in life.of(event) if (s := _details(e)) is not None}
        for event in (Event.DECIDED, Event.UNDONE, Event.SETTLED)
    }
    for kept in life.people.reviews:
        yield from _review(kept, life, entries)
    known = {kept.review.id for kept in life.people.reviews}
    for event, told in entries.items():
        for review, entry in told.items():
            if review not in known:
                yield Check(
                    RecordChapter.DECIDED, f"decision {review}", None, event.value, (entry.id,)
                )


def _review(
    kept: ReviewSection, life: ItemHistory, entries: dict[Event, dict[Any, LedgerEntry]]
) -> Iterator[Check]:
    review = kept.review
    decided = entries[Event.DECIDED].get(review.id)
    if decided is None:
        if all(e.details is not None for e in life.of(Event.DECIDED)):
            yield Check(RecordChapter.DECIDED, f"decision {review.id}", review.decision, None)
        return
    said = decided.details
    names = [name for name in SAID if name in said]  # older entries hold fewer
    table = (f"person {kept.login}", *(getattr(review, name) for name in names))
    told = (decided.actor, *(said[name] for name in names))
    what = f"decision {review.id}: who, {', '.join(names)}"
    yield Check(RecordChapter.DECIDED, what, table, told, (decided.id,))
    undone = entries[Event.UNDONE].get(review.id)
    if undone is not None or review.undone_at is not None:
        both = (review.undone_at is not None, undone is not None)
        yield Check(RecordChapter.DECIDED, f"decision {review.id} undone", *both, _numbers(undone))
    settled = entries[Event.SETTLED].get(review.id)
    if settled is not None:
        table_says = review.decision if review.settled_at else None
        what = f"decision {review.id} took effect"
        yield Check(
            RecordChapter.DECIDED, what, table_says, settled.details.get("decision"), (settled.id,)
        )


def _outcome(life: ItemHistory) -> Iterator[Check]:
    """How the review ended is what was decided last and for good, by a person or a list."""
    final = None
    for entry in life.of(Event.SETTLED, Event.LIST_DECIDED):
        if (said := _details(entry)) is None:
            return
        if entry.event == Event.LIST_DECIDED or said.get("next") == FINAL:
            final = entry
    outcome = life.people.outcome
    if final is not None or outcome is not None:
        told = final and (final.details.get("decision"), final.details.get("review"))
        held = outcome and (outcome.decision, outcome.review_id)
        yield Check(
            RecordChapter.DECIDED, "how it ended, by which decision", held, told, _numbers(final)
        )


def _appeals(life: ItemHistory) -> Iterator[Check]:
    opened = {s.get("appeal"): e for e in life.of(Event.APPEALED) if (s := _details(e))}
    closed = {s.get("appeal"): e for e in life.of(Event.APPEAL_CLOSED) if (s := _details(e))}
    rows: dict[str, Appeal] = {str(a.id): a for a in life.people.appeals}
    erased = any(e.details is None for e in life.of(Event.APPEALED, Event.APPEAL_CLOSED))
    known: set[Any] = {*opened, *closed, *(() if erased else rows)}
    for appeal in sorted(known):
        row, first, last = rows.get(appeal), opened.get(appeal), closed.get(appeal)
        what = f"appeal {str(appeal)[:8]}: by whom, and the flag stands"
        told = (first and first.actor, last and last.details.get("upheld"))
        held = (row and row.opened_by, row and row.upheld)
        yield Check(RecordChapter.APPEALED, what, held, told, _numbers(first, last))


def _statements(life: ItemHistory) -> Iterator[Check]:
    """What each statement of reasons says, and whether it stands."""
    told = {s.get("puid"): e for e in life.of(Event.STATED) if (s := _details(e)) is not None}
    ended = {s.get("puid"): e for e in life.of(Event.STATEMENT_WITHDRAWN) if (s := _details(e))}
    rows = {str(s.statement.puid): s for s in life.people.statements}
    erased = any(e.details is None for e in life.of(Event.STATED, Event.STATEMENT_WITHDRAWN))
    for puid in sorted({*told, *ended, *(() if erased else rows)}):
        entry, end, row = told.get(puid), ended.get(puid), rows.get(puid)
        said = entry.details if entry else {}
        what = f"statement of reasons {str(puid)[:8]}: document, notice, withdrawn"
        ledger = entry and (said.get("document"), said.get("notice"), end is not None)
        yield Check(
            RecordChapter.STATED, what, row and _stated(row, said), ledger, _numbers(entry, end)
        )


def _stated(row: StatementSection, said: dict[str, Any]) -> tuple[str, str, bool]:
    notice = text_digest(row.statement.notice)
    withdrawn = row.statement.withdrawn_at is not None
    return digest_of(row.text, said.get("document")), notice, withdrawn


def _anew(life: ItemHistory) -> Iterator[Check]:
    """Which item this one supersedes, and which ones supersede it."""
    first = life.last(Event.SUBMITTED)
    if first is not None and first.details is not None:
        what, told = "the item that it was judged anew for", first.details.get("supersedes")
        yield Check(RecordChapter.JUDGED_ANEW, what, life.item.supersedes, told, (first.id,))
    entries = life.of(Event.REEVALUATED)
    if all(e.details is not None for e in entries):
        told = tuple(sorted((e.details.get("item") for e in entries), key=str))
        held = tuple(sorted(life.keeping.later, key=str))
        if told or held:
            what = "the items that it was judged anew as"
            yield Check(RecordChapter.JUDGED_ANEW, what, held, told, _numbers(*entries))


_AROUND = RecordChapter.AROUND
_PARTS = (
    *(_sealed, _verdict, _image, _explanations, _reviews, _outcome),
    *(_appeals, _statements, _anew),
)
_FORGETTING = (Event.EXPIRED, Event.ERASED, Event.LOCKED_AWAY)


def _check(entry: LedgerEntry | None, what: str, table: object, ledger: object) -> Check:
    return Check(RecordChapter.SCORED, what, table, ledger, _numbers(entry))


def _details(entry: LedgerEntry | None) -> dict[str, Any] | None:
    return None if entry is None else entry.details


def _numbers(*entries: LedgerEntry | None) -> tuple[int, ...]:
    return tuple(e.id for e in entries if e is not None)


def broken(found: Sequence[Check]) -> list[Check]:
    """Those that do not hold."""
    return [check for check in found if not check.holds]
