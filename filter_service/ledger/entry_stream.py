"""Streams ledger entries in the order of the tree, a million of them in a few seconds.

It goes past SQLAlchemy to the driver.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from sqlalchemy.orm import Session

from filter_service.ledger.codec import EPOCH, Payload, document, leaf

CHUNK = 64 * 256  # entries at once: whole tiles, some MB

_COLUMNS = """
    chosen.entry_id, timestamptz_send(l.at), l.event, l.item_id, l.batch_id::text, l.commitment,
    p.salt, p.actor, p.details::text
"""
_JOINED = """
    LEFT JOIN ledger l ON l.id = chosen.entry_id
    LEFT JOIN ledger_payloads p ON p.entry_id = chosen.entry_id
"""
_SEALED = f"""
    SELECT chosen.position, {_COLUMNS} FROM (
        SELECT position, entry_id FROM ledger_sealed WHERE position >= %s AND position < %s
    ) chosen {_JOINED} ORDER BY chosen.position
"""
_WAITING = f"""
    SELECT NULL, {_COLUMNS} FROM (
        SELECT entry_id FROM ledger_unsealed WHERE entry_id > %s ORDER BY entry_id LIMIT %s
    ) chosen {_JOINED} ORDER BY chosen.entry_id
"""
_OF_ITEM = f"""
    SELECT s.position, {_COLUMNS} FROM (SELECT id AS entry_id FROM ledger WHERE item_id = %s) chosen
    {_JOINED} LEFT JOIN ledger_sealed s ON s.entry_id = chosen.entry_id ORDER BY chosen.entry_id
"""


class StoredEntry(NamedTuple):
    """An entry with its place and its payload, as the database holds them."""

    position: int | None  # None: it waits
    entry_id: int
    at: bytes  # microseconds
    event: str | None  # None: the place names an entry that is not there
    item_id: int | None
    batch: str | None
    commitment: bytes
    salt: bytes | None  # None: it has no payload
    actor: str
    details: str

    @property
    def leaf(self) -> bytes:
        """What the tree is built over."""
        at = int.from_bytes(self.at, signed=True)
        return leaf(self.entry_id, at, self.event, self.item_id, self.batch, self.commitment)

    @property
    def payload(self) -> Payload | None:
        """What the commitment is of; None once it is erased."""
        return None if self.salt is None else Payload(self.actor, self.details, self.salt)

    @property
    def document(self) -> dict[str, Any]:
        """Both, to be written down elsewhere."""
        return document(self.leaf, self.payload)

    def __str__(self) -> str:
        """As reports name it."""
        about = self.event or "no row"
        if self.item_id is not None:
            about += f", item {self.item_id}"
        return f"entry {self.entry_id} ({about})"


def between(session: Session, start: int, stop: int) -> list[StoredEntry]:
    """The entries at positions from `start` to before `stop`, in order."""
    return _rows(session, _SEALED, start, stop)


def waiting(session: Session) -> Iterator[list[StoredEntry]]:
    """Every entry that has no place yet, oldest first, many at once."""
    last = 0
    while rows := _rows(session, _WAITING, last, CHUNK):
        yield rows
        last = rows[-1].entry_id


def history(session: Session, item_id: int) -> list[StoredEntry]:
    """Everything that happened to one item, oldest first."""
    return _rows(session, _OF_ITEM, item_id)


def query(session: Session, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query, by the driver alone."""
    return _cursor(session).execute(sql, parameters).fetchall()


def stream(session: Session, sql: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
    """Its rows one by one, however large they are."""
    yield from _cursor(session).stream(sql, parameters)


def moment(at: bytes) -> datetime:
    """A moment that the driver gave as it came; the last one there is, for what is beyond."""
    try:
        return EPOCH + timedelta(microseconds=int.from_bytes(at, signed=True))
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _rows(session: Session, sql: str, *parameters: object) -> list[StoredEntry]:
    return [StoredEntry._make(row) for row in query(session, sql, *parameters)]


def _cursor(session: Session) -> psycopg.Cursor[tuple[Any, ...]]:
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor(binary=True)
