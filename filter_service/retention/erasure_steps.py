"""What an erasure removes or blanks, table by table."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import delete, exists, func, select, text, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.calibration import labels
from filter_service.db.tables import (
    Fetch,
    ItemAttribute,
    QueueEntry,
    ReviewCase,
    ShadowFlag,
    StatementDue,
    StoredImage,
    StoredStatement,
)
from filter_service.ledger import Entry, Event
from filter_service.retention.retention_rules import RetainedPart
from filter_service.retention.targets import Target
from filter_service.verdicts import Verdict

SOURCE = ""  # in place of a file's name or address
REASON = "erased"  # in place of why an item is undetermined
Step = Callable[[Session, Target], int]  # -> how many rows were removed or blanked


def _rows(table: Any) -> Step:  # noqa: ANN401  (a table with a column item_id)
    """Delete the rows of the items."""

    def step(session: Session, target: Target) -> int:
        gone = delete(table).where(table.item_id.in_(target.ids)).returning(table.item_id)
        return len(session.scalars(gone).all())

    return step


def _statements_due(session: Session, target: Target) -> int:
    """None is issued any more; one that stands may still have to be withdrawn."""
    stands = exists().where(
        StoredStatement.item_id == StatementDue.item_id, StoredStatement.withdrawn_at.is_(None)
    )
    gone = delete(StatementDue).where(StatementDue.item_id.in_(target.ids), ~stands)
    return len(session.scalars(gone.returning(StatementDue.item_id)).all())


def _words(written: str) -> Step:
    """Blank what people or platforms wrote about the items."""

    def step(session: Session, target: Target) -> int:
        return sum(session.scalar(select(func.erase_words(i, written))) or 0 for i in target.ids)

    return step


def _part(name: str) -> Step:
    """Delete what was computed of the image."""

    def step(session: Session, target: Target) -> int:
        if target.image is None:
            return 0
        forget = text("SELECT forget_image(:image, ARRAY[:part ::varchar])")
        return session.scalar(forget, {"image": target.image.id, "part": name}) or 0

    return step


def _payloads(session: Session, target: Target) -> int:
    return sum(session.scalar(select(func.erase_payloads(i))) or 0 for i in target.ids)


def _list_entries(session: Session, target: Target) -> int:
    """An image that nobody may have any more cannot be looked for either."""
    if target.image is None:
        return 0
    gone: list[int] = session.scalar(select(func.erase_list_entries(target.ids[0]))) or []
    unlisted = [Entry(Event.UNLISTED, target.actor, details={"entry": entry}) for entry in gone]
    ledger.append(session, unlisted)
    return len(gone)


def _labels(session: Session, target: Target) -> int:
    return 0 if target.image is None else labels.forget(session, target.image.id, target.ids)


def _names(session: Session, target: Target) -> int:
    """What came with the items, and what was measured of them."""
    for item in target.items:
        item.source, item.margin, item.probability, item.content_date = SOURCE, None, None, None
        if item.verdict is Verdict.UNDETERMINED:
            item.reason = REASON
    session.flush()
    return len(target.items)


def _image(session: Session, target: Target) -> int:
    if target.image is None:
        return 0
    session.execute(
        update(StoredImage)
        .where(StoredImage.id == target.image.id)
        .values(
            digest=None,
            pdq=None,
            parts_gone=list(RetainedPart),
            bytes_gone_at=func.coalesce(StoredImage.bytes_gone_at, func.now()),
        )
    )
    return 1


STEPS: Mapping[str, Step] = {
    "places in the queue": _rows(QueueEntry),
    "fetches": _rows(Fetch),
    "open cases": _rows(ReviewCase),
    "statements that wait": _statements_due,
    "list entries": _list_entries,  # found by the digest, which is still there
    "payloads of ledger entries": _payloads,
    "reasons and notes of reviews": _words("reviews"),
    "statements of appeals": _words("appeals"),
    "reasons of reports": _words("reports"),
    "contents of webhooks": _words("webhooks"),
    "reasons of legal holds": _words("holds"),
    "explanations": _part("explanations"),
    "embeddings": _part("embeddings"),
    "scores": _part("scores"),
    "labels": _labels,
    "attributes": _rows(ItemAttribute),
    "flags of shadows": _rows(ShadowFlag),
    "file names": _names,
    "digests and perceptual hashes": _image,
}
