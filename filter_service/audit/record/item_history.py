"""Reads an item's whole history, from tables and ledger, in one transaction."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.audit.record import stored_sections
from filter_service.audit.record.log_positions import LogPosition, places_of
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, LedgerEntry, StoredCheckpoint, StoredImage
from filter_service.errors import UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.ledger.checkpoints import newest_checkpoint
from filter_service.reviews import restricted
from filter_service.reviews.influential_labels import InfluentialLabels, influential_labels


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
    # By class that it was judged for: the reviews that made its probability.
    influences: Mapping[str, InfluentialLabels]

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
    seen: ColumnElement[bool] | None = None,
) -> ItemHistory:
    """The record of an item, and an entry that says who read it, as a page or as a file.

    `allow` may refuse, in the same transaction; `seen` are the other items that may be named, None:
    all that are not locked away. Raises UnknownItem.
    """
    with sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        allow(session)
        item = session.get(Item, item_id)
        if item is None:
            raise UnknownItem(f"There is no item {item_id}: the items of a batch name theirs.")
        reading = Entry(Event.RECORD_READ, actor, item_id, item.batch_id, {"as": form})
        ledger.append(session, [reading])
        return history_of(session, item, seen)


def history_of(
    session: Session, item: Item, seen: ColumnElement[bool] | None = None
) -> ItemHistory:
    """The record of an item, in the caller's transaction."""
    batch = session.get_one(Batch, item.batch_id)
    entries = ledger.of_item(session, item.id)
    judged = stored_sections.judgement(session, item, batch)
    named = ~restricted.is_locked(Item.image_id) if seen is None else seen
    return ItemHistory(
        item=item,
        image=None if item.image_id is None else session.get(StoredImage, item.image_id),
        batch=batch,
        judged=judged,
        people=stored_sections.people_of(session, item.id),
        notified=stored_sections.notified(session, item.id),
        keeping=stored_sections.keeping(session, item),
        entries=tuple(entries),
        places=places_of(session, [e.id for e in entries]),
        checkpoint=newest_checkpoint(session),
        read_at=session.scalars(select(func.now())).one(),
        influences=dict(_influences(session, item, judged, named)),
    )


def _influences(
    session: Session, item: Item, judged: stored_sections.Judgement, seen: ColumnElement[bool]
) -> Iterator[tuple[str, InfluentialLabels]]:
    names = {e.class_name for e in judged.explanations} | {judged.class_name}
    for score in judged.scores:
        forbidden = judged.forbidden(score.class_name)
        if score.class_name in names and forbidden is not None:
            found = influential_labels(session, item, forbidden, score.margin, seen)
            if found is not None:
                yield score.class_name, found
