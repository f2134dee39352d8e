"""The parameters of lists: a cursor, and how many rows."""

from typing import Annotated

from fastapi import Query

After = Annotated[
    str | None,
    Query(max_length=500, description="`next` of the page before; none: from the start."),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
