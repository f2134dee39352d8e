"""Reads the published ledger, to compare it with the database."""

import re
from array import array

import numpy as np

from filter_service.ledger.published_store import Outside
from filter_service.ledger.tiles import HASH, WIDTH, path

_SIZE = re.compile("[1-9][0-9]{0,17}")


class PublishedLog(Outside):
    """The published log as it was when this was made: make it before the database is looked at."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sizes = self._sizes()  # of all checkpoints, in order: eight bytes each
        self.newest = self._note("checkpoint")  # the note that anybody reads first

    def checkpoint(self, size: int) -> str | None:
        """The note of one size; None if there is none."""
        return self._note(f"checkpoints/{size}")

    def tile(self, number: int) -> bytes:
        """A tile of leaf hashes; empty if it is not there."""
        narrow = (self.sizes[-1] if self.sizes else 0) - number * WIDTH
        for width in dict.fromkeys((WIDTH, min(WIDTH, narrow))):
            if width > 0:
                found = self.read(path(0, number, width))
                if found is not None and len(found) == width * HASH:
                    return found
        return b""

    def _sizes(self) -> "array[int]":
        names = self.names("checkpoints")
        sizes = array("q", (int(name) for name in names if _SIZE.fullmatch(name)))
        np.asarray(sizes).sort()  # in its place: there may be millions
        return sizes

    def _note(self, name: str) -> str | None:
        found = self.read(name)
        return None if found is None else found.decode(errors="replace")
