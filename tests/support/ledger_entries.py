"""Ledger entries for tests, and a slow reference implementation of the tree's root."""

from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

from sqlalchemy import select

from filter_service import ledger
from filter_service.canonical import canonical
from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerRow, SealedEntry, StoredCheckpoint, Tile, UnsealedEntry
from filter_service.ledger import Entry, Event
from filter_service.ledger.checkpoints import open_checkpoint
from filter_service.ledger.signers import known, who_signs


def append(sessions: Sessions, n: int = 1, event: Event = Event.JUDGED) -> None:
    """Some entries that happened to nothing in particular."""
    with sessions.begin() as session:
        ledger.append(session, [Entry(event, "worker", item_id=i) for i in range(n)])


def leaf_of_columns(
    entry_id: int, at: datetime, event: str, item: int | None, batch: UUID | None, commitment: bytes
) -> bytes:
    """A leaf as the documents define it: canonical JSON of every column."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    columns = {
        "at": moment,
        "batch": batch and str(batch),
        "commitment": commitment.hex(),
        "event": event,
        "id": entry_id,
        "item": item,
    }
    return canonical(columns).encode()


def root_over(leaves: list[bytes]) -> bytes:
    """The root as RFC 9162, section 2.1.1, defines it, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\1" + root_over(leaves[:k]) + root_over(leaves[k:])).digest()


def sealed_leaves(sessions: Sessions) -> list[bytes]:
    """What is sealed, in order; no place is left out."""
    row = LedgerRow
    columns = (row.id, row.at, row.event, row.item_id, row.batch_id, row.commitment)
    statement = select(SealedEntry.position, *columns).join_from(SealedEntry, LedgerRow)
    with sessions.begin() as session:
        rows = session.execute(statement.order_by(SealedEntry.position)).all()
    assert [position for position, *_ in rows] == list(range(len(rows)))
    return [
        leaf_of_columns(entry_id, at, event, item, batch, bytes.fromhex(commitment))
        for _, entry_id, at, event, item, batch, commitment in rows
    ]


def check_tree(sessions: Sessions) -> list[int]:
    """Every entry is sealed or waits, every checkpoint is right: the checkpoints' sizes."""
    leaves = sealed_leaves(sessions)
    with sessions.begin() as session:
        keys = known(session)
        checkpoints = session.scalars(select(StoredCheckpoint).order_by(StoredCheckpoint.size))
        before, sizes = 0, []
        for stored in checkpoints:
            checkpoint, opened = open_checkpoint(stored.note, [key.vkey for key in keys])
            assert (stored.size, bytes.fromhex(stored.root)) == (checkpoint.size, checkpoint.root)
            assert checkpoint.root == root_over(leaves[: checkpoint.size])
            assert set(opened.verified) == set(who_signs(keys, before, checkpoint.size))
            before = checkpoint.size
            sizes.append(before)
        waiting = set(session.scalars(select(UnsealedEntry.entry_id)))
        sealed = set(session.scalars(select(SealedEntry.entry_id)))
        assert waiting | sealed == set(session.scalars(select(LedgerRow.id)))
        assert not waiting & sealed
        tiles = session.scalars(select(Tile).where(Tile.level == 0).order_by(Tile.number))
        assert b"".join(tile.hashes for tile in tiles) == b"".join(root_over([x]) for x in leaves)
    assert before == len(leaves)
    return sizes
