"""Exports the ledger to one plain file that can be verified without a database.

Each line is canonical JSON, so that there is one way to write a ledger, and no byte of it that
could be another without somebody noticing:

    {"format": …, "keys": […], "origin": …, "size": …}           the header
    {"entry": …, "hash": …, "payload": …, "position": …}         every sealed entry, in order
    {"checkpoint": …}                                            after the last entry it is over
    {"entry": …, "payload": …}                                   entries that are not sealed yet
    {"sha256": …}                                                of everything before

`entry` is what the tree is built over and `hash` that leaf's; a payload is null once it is erased.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, BinaryIO

from sqlalchemy import text
from sqlalchemy.orm import Session

from filter_service.canonical import canonical
from filter_service.db.session import Sessions
from filter_service.errors import BrokenLedger
from filter_service.ledger.entry_stream import CHUNK, StoredEntry, between, query, waiting
from filter_service.ledger.merkle import leaf_hash
from filter_service.ledger.notes import VerifyingKey

FORMAT = "filter-service ledger 1"

_SIGNERS = "SELECT vkey FROM ledger_signers ORDER BY id"
_SIZE = "SELECT coalesce(max(size), 0) FROM ledger_checkpoints"
_CHECKPOINTS = """
    SELECT size, note FROM ledger_checkpoints WHERE size > %s AND size <= %s ORDER BY size
"""


def write_export(
    sessions: Sessions,
    file: BinaryIO,
    tell: Callable[[int, int], object] = lambda done, all_: None,
) -> int:
    """Write everything that is sealed or waits, as it is at one moment: how many entries."""
    digest, entries = sha256(), 0
    with sessions() as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        for line in _lines(session, tell):
            data = f"{canonical(line)}\n".encode()
            digest.update(data)
            file.write(data)
            entries += "entry" in line
    file.write(f"{canonical({'sha256': digest.hexdigest()})}\n".encode())
    return entries


def _lines(session: Session, tell: Callable[[int, int], object]) -> Iterator[dict[str, Any]]:
    (size,) = query(session, _SIZE)[0]
    keys = [vkey for (vkey,) in query(session, _SIGNERS)]
    origin = VerifyingKey.of(keys[0]).name if keys else None
    yield {"format": FORMAT, "keys": keys, "origin": origin, "size": size}
    for start in range(0, size, CHUNK):
        stop = min(start + CHUNK, size)
        notes = dict(query(session, _CHECKPOINTS, start, stop))
        entries = between(session, start, stop)
        if len(entries) < stop - start:
            raise _broken(f"Only {len(entries)} entries are at the positions {start} to {stop - 1}")
        for end, written in enumerate(entries, start + 1):
            hashed = leaf_hash(_present(written).leaf).hex()
            yield {**written.document, "hash": hashed, "position": written.position}
            if end in notes:
                yield {"checkpoint": notes[end]}
        tell(stop, size)
    for some in waiting(session):
        yield from (_present(written).document for written in some)


def _present(written: StoredEntry) -> StoredEntry:
    if written.event is None:
        raise _broken(f"E{str(written)[1:]} was deleted")
    return written


def _broken(what: str) -> BrokenLedger:
    return BrokenLedger(f"{what}: run `filter-service audit verify`, which names everything.")
