"""Verifies the Merkle tree against checkpoints that an auditor kept elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from filter_service.errors import BrokenLedger, InvalidRequest
from filter_service.ledger.checkpoints import Checkpoint, parse
from filter_service.ledger.merkle import Frontier
from filter_service.ledger.notes import split


class TrustedCheckpoints:
    """Compares the growing tree with checkpoints that an auditor kept."""

    def __init__(self, files: Sequence[Path]) -> None:
        """InvalidRequest when a file holds no checkpoint."""
        self._due = sorted(((_read(file), file) for file in files), key=lambda kept: kept[0].size)
        self.given = bool(files)
        self.agreeing = 0  # checkpoints that the tree was seen to have

    def grow(self, tree: Frontier, leaves: Sequence[bytes]) -> list[tuple[int, str]]:
        """Add leaves to a tree; where it is not as a checkpoint has it: sizes and sentences."""
        found, start, done = [], tree.size, 0
        while self._due and self._due[0][0].size <= start + len(leaves):
            checkpoint, file = self._due.pop(0)
            tree.extend(leaves[done : checkpoint.size - start])
            done = checkpoint.size - start
            if tree.root() == checkpoint.root:
                self.agreeing += 1
                continue
            found.append(
                (
                    checkpoint.size,
                    f"The tree of {checkpoint.size} entries has another root than the checkpoint "
                    f"in {file}: what is before it was rewritten since that was kept, or it is of "
                    "another ledger.",
                )
            )
        tree.extend(leaves[done:])
        return found

    def beyond(self, size: int) -> list[str]:
        """What is to be said of checkpoints that a tree of this size never came to."""
        return [
            f"The checkpoint in {file} is of size {checkpoint.size}, but {size} entries are sealed "
            "here: the end of the ledger was cut off since it was kept."
            for checkpoint, file in self._due
        ]


def _read(file: Path) -> Checkpoint:
    """No key is asked for: a checkpoint that somebody made up agrees with no tree."""
    try:
        return parse(split(file.read_text(encoding="utf-8"))[0])
    except (BrokenLedger, OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{file} is not a checkpoint ({error}): give the file `checkpoint` of what was "
            "published, as you kept it."
        ) from error
