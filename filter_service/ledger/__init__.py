"""The ledger: an append-only, tamper-evident log of events, kept in a Merkle tree."""

from filter_service.ledger.entries import Entry, Event, append, of_item

__all__ = ["Entry", "Event", "append", "of_item"]
