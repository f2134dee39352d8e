"""Files that are kept: whole, on the disk with their entry, and nobody else's to look into."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from filter_service.images import digest
from filter_service.ledger.published_store import Outside
from filter_service.storage import Storage, durable

DATA = b"a picture"


@contextmanager
def synced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What reaches the disk in the block, in order: renamed names, and folders."""
    told: list[str] = []
    fsync, replace = os.fsync, os.replace

    def tell_fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            told.append(f"synced {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        fsync(descriptor)

    def tell_replace(old: Path, new: Path) -> None:
        told.append(f"named {new}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(os, "replace", tell_replace)
    yield told
    monkeypatch.undo()


@pytest.mark.parametrize("keep", ["image", "log", "file"])
def test_a_name_is_on_the_disk_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    root = tmp_path / "kept"
    with synced(monkeypatch) as told:
        if keep == "image":
            Storage(str(root)).put(digest(DATA), DATA)
        elif keep == "log":
            Outside(str(root)).write("tile/0/000", DATA)
        else:
            durable.write(root / "a" / "b", DATA)
    named = next(t for t in told if t.startswith("named "))
    path = Path(named.removeprefix("named "))
    assert told[-1] == f"synced {path.parent}"
    assert told.index(named) == len(told) - 2
    assert {f"synced {tmp_path}", f"synced {root}"} <= set(told)  # of the folders that are new


def test_nothing_is_renamed_but_in_one_place() -> None:
    source = Path(durable.__file__).parents[1]
    renaming = (".rename(", "os.replace(", "part.replace(", "unfinished.replace(", "shutil.move(")
    found = {
        str(file.relative_to(source))
        for file in source.rglob("*.py")
        if any(word in file.read_text() for word in renaming)
    }
    assert found == {"local/data_folder.py"}  # a copy of programs, which is made again


@pytest.mark.parametrize("before", [None, 0o755, 0o777])
def test_images_are_closed_to_others_whatever_the_folder_was(
    tmp_path: Path, before: int | None
) -> None:
    root = tmp_path / "images"
    if before is not None:
        root.mkdir()
        root.chmod(before)
    Storage(str(root)).put(digest(DATA), DATA)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_file_that_fails_in_the_midst_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    durable.write(file, b"old")
    with pytest.raises(KeyError), durable.written(file) as out:
        out.write(b"new")
        raise KeyError
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b"old", [file])
