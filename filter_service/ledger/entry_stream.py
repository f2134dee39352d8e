"""Streams ledger entries in the order of the tree, a million of them in a few seconds.

It goes past SQLAlchemy to the driver, and makes a leaf's bytes without a dictionary on the way.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import psycopg
from sqlalchemy.orm import Session

from filter_service.canonical import canonical

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
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # Postgres counts its microseconds from here


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
    def entry(self) -> Any:  # noqa: ANN401  (what JSON holds)
        """The columns that the tree is built over."""
        return json.loads(leaf_of(*self[1:7]))

    @property
    def payload(self) -> dict[str, str] | None:
        """What the commitment is of, to be written down elsewhere."""
        if self.salt is None:
            return None
        return {"actor": self.actor, "details": self.details, "salt": self.salt.hex()}

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


def leaf_of(
    entry_id: int,
    at: bytes,
    event: str | None,
    item_id: int | None,
    batch: str | None,
    commitment: bytes,
) -> bytes:
    """The same bytes as `entries.leaf` makes, of what the driver gives."""
    return (
        f'{{"at":"{_moment(at)}","batch":{_quoted(batch)},"commitment":"{commitment.hex()}",'
        f'"event":{_name(event)},"id":{entry_id},"item":{"null" if item_id is None else item_id}}}'
    ).encode()


def payload_of(actor: str, details: str) -> bytes:
    """The same bytes as `entries.payload` makes."""
    return f'{{"actor":{_name(actor)},"details":{details}}}'.encode()


def moment(at: bytes) -> datetime:
    """A moment that the driver gave as it came; the last one there is, for what is beyond."""
    try:
        return _EPOCH + timedelta(microseconds=int.from_bytes(at, signed=True))
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _moment(at: bytes) -> str:
    seconds, rest = divmod(int.from_bytes(at, signed=True), 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(1024)
def _second(seconds: int) -> str:
    try:
        return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    except OverflowError:  # 'infinity', say: nothing that was ever sealed
        return f"{seconds} seconds after 2000"


def _quoted(batch: str | None) -> str:
    return "null" if batch is None else f'"{batch}"'


@lru_cache(4096)
def _name(text: str | None) -> str:
    return canonical(text)


def _rows(session: Session, sql: str, *parameters: object) -> list[StoredEntry]:
    return [StoredEntry._make(row) for row in query(session, sql, *parameters)]


def _cursor(session: Session) -> psycopg.Cursor[tuple[Any, ...]]:
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor(binary=True)
