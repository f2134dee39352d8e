"""Queues items whose statement of reasons may have to be issued or withdrawn."""

from collections.abc import Iterable

from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service.db.tables import StatementDue


def note(session: Session, items: Iterable[int]) -> None:
    """In the caller's transaction, so that none is forgotten; what waits with a problem is tried
    again.

    Most policies send no statements; the chore then takes these away again.
    """
    rows = [{"item_id": item} for item in sorted(set(items))]
    if rows:
        new = upsert(StatementDue)
        session.execute(
            new.on_conflict_do_update(index_elements=["item_id"], set_={"problem": None}), rows
        )
