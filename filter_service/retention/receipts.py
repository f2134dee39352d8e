"""Receipts of erasures: what was erased, what stays and why, with the ledger's entries."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Erasure, Item, LedgerRow, SealedEntry, StoredCheckpoint
from filter_service.errors import UnknownEntry
from filter_service.ledger import Event

STAYS = (
    "The ledger's entries, without their payloads: time, event, the numbers of item and batch, and "
    "a commitment, which says nothing about what it committed to now that its salt is gone. The "
    "tree over them is whole, so that nobody can hide by erasing that something was decided.",
    "The items' verdicts, classes and decisions: they are counted in reports, and name no image.",
    "Statements of reasons and the notices of them: they were checked against personal data when "
    "they were issued, and prove that somebody was told.",
    "The image's number and its size in bytes.",
    "For a client that asked: the same image as far as others submitted it, too. It is theirs, and "
    "no client is told whether there are such.",
    "Explanations of other images, which may name this one's digest as the nearest with the other "
    "answer; and what somebody typed who searched for the digest itself, or listed it before the "
    "image came, with their reason. It is a number that leads to nothing here.",
    "Backups and the database's own log of writes, for as long as their keeper keeps them.",
)
NONE = "there were none"
ERASED = ("to be erased for this client", "erased for this client")  # not yet, done
# What is removed with an image, but stays while others' items are of it.
OF_THE_IMAGE = frozenset({"list entries", "embeddings", "scores", "digests and perceptual hashes"})


@dataclass(frozen=True, slots=True)
class Mention:
    """The ledger's entry about the erasure of one item, and the checkpoint that first covers it."""

    entry: int
    item: int
    checkpoint: int | None  # size of the tree; None: it is not sealed yet
    root: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a request to erase."""

    id: uuid.UUID
    item: int
    image: int | None
    items: tuple[int, ...]  # all that the image came with
    reason: str
    requested_by: str
    requested_at: datetime
    done_at: datetime | None  # None: the storage has not answered yet
    bytes: str
    size: int
    removed: dict[str, int]
    stays: tuple[str, ...]
    mentions: tuple[Mention, ...]
    blanked: tuple[int, ...]  # entries of the ledger whose payloads are gone

    @property
    def json(self) -> dict[str, Any]:
        """For programs."""
        told = asdict(self) | {"id": str(self.id), "requested_at": self.requested_at.isoformat()}
        return told | {"done_at": self.done_at and self.done_at.isoformat()}


def receipt(sessions: Sessions, erasure_id: uuid.UUID, scope: Scope = OPERATOR) -> Receipt:
    """As far as it is about the scope's items; raises UnknownEntry if none is."""
    with sessions.begin() as session:
        row = session.get(Erasure, erasure_id)
        content = (row.receipt if row else None) or {}
        own = select(Item.id).where(
            Item.id.in_(content.get("items", ())), scope.has(Item.client_id)
        )
        items = tuple(session.scalars(own.order_by(Item.id)))
        if row is None or not items:
            raise UnknownEntry(f"There is no receipt {erasure_id}: list the erasures.")
        whole = _whole(session, row, content)
        return whole if scope.everyone else _own(session, whole, items, content, scope)


def _whole(session: Session, row: Erasure, content: dict[str, Any]) -> Receipt:
    return Receipt(
        id=row.id,
        item=row.item_id,
        image=row.image_id,
        items=tuple(content["items"]),
        reason=row.reason,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        done_at=row.done_at,
        bytes=content["bytes"],
        size=content["size"],
        removed=content["removed"],
        stays=STAYS,
        mentions=_mentions(session, content["items"]),
        blanked=tuple(content["blanked"]),
    )


def _own(
    session: Session, whole: Receipt, items: tuple[int, ...], content: dict[str, Any], scope: Scope
) -> Receipt:
    """What a client may know: it reads the same whether or not others had the image, too."""
    entries = select(LedgerRow.id).where(
        LedgerRow.id.in_(whole.blanked), LedgerRow.item_id.in_(items)
    )
    blanked = tuple(session.scalars(entries.order_by(LedgerRow.id)))
    counts = {"payloads of ledger entries": len(blanked), "file names": len(items)}
    if content.get("client") == scope.client_id:
        counts = {n: count for n, count in whole.removed.items() if n not in OF_THE_IMAGE}
    asked = whole.item in items
    return replace(
        whole,
        item=whole.item if asked else items[0],
        image=None,
        items=items,
        reason=whole.reason if asked else "",
        requested_by=whole.requested_by if asked else "the operator",
        bytes=whole.bytes if whole.bytes == NONE else ERASED[whole.done_at is not None],
        removed=counts,
        mentions=tuple(m for m in whole.mentions if m.item in items),
        blanked=blanked,
    )


def erasures(
    sessions: Sessions, after: tuple[datetime, uuid.UUID] | None = None, limit: int = 50
) -> list[Erasure]:
    """Newest first; give the last one's time and id as `after` for those that follow."""
    query = select(Erasure)
    if after is not None:
        query = query.where(tuple_(Erasure.requested_at, Erasure.id) < after)
    newest = query.order_by(Erasure.requested_at.desc(), Erasure.id.desc()).limit(limit)
    with sessions.begin() as session:
        return list(session.scalars(newest))


def as_text(whole: Receipt) -> str:
    """For people, and for a letter to whoever asked."""
    done = whole.done_at and f"complete since {_moment(whole.done_at)}"
    lines = [
        f"Receipt {whole.id}",
        f"Requested by {whole.requested_by} on {_moment(whole.requested_at)}: {whole.reason}",
        f"State: {done or 'its bytes are deleted as soon as the storage answers'}",
        f"Item {whole.item}"
        + (f", image {whole.image}" if whole.image else ", which never had an image")
        + (f", in {len(whole.items)} items: {_numbers(whole.items)}" if whole.items[1:] else ""),
        "",
        "Removed",
        f"  the image's file, {whole.size:,} bytes: {whole.bytes}",
        *(f"  {name}: {count}" for name, count in whole.removed.items() if count),
        "",
        "What stays, and why",
        *(f"  - {why}" for why in whole.stays),
        "",
        "In the ledger",
        *(f"  {_mention(m)}" for m in whole.mentions),
        f"  entries without their payloads: {_numbers(whole.blanked) or 'none'}",
    ]
    return "\n".join(lines)


def _mentions(session: Session, items: Sequence[int]) -> tuple[Mention, ...]:
    """The entries that say so, each with the first checkpoint that speaks of it."""
    covering = (
        select(func.min(StoredCheckpoint.size))
        .where(StoredCheckpoint.size > SealedEntry.position)
        .correlate(SealedEntry)
        .scalar_subquery()
    )
    rows = session.execute(
        select(LedgerRow.id, LedgerRow.item_id, StoredCheckpoint.size, StoredCheckpoint.root)
        .outerjoin(SealedEntry, SealedEntry.entry_id == LedgerRow.id)
        .outerjoin(StoredCheckpoint, StoredCheckpoint.size == covering)
        .where(LedgerRow.item_id.in_(items), LedgerRow.event == Event.ERASED.value)
        .order_by(LedgerRow.id)
    )
    return tuple(Mention(e, item or 0, size, root) for e, item, size, root in rows)


def _mention(found: Mention) -> str:
    sealed = f"checkpoint {found.checkpoint}, root {found.root}" if found.root else "not sealed yet"
    return f"entry {found.entry} says that item {found.item} was erased; {sealed}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _numbers(found: Sequence[int]) -> str:
    return ", ".join(map(str, found))
