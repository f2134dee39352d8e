"""Keyset paging: the key of a page's last row as an opaque text, a cursor."""

import base64
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from filter_service.errors import InvalidRequest

LARGEST_ID = 2**63 - 1  # of a row

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list, and the cursor of those that follow."""

    rows: list[Row]
    next: str | None


def page_of(
    found: Sequence[Row], limit: int, key: Callable[[Row], tuple[object, ...]]
) -> Page[Row]:
    """The page of a list of which one row more was asked for, if there is one."""
    rows = list(found[:limit])
    return Page(rows, cursor(*key(rows[-1])) if len(found) > limit else None)


def cursor(*key: object) -> str:
    """The key of a page's last row, for whoever asks for the next page."""
    return base64.urlsafe_b64encode(json.dumps(key, default=str).encode()).decode().rstrip("=")


def key_of(after: str, *kinds: type) -> list[Any]:
    """The key behind a cursor, one value of each kind; raises InvalidRequest."""
    try:
        padded = after + "=" * (-len(after) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(key, list) or [type(k) for k in key] != list(kinds):
            raise ValueError
        if any(isinstance(k, int) and not 0 <= k <= LARGEST_ID for k in key):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise _no_cursor(after) from error
    return key


def id_of(after: str | None) -> int | None:
    """The id behind a cursor; None: from the start. Raises InvalidRequest."""
    if not after:
        return None
    found: int = key_of(after, int)[0]
    return found


def moment_of(after: str | None) -> tuple[datetime, uuid.UUID] | None:
    """Likewise the moment and the id, of lists in the order of time."""
    if not after:
        return None
    at, name = key_of(after, str, str)
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError
        return moment, uuid.UUID(name)
    except ValueError as error:
        raise _no_cursor(after) from error


def _no_cursor(after: str) -> InvalidRequest:
    return InvalidRequest(
        f"after={after[:80]!r} is no cursor: take `next` of the page before, as it is."
    )
