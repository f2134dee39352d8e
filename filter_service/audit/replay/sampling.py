"""Selects the items to replay: all, or a random sample that can be drawn again."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import text

from filter_service.db.session import Sessions
from filter_service.errors import InvalidRequest

PAGE = 500  # items looked up together
_SPACE = 2**32

# An item is in the sample when the first 32 bits of MD5("SEED:ITEM"), as a share of all that these
# can be, are below the share that was asked for.
_CHOSEN = text("""
    SELECT id FROM items
    WHERE id > :after AND verdict IS NOT NULL
      AND (CAST(:batch AS uuid) IS NULL OR batch_id = CAST(:batch AS uuid))
      AND ('x' || left(md5(:seed || ':' || id), 8))::bit(32)::bigint & 4294967295 < :below
    ORDER BY id LIMIT :page
""")


@dataclass(frozen=True, slots=True)
class ReplaySample:
    """A share of all judged items, or of one batch's."""

    share: float = 1.0
    seed: int = 0
    batch: uuid.UUID | None = None


def share_of(words: str) -> float:
    """'1%' or '0.01' as a share; raises InvalidRequest."""
    try:
        share = float(words.removesuffix("%")) / (100 if words.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise InvalidRequest(
            f"{words[:40]!r} is no share: give 1% or 0.01, more than 0 and at most all."
        )
    return share


def chosen(sessions: Sessions, sample: ReplaySample) -> Iterator[int]:
    """Judged items in the order of their numbers, page by page."""
    after = 0
    while True:
        with sessions.begin() as session:
            page = session.scalars(
                _CHOSEN,
                {
                    "after": after,
                    "batch": sample.batch,
                    "seed": str(sample.seed),
                    "below": round(sample.share * _SPACE),
                    "page": PAGE,
                },
            ).all()
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1]
