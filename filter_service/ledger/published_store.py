"""Reads and writes the published ledger in a folder or an object store, over fsspec."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from filter_service.errors import InvalidSettings, StorageUnavailable
from filter_service.storage import durable

_WRITERS = 8  # an object store takes its time for each file


class Outside:
    """Files by their path; every method raises StorageUnavailable when nobody answers."""

    def __init__(self, url: str) -> None:
        """Raises InvalidSettings when fsspec knows no such address."""
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidSettings(
                f"FILTER_SERVICE_LEDGER_URL={url!r} cannot be used ({error}); give a folder or an "
                "fsspec address, and install the package that its kind needs."
            ) from error
        self.url = url

    def read(self, path: str) -> bytes | None:
        """A file; None if there is none."""
        with self._answering(f"read {path}"):
            try:
                data: bytes = self._files.cat_file(self._at(path))
            except FileNotFoundError:
                return None
        return data

    def write(self, path: str, data: bytes) -> None:
        """Write a file; nobody ever sees half of it."""
        with self._answering(f"write {path}"):
            if isinstance(self._files, LocalFileSystem):
                durable.write(Path(self._at(path)), data)
                return
            try:
                self._files.pipe_file(self._at(path), data)
            except FileNotFoundError:  # a store with real folders, such as sftp://
                self._files.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)
                self._files.pipe_file(self._at(path), data)

    def write_all(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write many, in no order; all of them are there when it returns."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(lambda file: self.write(*file), files):
                pass

    def names(self, folder: str) -> Iterator[str]:
        """What is in a folder, in no order; nothing if it is not there."""
        with self._answering(f"list {folder}"), suppress(FileNotFoundError):
            if isinstance(self._files, LocalFileSystem):  # which would keep all of them in memory
                with os.scandir(self._at(folder)) as found:
                    yield from (file.name for file in found)
                return
            for path in self._files.ls(self._at(folder), detail=False):
                yield path.rstrip("/").rpartition("/")[2]

    def delete_folder(self, path: str) -> None:
        """Delete a folder with what is in it, if it is there."""
        with self._answering(f"delete {path}"):
            try:
                self._files.rm(self._at(path), recursive=True)
            except FileNotFoundError:
                return

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of store has its own tree of errors
            raise StorageUnavailable(
                f"{self.url} could not {what} ({type(error).__name__}: {error}); check that it is "
                "there and that this account may use it, then try again."
            ) from error
