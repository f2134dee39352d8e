"""Publishes the sealed ledger outside the database, as a tiled log (C2SP tlog-tiles).

    checkpoint                  the newest
    checkpoints/<size>          every one, kept for good
    tile/<level>/<number>       hashes; with .p/<width> while a tile is not full
    tile/entries/<number>       what the leaves are hashes of, each after its length in two bytes

Whoever has the database could write a whole new tree into it, but not make the two agree.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

from sqlalchemy import or_, select, text, update
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import StoredCheckpoint, StoredSigner
from filter_service.errors import BrokenLedger, StorageUnavailable
from filter_service.ledger.checkpoints import Checkpoint, newest_checkpoint, open_checkpoint
from filter_service.ledger.codec import leaf
from filter_service.ledger.merkle import EMPTY, consistency_proof, leaf_hash, verify_consistency
from filter_service.ledger.notes import split as split_note
from filter_service.ledger.published_store import Outside
from filter_service.ledger.sealer import is_due, seal
from filter_service.ledger.signers import signer_of
from filter_service.ledger.tiles import HASH, WIDTH, Fetch, path, places, reading, stored_tile
from filter_service.settings import Settings

NEWEST = "checkpoint"
NOTHING = Checkpoint("", 0, EMPTY)

_BUNDLES = 32  # of entries that are in memory together
_TILES = 256  # likewise
_AT_ONCE = 100  # checkpoints

_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('filter_service.ledger.publishing'))")

_ENTRIES = text("""
    SELECT id, at, event, item_id, batch_id, commitment
    FROM ledger_sealed JOIN ledger ON id = entry_id
    WHERE position >= :start AND position < :end ORDER BY position
""")


def seal_and_publish(sessions: Sessions, settings: Settings) -> int:
    """Do what is due of both: how many checkpoints were published.

    What is outside is looked at first, so that nothing is signed over a tree that was cut short,
    such as one that came out of an old backup.
    """
    published = publish(sessions, settings.ledger_at)
    while is_due(sessions, settings) and seal_next(sessions, settings):
        published += publish(sessions, settings.ledger_at)
    return published


def seal_next(sessions: Sessions, settings: Settings) -> Checkpoint | None:
    """Sign the next checkpoint on top of what is published; None if nothing waits.

    None, too, while the database and what is outside have not the same newest one, as when
    somebody else publishes it now: so no tree is signed that does not go on from the published.
    """
    outside = Outside(settings.ledger_at)
    signer = signer_of(sessions, settings)
    return seal(sessions, signer, published=lambda s: _published(outside, _vkeys(s)))


def publish(sessions: Sessions, url: str) -> int:
    """Write what is sealed and not yet outside: how many checkpoints.

    Raises BrokenLedger, and publishes nothing more, where the tree does not go on from what is
    outside. An empty folder is filled anew from the beginning.
    """
    outside = Outside(url)
    done = 0
    with sessions.begin() as session:  # it holds a lock, but nothing that others wait for
        if not session.scalar(_LOCK):
            return 0
        vkeys = _vkeys(session)
        last = _published(outside, vkeys)
        _refuse_a_shorter_tree(session, outside, last)
        while waiting := _waiting(session, last.size):
            tile = lru_cache(_TILES)(stored_tile(session))  # read after the checkpoints: as long
            for note in waiting:
                checkpoint, _ = open_checkpoint(note, vkeys)
                _refuse_another_tree(outside, tile, last, checkpoint)
                if checkpoint.size > last.size:
                    _write_tree(session, outside, tile, last.size, checkpoint.size)
                _keep(outside, checkpoint, note)
                if checkpoint.size > last.size:
                    outside.write(NEWEST, note.encode())
                _mark(sessions, checkpoint.size)
                if checkpoint.size > last.size:
                    _forget_partial(outside, last.size, checkpoint.size)
                    last = checkpoint
                done += 1
    return done


def _vkeys(session: Session) -> list[str]:
    return list(session.scalars(select(StoredSigner.vkey)))


def _published(outside: Outside, vkeys: list[str]) -> Checkpoint:
    """The newest checkpoint outside."""
    note = outside.read(NEWEST)
    if note is None:
        return NOTHING
    try:
        return open_checkpoint(note.decode(), vkeys)[0]
    except (UnicodeDecodeError, BrokenLedger) as error:
        raise BrokenLedger(
            f"The checkpoint at {outside.url} is not one of this ledger ({error}): set "
            "FILTER_SERVICE_LEDGER_URL to an empty folder, or find out who changed it."
        ) from error


def _refuse_a_shorter_tree(session: Session, outside: Outside, last: Checkpoint) -> None:
    stored = newest_checkpoint(session)
    newest = stored.size if stored else 0
    if newest < last.size:
        raise BrokenLedger(
            f"The newest checkpoint in the database is over {newest:,} entries, but one over "
            f"{last.size:,} is published at {outside.url}: the database was cut short, or came "
            "out of an old backup. Bring back a newer one."
        )


def _waiting(session: Session, size: int) -> list[str]:
    """The notes of checkpoints that are not outside, or not known to be."""
    notes = select(StoredCheckpoint.note).order_by(StoredCheckpoint.size).limit(_AT_ONCE)
    missing = or_(StoredCheckpoint.published_at.is_(None), StoredCheckpoint.size > size)
    return list(session.scalars(notes.where(missing)))


def _refuse_another_tree(outside: Outside, tile: Fetch, last: Checkpoint, new: Checkpoint) -> None:
    old, new = sorted((last, new), key=lambda checkpoint: checkpoint.size)
    proof = consistency_proof(reading(tile), old.size, new.size)
    try:
        verify_consistency(old.size, old.root, new.size, new.root, proof)
    except BrokenLedger as error:
        raise BrokenLedger(
            f"The ledger does not go on from the checkpoint over {last.size:,} entries at "
            f"{outside.url}. {error} Run `filter-service audit verify`."
        ) from error


def _write_tree(session: Session, outside: Outside, tile: Fetch, old: int, new: int) -> None:
    """Entries and hashes between two sizes, before the checkpoint that speaks of them."""
    first = old // WIDTH * WIDTH  # a bundle that was not full is written again, longer
    for start in range(first, new, _BUNDLES * WIDTH):
        end = min(start + _BUNDLES * WIDTH, new)
        outside.write_all(_bundles(session, tile, start, end))
    outside.write_all(
        (path(level, number, width), tile(level, number)[: width * HASH])
        for level, number, width in places(old, new)
    )


def _bundles(session: Session, tile: Fetch, start: int, end: int) -> Iterator[tuple[str, bytes]]:
    entries = [leaf(*row) for row in session.execute(_ENTRIES, {"start": start, "end": end})]
    for number in range(start // WIDTH, -(-end // WIDTH)):
        at = number * WIDTH - start
        leaves = entries[at : at + WIDTH]
        width = min(WIDTH, end - number * WIDTH)
        if b"".join(map(leaf_hash, leaves)) != tile(0, number)[: width * HASH]:
            raise BrokenLedger(
                f"The entries at the places {number * WIDTH:,} to {number * WIDTH + width - 1:,} "
                "are not those that were sealed. Run `filter-service audit verify`."
            )
        lengths = (struct.pack(">H", len(data)) + data for data in leaves)
        yield path("entries", number, width), b"".join(lengths)


def _keep(outside: Outside, checkpoint: Checkpoint, note: str) -> None:
    """Put a checkpoint where it stays for good; witnesses may have signed the one there."""
    place = f"checkpoints/{checkpoint.size}"
    there = outside.read(place)
    if there is None:
        outside.write(place, note.encode())
    elif split_note(there.decode(errors="replace"))[0] != checkpoint.text:
        raise BrokenLedger(
            f"{outside.url}/{place} is another checkpoint than the database's: one of the two was "
            "changed. Run `filter-service audit verify`."
        )


def _forget_partial(outside: Outside, old: int, new: int) -> None:
    """Delete the narrower tiles of those that are full now, if this account may."""
    kinds: tuple[int | str, ...] = ("entries", 0)
    while old // WIDTH < new // WIDTH:
        for kind in kinds if old % WIDTH else ():
            with suppress(StorageUnavailable):
                outside.delete_folder(f"{path(kind, old // WIDTH, WIDTH)}.p")
        kinds = (int(kinds[-1]) + 1,)
        old, new = old // WIDTH, new // WIDTH


def _mark(sessions: Sessions, size: int) -> None:
    marked = update(StoredCheckpoint).where(StoredCheckpoint.size == size)
    with sessions.begin() as session:
        session.execute(marked.values(published_at=text("now()")))
