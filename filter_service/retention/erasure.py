"""Erases an image with all that refers to it or was computed of it, in all its items.

A client erases its own items. Where another client's are of the same image, they are given an empty
one first, and that one is erased: the other's stay as they are, and nobody learns of them.

What is left is that there were such items, how they were judged and decided, and the ledger's
entries, whose payloads are gone. The order is: one transaction with all rows, then the bytes, then
the receipt is complete; whatever is killed in between, the chore `erase` goes on.
"""

import logging
import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, func, insert, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.lease_queue import ITEMS
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Erasure,
    Fetch,
    Item,
    LedgerRow,
    LooseBytes,
    QueueEntry,
    Restriction,
    Review,
    ReviewCase,
    StatementDue,
    StoredImage,
)
from filter_service.errors import Conflict, StorageUnavailable, UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.retention.erasure_steps import STEPS
from filter_service.retention.holds import standing
from filter_service.retention.orphaned_bytes import forget_bytes
from filter_service.retention.reason_text import checked_reason
from filter_service.retention.receipts import NONE, Receipt, receipt
from filter_service.retention.targets import Target, apart
from filter_service.reviews.hash_lists import in_turn
from filter_service.storage import Storage

logger = logging.getLogger(__name__)


def erase(sessions: Sessions, storage: Storage, item_id: int, reason: str, actor: str) -> Receipt:
    """Erase an item's image in all its items, and its bytes if the storage answers."""
    erasure_id = request(sessions, item_id, reason, actor)
    with sessions.begin() as session:
        digest = session.scalar(select(Erasure.digest).where(Erasure.id == erasure_id))
    if digest is not None:
        try:
            forget_bytes(sessions, storage, digest)
        except StorageUnavailable as error:
            logger.warning("The bytes are deleted later. %s", error)
    return receipt(sessions, erasure_id)


def request(
    sessions: Sessions,
    item_id: int,
    reason: str,
    actor: str,
    scope: Scope = OPERATOR,
) -> uuid.UUID:
    """Erase all rows that the scope has, and leave the bytes to the chore; -> the receipt's id.

    Asking again gives the same receipt. Raises UnknownItem; Conflict for what is held, preserved,
    under appeal, or just being judged or decided.
    """
    reason = checked_reason(reason)
    with sessions.begin() as session:
        in_turn(session)  # before the image's row: who changes a list refers to images under it
        target, done = _lock(session, item_id, actor, scope)
        if done is not None:
            return done
        _require_free(session, target)
        return _erase(session, target, reason)


def _lock(
    session: Session, item_id: int, actor: str, scope: Scope = OPERATOR
) -> tuple[Target, uuid.UUID | None]:
    """What is to be erased, and the earlier erasure of it; nobody adds to it from here on.

    The image's row is waited for; what others may hold while they wait for it is not.
    """
    item = session.scalar(select(Item).where(Item.id == item_id, scope.has(Item.client_id)))
    if item is None:
        raise UnknownItem(f"There is no item {item_id}: check the id.")
    image, same = None, Item.id == item_id
    before = Erasure.item_id == item_id
    if item.image_id is not None:
        image = session.get_one(StoredImage, item.image_id, with_for_update=True)
        same, before = Item.image_id == image.id, Erasure.image_id == image.id
    done = session.scalar(select(Erasure.id).where(before).order_by(Erasure.requested_at).limit(1))
    items = select(Item).where(same, scope.has(Item.client_id)).order_by(Item.id)
    if done is None:
        _take(session, items.with_only_columns(Item.id), Item)
    locked = list(session.scalars(items.execution_options(populate_existing=True)))
    if done is None and image is None and any(i.image_id is not None for i in locked):
        raise Conflict(f"The image of item {item_id} has just arrived: try again.")
    all_ids = session.scalars(select(Item.id).where(same)).all()
    return Target(locked, image, actor, item_id, all_ids, scope.owner), done


def _take(session: Session, rows: Select[Any], table: type) -> None:
    """Lock rows that somebody may hold while they wait for us; raises Conflict if so."""
    free = session.execute(rows.with_for_update(skip_locked=True, of=table)).all()
    if len(free) < session.execute(select(func.count()).select_from(rows.subquery())).scalar_one():
        raise Conflict(
            "Somebody is working on this image at this moment: try again in a few seconds."
        )


def _require_free(session: Session, target: Target) -> None:
    """Raises Conflict for what may not be erased, or not now.

    A hold and a time of preservation are of the image, in all its items.
    """
    ids = target.ids
    if (held := standing(session, target.same)) is not None:
        item = held.item_id if held.item_id in ids else target.asked
        raise Conflict(
            f"Item {item} is under a legal hold since {held.created_at:%Y-%m-%d}: it can "
            "be erased when that is released."
        )
    sealed = select(func.max(Restriction.preserve_until)).where(
        Restriction.item_id.in_(target.same)
    )
    until = session.scalar(sealed.where(Restriction.preserve_until > func.now()))
    if until is not None:
        raise Conflict(
            f"Item {target.asked} has to be preserved until {until:%Y-%m-%d}: ask again then."
        )
    for table in (QueueEntry, Fetch, ReviewCase, Review, StatementDue):
        _take(session, select(table.item_id).where(table.item_id.in_(ids)), table)
    judging = select(QueueEntry.item_id).where(
        QueueEntry.item_id.in_(ids),
        QueueEntry.worker.is_not(None),
        ITEMS.held,
    )
    if (busy := session.scalar(judging.limit(1))) is not None:
        raise Conflict(f"Item {busy} is just being judged: try again in a minute.")
    appealed = select(Appeal.item_id).where(Appeal.item_id.in_(ids), Appeal.closed_at.is_(None))
    if (open_ := session.scalar(appealed.limit(1))) is not None:
        raise Conflict(
            f"An appeal about item {open_} is open and rests on its image: answer it "
            "first, then erase."
        )


def _erase(session: Session, target: Target, reason: str) -> uuid.UUID:
    """Everything that is rows; what was removed is written down in numbers."""
    erasure_id = uuid.uuid4()
    about: dict[str, Any] = {"erasure": str(erasure_id), "reason": reason}
    if target.client is not None:
        about["client"] = target.client
    own = [Entry(Event.ERASED, target.actor, i.id, i.batch_id, about) for i in target.items]
    ledger.append(session, own)
    image = target.image
    digest, size = (image.digest, image.bytes) if image else (None, 0)
    blanked = session.scalars(
        select(LedgerRow.id)
        .where(LedgerRow.item_id.in_(target.ids), LedgerRow.event != Event.ERASED.value)
        .order_by(LedgerRow.id)
    ).all()
    if image is not None and target.shared:
        target = replace(target, image=apart(session, image, target))
    removed = {name: step(session, target) for name, step in STEPS.items()}
    summary = {
        "items": target.ids,
        "client": target.client,
        "shared": target.shared,
        "removed": removed,
        "size": size,
        "bytes": "to be deleted" if digest else NONE,
        "blanked": list(blanked),
    }
    if digest is not None:
        session.execute(insert(LooseBytes).values(digest=digest, due_at=func.now()))
    session.execute(
        insert(Erasure).values(
            id=erasure_id,
            item_id=target.asked,
            image_id=target.image and target.image.id,
            digest=digest,
            reason=reason,
            requested_by=target.actor,
            done_at=None if digest else func.now(),
            receipt=summary,
        )
    )
    return erasure_id
