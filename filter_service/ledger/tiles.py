"""Tiles of the Merkle tree, up to 256 hashes each (C2SP tlog-tiles): reads and extends them.

A tile of level 0 holds leaf hashes, one of level n hashes of full tiles of level n - 1; what lies
between is computed. Only the right edge of a level is ever written again, to make it longer.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from filter_service.db.tables import Tile
from filter_service.errors import BrokenLedger
from filter_service.ledger.merkle import Read, root_of_hashes

HEIGHT = 8  # levels of the tree in one level of tiles
WIDTH = 1 << HEIGHT  # hashes in a full tile
HASH = 32  # bytes

_KEPT = 256  # tiles that a reader remembers: 2 MB

Fetch = Callable[[int, int], bytes]  # level, number -> the hashes of a tile, side by side


class TilePosition(NamedTuple):
    """A tile, as wide as a tree of some size has it."""

    level: int
    number: int
    width: int


def reading(fetch: Fetch) -> Read:
    """Hashes of complete subtrees out of tiles; BrokenLedger where one is too short.

    It remembers tiles, so make one for each look at a tree.
    """
    tile = lru_cache(_KEPT)(fetch)

    def read(level: int, index: int) -> bytes:
        tiled, above = divmod(level, HEIGHT)
        number, offset = divmod(index << above, WIDTH)
        hashes = split(tile(tiled, number))[offset : offset + (1 << above)]
        if len(hashes) < 1 << above:
            raise BrokenLedger(
                f"Tile {number} of level {tiled} of the ledger lacks hash {offset + len(hashes)}: "
                "it was shortened or deleted."
            )
        return root_of_hashes(hashes)

    return read


def stored(session: Session) -> Read:
    """Hashes out of the database."""
    return reading(stored_tile(session))


def stored_tile(session: Session) -> Fetch:
    """Tiles out of the database; an empty one where there is none."""

    def fetch(level: int, number: int) -> bytes:
        hashes = select(Tile.hashes).where(Tile.level == level, Tile.number == number)
        return session.scalar(hashes) or b""

    return fetch


def extend(session: Session, size: int, leaves: Sequence[bytes]) -> None:
    """Add leaf hashes to the stored tiles of a tree of this size."""
    at = [(place.level, place.number) for place in edge(size)]
    found = select(Tile).where(tuple_(Tile.level, Tile.number).in_(at))
    partial = {tile.level: tile.hashes for tile in session.scalars(found)}
    new = insert(Tile)
    longer = new.on_conflict_do_update(
        index_elements=[Tile.level, Tile.number], set_={"hashes": new.excluded.hashes}
    )
    rows = [
        {"level": level, "number": number, "hashes": hashes}
        for level, number, hashes in grown(partial, size, leaves)
    ]
    session.execute(longer, rows)


def grown(
    partial: dict[int, bytes], size: int, leaves: Sequence[bytes]
) -> Iterator[tuple[int, int, bytes]]:
    """Tiles that are new or longer once leaves are added, given the tiles at the right edge."""
    level, before, added = 0, size, list(leaves)
    while added:
        number, width = divmod(before, WIDTH)
        hashes = split(partial.get(level, b""))
        if len(hashes) != width:
            raise BrokenLedger(
                f"Tile {number} of level {level} of the ledger has {len(hashes)} hashes, but a "
                f"tree of {size:,} leaves has {width} there: it was changed."
            )
        hashes += added
        tiles = [hashes[at : at + WIDTH] for at in range(0, len(hashes), WIDTH)]
        for beyond, tile in enumerate(tiles):
            yield level, number + beyond, b"".join(tile)
        added = [root_of_hashes(tile) for tile in tiles if len(tile) == WIDTH]
        level, before = level + 1, before // WIDTH


def edge(size: int) -> Iterator[TilePosition]:
    """The tiles of a tree that are not full."""
    level, hashes = 0, size
    while hashes:
        number, width = divmod(hashes, WIDTH)
        if width:
            yield TilePosition(level, number, width)
        level, hashes = level + 1, number


def places(old: int, new: int) -> Iterator[TilePosition]:
    """The tiles that are new or wider in a tree of `new` leaves, which had `old` before."""
    level = 0
    while old < new:
        for number in range(old // WIDTH, -(-new // WIDTH)):
            yield TilePosition(level, number, min(WIDTH, new - number * WIDTH))
        level, old, new = level + 1, old // WIDTH, new // WIDTH


def path(kind: int | str, number: int, width: int) -> str:
    """Where a tile is published (`kind` is its level), or a bundle of "entries"."""
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    *first, last = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    folder = "".join(f"x{part}/" for part in first)
    return f"tile/{kind}/{folder}{last}" + ("" if width == WIDTH else f".p/{width}")


def split(hashes: bytes) -> list[bytes]:
    """The single hashes of a tile."""
    return [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]
