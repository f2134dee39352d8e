"""Summarises what was decided about an item, in one to three sentences."""

from filter_service.audit.record.item_history import ItemHistory
from filter_service.ledger import Event
from filter_service.rendering.formats import percent, signed
from filter_service.verdicts import Verdict, threshold_margin


def headline(history: ItemHistory) -> str:
    """The verdict, how the review ended, and what became of the last appeal."""
    return " ".join(said for part in (_judged, _reviewed, _appealed) if (said := part(history)))


def _judged(history: ItemHistory) -> str:
    item, name = history.item, history.judged.class_name
    if item.verdict is None:
        return _unjudged(history)
    if item.verdict is Verdict.UNDETERMINED:
        return f"It could not be judged: {item.reason}."
    if item.verdict is Verdict.CLEAR:
        nearest = (
            f"; {name} came nearest, with {percent(item.probability)}"
            if (name and item.probability is not None)
            else ""
        )
        return f"The model found it clear{nearest}."
    if name is None or item.margin is None or item.probability is None:
        return f"Flagged for {name or 'a class'} by a list."
    forbidden = history.judged.forbidden(name)
    if forbidden is None:
        return f"Flagged for {name}: probability {percent(item.probability)}."
    over = item.margin - threshold_margin(forbidden)
    acted = " The flag acted by itself." if item.fully_automated else ""
    return (
        f"Flagged for {name}: probability {percent(item.probability)}, "
        f"{signed(over)} logits from its threshold of {percent(forbidden.threshold)}.{acted}"
    )


def _unjudged(history: ItemHistory) -> str:
    if history.of(Event.ERASED):
        return "It was erased before it was judged."
    return "It was taken back." if history.of(Event.CANCELLED) else "It waits to be judged."


def _reviewed(history: ItemHistory) -> str:
    people = history.people
    if people.waits is not None:
        return "It waits for a person."
    if people.outcome is None:
        return ""
    if people.outcome.review_id is None:
        return f"A list decided: {people.outcome.decision}."
    by = next((r for r in people.reviews if r.review.id == people.outcome.review_id), None)
    return f"{people.outcome.decision.capitalize()} by {by.login if by else 'somebody'}."


def _appealed(history: ItemHistory) -> str:
    if not history.people.appeals:
        return ""
    last = history.people.appeals[-1]
    if last.closed_at is None:
        return "An appeal is open."
    return f"On appeal the flag {'stood' if last.upheld else 'did not stand'}."
