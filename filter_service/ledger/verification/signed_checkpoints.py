"""Verifies the Merkle tree against stored and published checkpoints."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from heapq import merge
from itertools import groupby
from math import inf

from sqlalchemy.orm import Session

from filter_service.errors import BrokenLedger
from filter_service.ledger.checkpoints import Checkpoint, parse
from filter_service.ledger.entry_stream import between, query, stream
from filter_service.ledger.merkle import Frontier
from filter_service.ledger.notes import split as split_note
from filter_service.ledger.tiles import WIDTH
from filter_service.ledger.tiles import split as split_tile
from filter_service.ledger.verification.keys import Keys
from filter_service.ledger.verification.published_log import PublishedLog
from filter_service.ledger.verification.trusted_checkpoints import TrustedCheckpoints
from filter_service.ledger.verification.verification_report import LISTED, Faults

_SIZES = "SELECT size FROM ledger_checkpoints ORDER BY size"
_CHECKPOINT = "SELECT root, note, published_at IS NOT NULL FROM ledger_checkpoints WHERE size = %s"


class CheckpointVerifier:
    """Grows a tree out of leaf hashes, and compares its root wherever one was signed."""

    def __init__(
        self,
        session: Session,
        faults: Faults,
        keys: Keys,
        published: PublishedLog | None,
        kept: TrustedCheckpoints,
        end: int,
    ) -> None:
        """`end` is how many entries are sealed."""
        self._session = session
        self._faults = faults
        self._keys = keys
        self._published = published
        self._kept = kept
        self._outside = published.sizes if published else array("q")
        self._inside = array("q", (size for (size,) in stream(session, _SIZES)))
        self._end = end
        self._newest = self._read_newest()
        newest = [self._newest[0]] if self._newest else []
        every = array("q", (s for s, _ in groupby(merge(self._inside, self._outside, newest))))
        first, beyond = bisect_right(every, 0), bisect_right(every, end)
        self._sizes = every[first:beyond]
        self._tree = Frontier()
        self._good = Frontier()  # as it was at the last root that was right
        self._since: list[bytes] = []  # leaf hashes from there on
        self._lost = False
        self._name_what_is_cut_off(every[:first] + every[beyond:])

    @property
    def stored(self) -> int:
        """How many checkpoints the database has."""
        return len(self._inside)

    @property
    def published(self) -> int:
        """How many there are outside."""
        return len(self._outside)

    def follow(self, leaves: Sequence[bytes]) -> None:
        """Add leaves, and look at every checkpoint on the way."""
        start, done = self._tree.size, 0
        first = bisect_right(self._sizes, start)
        last = bisect_right(self._sizes, start + len(leaves))
        for number in range(first, last):
            size = self._sizes[number]
            self._grow(leaves[done : size - start])
            done = size - start
            self._check(size, self._sizes[number - 1] if number else 0)
        self._grow(leaves[done:])

    def finish(self) -> None:
        """Name sealed entries that no checkpoint is over, and what was never compared."""
        if self._tree.size != self._end:
            self._faults.add(
                5,
                inf,
                f"Only {self._tree.size} of {self._end} entries could be compared with what was "
                "signed.",
            )
        for sentence in self._kept.beyond(self._end):
            self._faults.add(9, self._end, sentence)
        last = self._inside[-1] if self._inside else 0
        if last < self._end:
            self._faults.add(
                7,
                last,
                f"The entries at the positions {last} to {self._end - 1} are in no checkpoint: "
                "they were added behind the sealer's back, or the checkpoint was deleted.",
            )

    def _grow(self, leaves: Sequence[bytes]) -> None:
        for size, sentence in self._kept.grow(self._tree, leaves):
            self._faults.add(9, size - 1, sentence)
        self._since += leaves

    def _check(self, size: int, before: int) -> None:
        """Whether what was signed of this size, inside and outside, is so."""
        inside = self._check_inside(size, before)
        outside = self._check_outside(size, before)
        if (signed := outside or inside) and not self._lost:
            if signed.root == self._tree.root() or self._mend(signed):
                self._good = Frontier(size, self._tree.hashes)
                self._since = []
            else:
                self._lost = True
                self._faults.add(
                    5,
                    self._good.size,
                    f"What is at the positions {self._good.size} to {size - 1} is not what "
                    f"{'the published' if outside else 'the'} checkpoint of size {size} was signed "
                    "over: entries were changed together with their tiles. What comes after it "
                    "cannot be compared.",
                )
        if inside and outside and inside.root != outside.root:
            self._faults.add(
                8,
                size - 1,
                f"The checkpoint of size {size} in the database has another root than the one that "
                "was published: the tree was rewritten, or two were signed.",
            )

    def _check_inside(self, size: int, before: int) -> Checkpoint | None:
        found = query(self._session, _CHECKPOINT, size)
        if not found:
            self._faults.add(
                8,
                size - 1,
                f"The checkpoint of size {size} was published, but is not in the database: its row "
                "was deleted.",
            )
            return None
        root, note, published = found[0]
        if published and self._published and self._is_missing(size):
            self._faults.add(
                8,
                size - 1,
                f"The checkpoint of size {size} was published at {self._published.url} and is not "
                "there any more: it was deleted, or another place was named.",
            )
        checkpoint = self._open(f"The checkpoint of size {size}", note, size, before)
        if checkpoint and checkpoint.root != root:
            self._faults.add(
                5,
                size - 1,
                f"The root in the row of the checkpoint of size {size} is not the one that was "
                "signed: it was changed.",
            )
        return checkpoint

    def _is_missing(self, size: int) -> bool:
        """Whether nothing is outside; it may have come after the list was made."""
        assert self._published
        return not _has(self._outside, size) and self._published.checkpoint(size) is None

    def _check_outside(self, size: int, before: int) -> Checkpoint | None:
        """The published checkpoint, and the one that anybody reads first."""
        kept = None
        if self._published and _has(self._outside, size):
            note = self._published.checkpoint(size) or ""
            kept = self._open(f"The published checkpoint of size {size}", note, size, before)
        if self._newest and self._newest[0] == size:
            newest = self._open("The newest published checkpoint", self._newest[1], size, before)
            if kept and newest and kept.root != newest.root:
                self._faults.add(
                    8, size - 1, f"Two different checkpoints of size {size} were published."
                )
            kept = kept or newest
        return kept

    def _open(self, what: str, note: str, size: int, before: int) -> Checkpoint | None:
        """Read a note that should be of this size; None, and a fault, if it is not."""
        try:
            checkpoint = self._keys.open(note, before, size)
        except BrokenLedger as error:
            self._faults.add(6, size - 1, f"{what} does not hold: {str(error).rstrip('.')}.")
            return None
        if checkpoint.size != size:
            self._faults.add(5, size - 1, f"{what} was signed for the size {checkpoint.size}.")
            return None
        return checkpoint

    def _mend(self, signed: Checkpoint) -> bool:
        """Find what was changed by the published tiles, and go on from what they say."""
        if self._published is None:
            return False
        start, tree, leaves = self._good.size, Frontier(self._good.size, self._good.hashes), []
        first = start // WIDTH
        for number in range(first, -(-signed.size // WIDTH)):
            leaves += split_tile(self._published.tile(number))
        leaves = leaves[start - first * WIDTH : signed.size - first * WIDTH]
        tree.extend(leaves)
        if tree.size != signed.size or tree.root() != signed.root:
            return False
        for position, pair in enumerate(zip(self._since, leaves, strict=True), start):
            if pair[0] != pair[1]:
                self._faults.add(1, position, self._rewritten(position))
        self._tree = tree
        return True

    def _rewritten(self, position: int) -> str:
        named = f"The entry at position {position}"
        if self._faults.count < LISTED and (
            found := between(self._session, position, position + 1)
        ):
            named = f"E{str(found[0])[1:]}" if found else named
        return (
            f"{named} is not what was published at position {position}: it was changed together "
            "with its tile."
        )

    def _read_newest(self) -> tuple[int, str] | None:
        """The size and the note of the newest published checkpoint."""
        note = self._published.newest if self._published else None
        if note is None:
            return None
        try:
            return parse(split_note(note)[0]).size, note
        except BrokenLedger as error:
            self._faults.add(8, inf, f"The newest published checkpoint cannot be read: {error}")
            return None

    def _name_what_is_cut_off(self, sizes: "array[int]") -> None:
        for size in sizes:
            done = "signed" if _has(self._inside, size) else "published"
            self._faults.add(
                7,
                self._end,
                f"A checkpoint of size {size} was {done}, but {self._end} entries are sealed: the "
                "end of the ledger was cut off.",
            )


def _has(sizes: "array[int]", size: int) -> bool:
    place = bisect_left(sizes, size)
    return place < len(sizes) and sizes[place] == size
