"""The append-only record of everything that happened, and the proof that it stayed as it was."""

from filter_service.ledger.entries import Entry, Event, append, of_item

__all__ = ["Entry", "Event", "append", "of_item"]
