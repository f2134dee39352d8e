"""Checks that an item's database rows agree with its ledger entries."""

import math
from collections.abc import Iterator, Sequence

from filter_service.audit.record.consistency_check import Check, details_of, entry_ids
from filter_service.audit.record.event_descriptions import RecordChapter
from filter_service.audit.record.item_history import ItemHistory
from filter_service.audit.record.review_consistency import (
    appeals,
    outcome,
    reports,
    reviews,
    statements,
)
from filter_service.audit.record.stored_json import UNREADABLE, digest_of
from filter_service.audit.record.stored_sections import ExplanationSection
from filter_service.db.tables import LedgerEntry
from filter_service.ledger import Event
from filter_service.verdicts import Verdict, threshold_margin

NEAR = 1e-3  # logits: float32 numbers that are added in another order lie closer by far


def checks(history: ItemHistory) -> list[Check]:
    """Every comparison that can be made; what was erased cannot be compared any more."""
    return [check for part in _PARTS for check in _readable(part(history))]


def _readable(found: Iterator[Check]) -> Iterator[Check]:
    """Somebody may have put anything in the place of what an entry said."""
    try:
        yield from found
    except UNREADABLE:
        yield Check(_AROUND, "what entries say", "it cannot be read", "what was written")


def _sealed(history: ItemHistory) -> Iterator[Check]:
    """Every entry says what it committed to, and stands where it was sealed."""
    for entry in history.entries:
        place = history.places[entry.id]
        lawful = place.payload is not None or history.erased(entry)
        wrong = place.broken or (None if lawful else "What it said is gone, and nothing erased it.")
        if wrong is not None:
            yield Check(_AROUND, "the entry itself", wrong, "as it was sealed", (entry.id,))
    if all(place.broken is None for place in history.places.values()):
        numbers = tuple(entry.id for entry in history.entries)
        yield Check(
            _AROUND, "every entry itself", "as it was written", "as it was written", numbers
        )


def _verdict(history: ItemHistory) -> Iterator[Check]:
    item = history.item
    last = history.last(Event.JUDGED, Event.FAILED, Event.RETRIED)
    if last is None or last.event == Event.RETRIED:
        yield _check(last, "verdict", item.verdict, None)
        return
    details = details_of(last)
    if details is None:
        return
    if last.event == Event.FAILED:
        yield _check(last, "verdict", item.verdict, Verdict.UNDETERMINED)
        yield _check(last, "reason", item.reason, details.get("reason"))
        return
    blocked = _blocked(history)
    if blocked is None:
        yield _check(last, "verdict", item.verdict, details.get("verdict"))
        for name, held in (
            ("class", history.judged.class_name),
            ("margin", item.margin),
            ("probability", item.probability),
        ):
            yield _check(last, name, held, details.get(name))
    else:
        yield _check(blocked, "verdict, by a list", item.verdict, Verdict.FLAGGED)
    if item.fully_automated or "fully_automated" in details:  # older entries do not say it
        acted = details.get("fully_automated", False)
        yield _check(last, "the flag acted by itself", item.fully_automated, acted)
    policy, encoder = history.judged.policy, history.judged.encoder
    yield _check(last, "the words of the policy", policy and policy.digest, details.get("policy"))
    yield _check(last, "encoder", encoder and encoder.fingerprint, details.get("encoder"))
    yield from _flags(history, last)
    listed = history.last(Event.LIST_DECIDED)
    if listed is None or listed.details is not None:
        recorded = listed and listed.details.get("entry")
        yield _check(listed, "the list that decided", history.item.list_entry_id, recorded)


def _flags(history: ItemHistory, last: LedgerEntry) -> Iterator[Check]:
    """What the table of scores flags, to a thousandth of a logit.

    An image has its scores once: another item of it may have been measured a rounding error apart,
    and of a class that is far from its threshold, by a fast look instead of an exact one.
    """
    recorded: dict[str, float] = last.details.get("flags", {})
    held = {}
    for one in history.judged.scores:
        forbidden = history.judged.forbidden(one.class_name)
        over = forbidden and one.margin >= threshold_margin(forbidden)
        if over or one.class_name in recorded:
            near = math.isclose(one.margin, recorded.get(one.class_name, math.inf), abs_tol=NEAR)
            held[one.class_name] = recorded[one.class_name] if near else one.margin
    # Scores go with an image that is erased or locked away.
    if history.judged.scores and "flags" in last.details:
        yield _check(last, "what was flagged, and by how much", held, recorded)


def _blocked(history: ItemHistory) -> LedgerEntry | None:
    """The list that flagged it whatever the model said."""
    decided = history.last(Event.LIST_DECIDED)
    details = details_of(decided) or {}
    judged = details_of(history.last(Event.JUDGED)) or {}
    forced = details.get("decision") == "confirmed" and judged.get("verdict") != Verdict.FLAGGED
    other = details.get("decision") == "confirmed" and details.get("class") != judged.get("class")
    return decided if forced or other else None


def _image(history: ItemHistory) -> Iterator[Check]:
    """One image, from the submission to the verdict; its digest goes only when it is erased."""
    if history.image is None:
        return
    if history.image.digest is None:
        erased = history.last(Event.ERASED)
        what = "its bytes and their digest are gone"
        yield Check(
            RecordChapter.KEPT, what, "erased", "erased" if erased else None, entry_ids(erased)
        )
        return
    for entry in history.of(Event.SUBMITTED, Event.FETCHED, Event.JUDGED):
        details = details_of(entry)
        if details is not None and details.get("digest") is not None:
            chapter = (
                RecordChapter.SCORED if entry.event == Event.JUDGED else RecordChapter.SUBMITTED
            )
            yield Check(chapter, "the image", history.image.digest, details["digest"], (entry.id,))


def _explanations(history: ItemHistory) -> Iterator[Check]:
    """The exact text of each has the digest that its entry holds."""
    held = {e.class_name: e for e in history.judged.explanations}
    recorded = {
        s["class"]: e for e in history.of(Event.EXPLAINED) if (s := details_of(e)) is not None
    }
    for name, entry in recorded.items():
        section: ExplanationSection | None = held.pop(name, None)
        what = f"the explanation for {name}"
        if section is None and _forgotten(history, entry):
            continue
        digest_recorded = entry.details.get("record")
        digest = None if section is None else digest_of(section.text, digest_recorded)
        yield Check(RecordChapter.EXPLAINED, what, digest, digest_recorded, (entry.id,))
    if all(e.details is not None for e in history.of(Event.EXPLAINED)):
        for name in held:
            yield Check(
                RecordChapter.EXPLAINED, f"the explanation for {name}", "there is one", None
            )


def _forgotten(history: ItemHistory, entry: LedgerEntry) -> bool:
    """A later entry says that explanations were deleted."""
    later = [e for e in history.of(*_FORGETTING) if e.id > entry.id]
    expired = (e for e in later if e.event == Event.EXPIRED)
    return any(e.event != Event.EXPIRED for e in later) or any(
        "explanations" in (details_of(e) or {}).get("parts", ()) for e in expired
    )


def _anew(history: ItemHistory) -> Iterator[Check]:
    """Which item this one supersedes, and which ones supersede it."""
    first = history.last(Event.SUBMITTED)
    if first is not None and first.details is not None:
        what, recorded = "the item that it was judged anew for", first.details.get("supersedes")
        yield Check(RecordChapter.JUDGED_ANEW, what, history.item.supersedes, recorded, (first.id,))
    entries = history.of(Event.REEVALUATED)
    if all(e.details is not None for e in entries):
        recorded = tuple(sorted((e.details.get("item") for e in entries), key=str))
        held = tuple(sorted(history.keeping.later, key=str))
        if recorded or held:
            what = "the items that it was judged anew as"
            yield Check(RecordChapter.JUDGED_ANEW, what, held, recorded, entry_ids(*entries))


_AROUND = RecordChapter.AROUND
_PARTS = (
    *(_sealed, _verdict, _image, _explanations, reviews, outcome),
    *(reports, appeals, statements, _anew),
)
_FORGETTING = (Event.EXPIRED, Event.ERASED, Event.LOCKED_AWAY)


def _check(entry: LedgerEntry | None, what: str, table: object, ledger: object) -> Check:
    return Check(RecordChapter.SCORED, what, table, ledger, entry_ids(entry))


def broken(found: Sequence[Check]) -> list[Check]:
    """Those that do not hold."""
    return [check for check in found if not check.holds]
