"""Reads an item's whole history, from tables and ledger, in one transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.audit.record import stored_sections
from filter_service.audit.record.log_positions import LogPosition, places_of
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, LedgerEntry, StoredCheckpoint, StoredImage
from filter_service.errors import UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.ledger.checkpoints import newest_checkpoint


@dataclass(frozen=True, slots=True)
class ItemHistory:
    """Everything about one item."""

    item: Item
    image: StoredImage | None
    batch: Batch
    judged: stored_sections.Judgement
    people: stored_sections.People
    notified: tuple[stored_sections.NotificationSection, ...]
    keeping: stored_sections.Keeping
    entries: tuple[LedgerEntry, ...]  # oldest first
    places: dict[int, LogPosition]  # by entry
    checkpoint: StoredCheckpoint | None
    read_at: datetime

    def of(self, *events: Event) -> list[LedgerEntry]:
        """The entries of some kinds, oldest first."""
        return [e for e in self.entries if e.event in events]

    def last(self, *events: Event) -> LedgerEntry | None:
        """The last of them."""
        return next(reversed(self.of(*events)), None)

    def erased(self, entry: LedgerEntry) -> bool:
        """Whether what an entry said is gone, and a later one says that it was erased."""
        last = self.last(Event.ERASED)
        gone = self.places[entry.id].payload is None
        return gone and last is not None and last.id > entry.id

    @property
    def waiting(self) -> int:
        """Entries that are not sealed yet."""
        return sum(place.inclusion is None for place in self.places.values())


def read(
    sessions: Sessions,
    item_id: int,
    actor: str,
    form: str,
    allow: Callable[[Session], object] = lambda session: None,
) -> ItemHistory:
    """The record of an item, and an entry that says who read it, as a page or as a file.

    `allow` may refuse, in the same transaction. Raises UnknownItem.
    """
    with sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        allow(session)
        item = session.get(Item, item_id)
        if item is None:
            raise UnknownItem(f"There is no item {item_id}: the items of a batch name theirs.")
        reading = Entry(Event.RECORD_READ, actor, item_id, item.batch_id, {"as": form})
        ledger.append(session, [reading])
        return history_of(session, item)


def history_of(session: Session, item: Item) -> ItemHistory:
    """The record of an item, in the caller's transaction."""
    batch = session.get_one(Batch, item.batch_id)
    entries = ledger.of_item(session, item.id)
    return ItemHistory(
        item=item,
        image=None if item.image_id is None else session.get(StoredImage, item.image_id),
        batch=batch,
        judged=stored_sections.judgement(session, item, batch),
        people=stored_sections.people_of(session, item.id),
        notified=stored_sections.notified(session, item.id),
        keeping=stored_sections.keeping(session, item),
        entries=tuple(entries),
        places=places_of(session, [e.id for e in entries]),
        checkpoint=newest_checkpoint(session),
        read_at=session.scalars(select(func.now())).one(),
    )
