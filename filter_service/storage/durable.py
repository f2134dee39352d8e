"""Writes files atomically and durably, so that they outlast a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
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


def write(path: Path | str, data: bytes) -> None:
    """Write all of a file, in folders made when they are missing. Raises OSError.

    As `written` does. It is called for every image, and with next to no `pathlib`, which takes as
    long as writing a small one.
    """
    folder, name = os.path.split(path)
    part = f"{folder}/.{name}.{uuid4().hex}"
    try:
        file = _open_new(part)
    except FileNotFoundError:
        make_folder(folder)
        file = _open_new(part)
    try:
        with os.fdopen(file, "wb", buffering=0) as unbuffered:
            _write_all(unbuffered, data)
            os.fsync(file)
        rename(Path(part), Path(path))
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def rename(old: Path, new: Path) -> None:
    """Give a file or folder its name, also for whoever looks after a power cut."""
    old.replace(new)
    _sync(new.parent)


def make_folder(folder: Path | str, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing, and see their entries to the disk."""
    above = os.path.dirname(folder)  # noqa: PTH120
    try:
        os.mkdir(folder, mode)  # noqa: PTH102
    except FileNotFoundError:
        make_folder(above)
        make_folder(folder, mode)
        return
    except FileExistsError:
        if Path(folder).is_dir():
            return
        raise
    _sync(above)


def _open_new(path: str) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)


def _write_all(file: RawIOBase, data: bytes) -> None:
    """A disk may take less than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def _sync(folder: Path | str) -> None:
    """A rename is on the disk when its folder is; the file's own fsync says nothing of it."""
    entry = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)
