"""Verifies ledger entries against the stored tiles, and names those that differ."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf

from sqlalchemy.orm import Session

from filter_service.ledger.entry_stream import query
from filter_service.ledger.merkle import EMPTY, root_of_hashes
from filter_service.ledger.tiles import HASH, WIDTH, places
from filter_service.ledger.verification.contents import EntryContents
from filter_service.ledger.verification.published_log import PublishedLog
from filter_service.ledger.verification.verification_report import Faults

_LEAVES = "SELECT number, hashes FROM ledger_tiles WHERE level = 0 AND number BETWEEN %s AND %s"
_TILE = "SELECT hashes FROM ledger_tiles WHERE level = %s AND number = %s"
_COUNTS = "SELECT level, count(*) FROM ledger_tiles GROUP BY level"

CHANGED = "its id, time, event, item or batch was changed, or another was put in its place"


class Tiles:
    """Compares entries with the hashes that were stored when they were sealed."""

    def __init__(
        self, session: Session, faults: Faults, published: PublishedLog | None, size: int
    ) -> None:
        self._session = session
        self._faults = faults
        self._published = published
        self._size = size
        self._above: list[tuple[int, list[bytes]]] = []  # the tile that grows, by level from 1 on

    def settle(self, start: int, entries: Sequence[EntryContents | None]) -> list[bytes]:
        """What was sealed at positions from `start` on, given what is there now."""
        first, last = start // WIDTH, (start + len(entries) - 1) // WIDTH
        stored = dict(query(self._session, _LEAVES, first, last))
        settled: list[bytes] = []
        for number in range(first, last + 1):
            part = entries[number * WIDTH - start : (number + 1) * WIDTH - start]
            leaves = [None if seen is None else seen.leaf for seen in part]
            tile = stored.get(number, b"")
            hashes = [leaf for leaf in leaves if leaf is not None]
            if len(hashes) < len(leaves) or tile != b"".join(hashes):
                hashes = list(self._differing(number, part, tile))
            for position, seen in enumerate(part, number * WIDTH):
                if seen is not None and not seen.fits and seen.leaf == hashes[position % WIDTH]:
                    self._faults.add(
                        2,
                        position,
                        f"The payload of {seen.written} at position {position} is not what it "
                        "committed to: its salt, actor or details were changed.",
                    )
            settled += hashes
            if len(hashes) == WIDTH:
                self._push(0, root_of_hashes(hashes))
        return settled

    def finish(self) -> None:
        """Compare the right edge, and look for tiles that are missing or too many."""
        for level, (number, hashes) in enumerate(self._above, 1):
            if hashes:
                self._compare(level, number, hashes)
        there = dict(query(self._session, _COUNTS))
        due = Counter(place.level for place in places(0, self._size))
        for level in sorted(there.keys() | due.keys()):
            if there.get(level) != due[level]:
                self._faults.add(
                    4,
                    inf,
                    f"Level {level} of the tree has {there.get(level, 0):,} tiles, but "
                    f"{due[level]:,} belong there.",
                )

    def _differing(
        self, number: int, part: Sequence[EntryContents | None], tile: bytes
    ) -> Iterator[bytes]:
        """Name what is wrong in a tile; the hashes that were sealed, as well as can be known."""
        outside = self._published.tile(number) if self._published else b""
        for place, seen in enumerate(part):
            position, leaf = number * WIDTH + place, seen and seen.leaf
            stored, published = _at(tile, place), _at(outside, place)
            truth = published or stored or leaf or EMPTY
            if leaf != truth:
                self._faults.add(1, position, _broken(position, seen, outside or tile))
            if stored != truth:
                of = f", of {seen.written}" if seen else ""
                self._faults.add(
                    4,
                    position,
                    f"Tile {number} of level 0 does not have the hash that was sealed at position "
                    f"{position}{of}: it was changed."
                    if stored
                    else f"Tile {number} of level 0 has no hash for position {position}{of}: it "
                    "was cut short, or the entry was put there behind the sealer's back.",
                )
            yield truth
        if len(tile) > len(part) * HASH:
            self._faults.add(
                4,
                number * WIDTH + len(part),
                f"Tile {number} of level 0 has {len(tile) // HASH} hashes, but only {len(part)} "
                "entries are sealed there: the others were deleted.",
            )

    def _push(self, level: int, hashed: bytes) -> None:
        """A tile is full: its root goes into the tile above."""
        if level == len(self._above):
            self._above.append((0, []))
        number, hashes = self._above[level]
        hashes.append(hashed)
        if len(hashes) == WIDTH:
            self._compare(level + 1, number, hashes)
            self._above[level] = number + 1, []
            self._push(level + 1, root_of_hashes(hashes))

    def _compare(self, level: int, number: int, hashes: Sequence[bytes]) -> None:
        found = query(self._session, _TILE, level, number)
        if not found or found[0][0] != b"".join(hashes):
            width = WIDTH**level
            start = number * WIDTH * width
            self._faults.add(
                4,
                start,
                f"Tile {number} of level {level}, over the positions {start} to "
                f"{start + len(hashes) * width - 1}, "
                f"{'does not follow from the entries: it was changed' if found else 'is gone'}.",
            )


def _broken(position: int, seen: EntryContents | None, tile: bytes) -> str:
    """What is to be said of a position whose entry is not the one that was sealed there."""
    if seen is None:
        return f"Nothing is sealed at position {position} any more: its row was deleted."
    if seen.leaf is None:
        return f"Position {position} is that of {seen.written}: it was deleted from the ledger."
    why = CHANGED if seen.fits else "its commitment was changed"
    found = tile.find(seen.leaf)
    if found >= 0 and found % HASH == 0:
        why = f"it was sealed at position {position - position % WIDTH + found // HASH}"
    return f"{_capital(seen)} is not what was sealed at position {position}: {why}."


def _capital(seen: EntryContents) -> str:
    return f"E{str(seen.written)[1:]}"


def _at(tile: bytes, place: int) -> bytes | None:
    hashed = tile[place * HASH : (place + 1) * HASH]
    return hashed if len(hashed) == HASH else None
