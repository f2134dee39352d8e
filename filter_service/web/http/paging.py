"""Cursors for paging: the last key of a page, as an opaque text."""

import base64
import json
from typing import Annotated, Any

from fastapi import Query

from filter_service.errors import InvalidRequest

LARGEST_ID = 2**63 - 1  # of a row

After = Annotated[
    str | None,
    Query(max_length=500, description="`next` of the page before; none: from the start."),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]


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
        raise InvalidRequest(
            f"after={after[:80]!r} is no cursor: take `next` of the page before, as it is."
        ) from error
    return key
