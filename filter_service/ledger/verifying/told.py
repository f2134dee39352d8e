"""What entries tell, as far as it can be read, and where they stand."""

import json
from hashlib import sha256
from math import inf
from typing import Any

from filter_service.canonical import canonical
from filter_service.ledger.reading import Written


def read_details(details: str) -> dict[str, Any]:
    """Whatever somebody wrote down; anything that the service never writes says nothing."""
    try:
        found = json.loads(details)
    except (RecursionError, ValueError):  # too deep, or a number of too many digits
        return {}
    return found if isinstance(found, dict) else {}


def is_digest_of(digest: object, record: str) -> bool:
    """Whether it is of this text, or of the same content as it was before the text was kept."""
    if digest == sha256(record.encode()).hexdigest():
        return True
    try:
        content = canonical(json.loads(record)).encode()
    except (RecursionError, ValueError):  # nothing that the service wrote
        return False
    return digest == sha256(content).hexdigest()


def place(written: Written) -> float:
    """Its position; after all others while it waits."""
    return inf if written.position is None else written.position


def at(written: Written) -> str:
    """The position in words, to follow the entry."""
    return ", which waits," if written.position is None else f" at position {written.position}"
