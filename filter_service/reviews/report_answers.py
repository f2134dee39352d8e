"""Closes reports with their answer."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.tables import Item, Report
from filter_service.ledger import Entry, Event
from filter_service.verdicts import Verdict
from filter_service.webhooks import EventType, announce


def answer(
    session: Session,
    pictures: Sequence[ColumnElement[bool]],
    final: Verdict,
    actor: str,
    review_id: int | None = None,
) -> None:
    """Close the open reports of some items, and tell whoever submitted them."""
    closed = (
        update(Report)
        .where(Report.item_id == Item.id, Report.closed_at.is_(None), *pictures)
        .values(closed_at=func.now(), final=final.value, review_id=review_id)
        .returning(
            *(Report.id, Report.source, Report.reference, Item.id, Item.batch_id, Item.source)
        )
        .execution_options(synchronize_session=False)
    )
    for report, source, reference, item, batch, file in session.execute(closed).all():
        about = {"report": str(report), "final": final}
        ledger.append(session, [Entry(Event.REPORT_CLOSED, actor, item, batch, about)])
        message = {
            **{"item": item, "batch": str(batch), "source": file, **about},
            **{"reported_as": source, "reference": reference},
        }
        announce(session, EventType.REPORT_CLOSED, f"item {item}", message, item, batch)
