"""Closes batches whose submission was cut short, so that they can finish."""

import logging
import uuid
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, IdempotencyKey, Item, LedgerRow

QUIET = timedelta(hours=1)  # in which nothing has happened to a batch: nobody adds to it any more
AT_ONCE = 100  # batches closed in one go

logger = logging.getLogger(__name__)


def close(session: Session, batch: uuid.UUID) -> int:
    """Let a batch hold what it has; how many items those are."""
    counted = select(func.count()).select_from(Item).where(Item.batch_id == batch)
    total = session.scalar(counted) or 0
    session.execute(update(Batch).where(Batch.id == batch).values(total=total))
    return total


def close_abandoned(sessions: Sessions, limit: int = AT_ONCE) -> int:
    """Close batches whose submitter was killed; how many.

    What may be sent again under its idempotency key stays open as long as the key is kept. Should
    somebody be that slow and still be at it, its end sets the right total.
    """
    last = (
        select(LedgerRow.at)
        .where(LedgerRow.batch_id == Batch.id)
        .order_by(LedgerRow.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    repeatable = select(IdempotencyKey.key).where(IdempotencyKey.batch_id == Batch.id)
    abandoned = select(Batch.id).where(
        Batch.announced_at.is_(None),
        Batch.total.is_(None),
        Batch.submitted_at < func.now() - QUIET,
        func.coalesce(last, Batch.submitted_at) < func.now() - QUIET,
        ~repeatable.exists(),
    )
    with sessions.begin() as session:
        found = session.scalars(abandoned.limit(limit).with_for_update(skip_locked=True)).all()
        for batch in found:
            total = close(session, batch)
            logger.warning("Batch %s was cut short: it is closed with %d files.", batch, total)
    return len(found)
