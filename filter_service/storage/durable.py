"""Writes files atomically and durably, so that they outlast a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def written(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends well, bytes and entry on the disk by then.

    It is written beside its place and renamed there. Raises OSError.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(part, path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, data: bytes) -> None:
    """Write all of a file, in folders made when they are missing. Raises OSError."""
    make_folder(path.parent)
    with written(path) as file:
        file.write(data)


def rename(old: Path, new: Path) -> None:
    """Give a file or folder its name, also for whoever looks after a power cut."""
    old.replace(new)
    _sync(new.parent)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing, and see their entries to the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    folder.mkdir(mode, exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """A rename is on the disk when its folder is; the file's own fsync says nothing of it."""
    entry = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)
