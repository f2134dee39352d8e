"""Checkpoints (C2SP tlog-checkpoint): the log's name, the tree's size and its root."""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from filter_service.db.tables import StoredCheckpoint
from filter_service.errors import BrokenLedger
from filter_service.ledger.notes import SigningKey, VerifiedNote, open_note, sign

LARGEST = (1 << 63) - 1

_TEXT = re.compile(
    r"(?P<origin>[^\n]+)\n(?P<size>0|[1-9][0-9]{0,18})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"(?P<extensions>(?:[^\n]+\n)*)"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the tree was at one size."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    def note(self, keys: Sequence[SigningKey]) -> str:
        """The text with these keys' signatures."""
        return sign(self.text, keys)


def parse(text: str) -> Checkpoint:
    """Read a checkpoint's text; BrokenLedger unless it is in its only form."""
    if found := _TEXT.fullmatch(text):
        root = b64decode(found["root"])
        extensions = tuple(found["extensions"].split("\n")[:-1])
        checkpoint = Checkpoint(found["origin"], int(found["size"]), root, extensions)
        # Base64 has more than one form, and no tree has more leaves than a bigint counts.
        if checkpoint.text == text and checkpoint.size <= LARGEST:
            return checkpoint
    raise BrokenLedger(f"{text[:200]!r} is not a checkpoint: a name, a size and a root.")


def open_checkpoint(note: str, vkeys: Iterable[str]) -> tuple[Checkpoint, VerifiedNote]:
    """Check a note against known keys, and read the checkpoint in it."""
    opened = open_note(note, vkeys)
    return parse(opened.text), opened


def newest_checkpoint(session: Session) -> StoredCheckpoint | None:
    """The last statement of what the tree was."""
    return session.scalar(select(StoredCheckpoint).order_by(StoredCheckpoint.size.desc()).limit(1))
