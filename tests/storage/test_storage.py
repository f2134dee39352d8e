"""Image bytes are kept once, whole, and read back verified, wherever the store is."""

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from filter_service.errors import InvalidSettings, StorageUnavailable, UnreadableImage
from filter_service.storage import Storage

DATA = b"the bytes of an image"
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["folder", "file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty store of each kind."""
    urls = {
        "folder": str(tmp_path / "a store"),
        "file": (tmp_path / "store").as_uri(),
        "memory": f"memory://{uuid4().hex}",
    }
    return Storage(urls[request.param])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def blob(folder: Path) -> Path:
    return folder / DIGEST[:2] / DIGEST[2:4] / DIGEST


def test_what_is_put_can_be_got(storage: Storage) -> None:
    storage.put(DIGEST, DATA)
    assert storage.get(DIGEST) == DATA


def test_putting_again_changes_nothing(storage: Storage) -> None:
    storage.put(DIGEST, DATA)
    storage.put(DIGEST, DATA)
    assert storage.get(DIGEST) == DATA


def test_a_store_knows_what_it_has(storage: Storage) -> None:
    assert not storage.has(DIGEST)
    storage.put(DIGEST, DATA)
    assert storage.has(DIGEST)


def test_what_is_deleted_is_gone(storage: Storage) -> None:
    storage.put(DIGEST, DATA)
    storage.delete(DIGEST)
    assert not storage.has(DIGEST)


def test_deleting_again_changes_nothing(storage: Storage) -> None:
    storage.delete(DIGEST)
    storage.put(DIGEST, DATA)
    storage.delete(DIGEST)
    storage.delete(DIGEST)


def test_a_missing_image_is_told(storage: Storage) -> None:
    storage.put(DIGEST, DATA)
    with pytest.raises(UnreadableImage, match=f"{'0' * 64} is not in the store"):
        storage.get("0" * 64)


def test_a_damaged_image_is_noticed_and_mended(folder: Path) -> None:
    storage = Storage(str(folder))
    storage.put(DIGEST, DATA)
    blob(folder).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(UnreadableImage, match="is damaged"):
        storage.get(DIGEST)
    storage.put(DIGEST, DATA)
    assert storage.get(DIGEST) == DATA


def test_a_store_that_is_not_there_may_come_back(folder: Path) -> None:
    storage = Storage(str(folder))
    storage.put(DIGEST, DATA)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StorageUnavailable, match="could not read image"):
        storage.get(DIGEST)
    folder.with_name("elsewhere").rename(folder)
    assert storage.get(DIGEST) == DATA


def test_images_lie_in_folders_by_digest(folder: Path) -> None:
    Storage(str(folder)).put(DIGEST, DATA)
    assert blob(folder).read_bytes() == DATA
    assert [p for p in folder.rglob("*") if p.is_file()] == [blob(folder)]


def test_others_may_read_the_images_as_the_umask_says(folder: Path) -> None:
    Storage(str(folder)).put(DIGEST, DATA)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(blob(folder).stat().st_mode) == 0o666 & ~umask


def test_a_write_that_fails_leaves_nothing(folder: Path) -> None:
    blob(folder).mkdir(parents=True)  # no file can be renamed onto a folder
    with pytest.raises(StorageUnavailable, match="could not keep image"):
        Storage(str(folder)).put(DIGEST, DATA)
    assert [p for p in folder.rglob("*") if p.is_file()] == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = Storage(str(tmp_path / "file" / "store"))
    for action in (lambda: storage.put(DIGEST, DATA), lambda: storage.get(DIGEST)):
        with pytest.raises(StorageUnavailable, match="then try again"):
            action()


def test_many_may_put_and_get_the_same_image_at_once(folder: Path) -> None:
    storage = Storage(str(folder))
    data = bytes(2**20)
    digest = hashlib.sha256(data).hexdigest()
    storage.put(digest, data)
    with ThreadPoolExecutor(8) as threads:
        puts = [threads.submit(storage.put, digest, data) for _ in range(20)]
        gets = [threads.submit(storage.get, digest) for _ in range(40)]
    assert all(p.result() is None for p in puts)
    assert all(g.result() == data for g in gets)


def test_folders_are_made_where_a_store_wants_them(folder: Path) -> None:
    storage = Storage(f"dir://inner::{folder.as_uri()}")  # any store but a plain folder
    storage.put(DIGEST, DATA)
    assert blob(folder / "inner").read_bytes() == storage.get(DIGEST) == DATA


def test_a_store_that_does_not_answer_is_not_taken_for_empty() -> None:
    class Silent(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
        protocol = "silent"

        def info(self, path: str, **_: object) -> dict[str, object]:
            raise TimeoutError(path)

    fsspec.register_implementation("silent", Silent, clobber=True)
    with pytest.raises(StorageUnavailable, match="could not look for image"):
        Storage("silent://here").has(DIGEST)


@pytest.mark.parametrize("url", ["nonsense://there", "http-ish+x://y"])
def test_an_unknown_address_is_told(url: str) -> None:
    with pytest.raises(InvalidSettings, match="FILTER_SERVICE_STORAGE_URL"):
        Storage(url)


@pytest.mark.parametrize(
    "digest", ["", "../../etc/passwd", DIGEST.upper(), DIGEST + "0", DIGEST + "\n"]
)
def test_only_a_digest_is_a_name(storage: Storage, digest: str) -> None:
    with pytest.raises(ValueError, match="is not a SHA-256 digest"):
        storage.get(digest)
