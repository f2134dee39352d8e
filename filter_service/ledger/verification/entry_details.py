"""Parses the details of ledger entries tolerantly, and words their positions."""

import json
from math import inf
from typing import Any

from filter_service.ledger.entry_stream import StoredEntry


def read_details(details: str) -> dict[str, Any]:
    """Whatever somebody wrote down; anything that the service never writes says nothing."""
    try:
        found = json.loads(details)
    except (RecursionError, ValueError):  # too deep, or a number of too many digits
        return {}
    return found if isinstance(found, dict) else {}


def place(written: StoredEntry) -> float:
    """Its position; after all others while it waits."""
    return inf if written.position is None else written.position


def at(written: StoredEntry) -> str:
    """The position in words, to follow the entry."""
    return ", which waits," if written.position is None else f" at position {written.position}"
