"""Image bytes by digest, over fsspec: a folder, s3://, gs://, memory:// and the rest."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from filter_service.errors import (
    FilterServiceError,
    InvalidSettings,
    StorageUnavailable,
    UnreadableImage,
)
from filter_service.storage import durable

_OURS = 0o700  # mode of a folder of images
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Storage:
    """Bytes under their SHA-256 digest, in folders named by its first two pairs of digits.

    Every method raises StorageUnavailable when the store does not answer: try again. Make one in
    each process, after the fork: clients of object stores do not survive it.
    """

    def __init__(self, url: str) -> None:
        """Raises InvalidSettings when fsspec knows no such address."""
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidSettings(
                f"FILTER_SERVICE_STORAGE_URL={url!r} cannot be used ({error}); give a folder or "
                "an fsspec address, and install the package that its kind needs."
            ) from error
        self.url = url
        self._is_shut = False  # the folder's mode is seen to with the first image

    def put(self, digest: str, data: bytes) -> None:
        """Keep the bytes; doing it again changes nothing, or mends what was damaged.

        Nobody sees half of them: a file is renamed into place, an object store does it by itself.
        """
        path = self._path(digest)
        with self._answering(f"keep image {digest}"):
            if isinstance(self._files, LocalFileSystem):
                self._shut()
                durable.write(path, data)
            else:
                self._upload(path, data)

    def get(self, digest: str) -> bytes:
        """The bytes, their digest verified; UnreadableImage if they are missing or damaged."""
        path = self._path(digest)
        with self._answering(f"read image {digest}"):
            try:
                data: bytes = self._files.cat_file(path)
            except FileNotFoundError as error:
                # A store that is not mounted has no image at all: that may pass, this will not.
                self._files.info(self._root)
                raise UnreadableImage(
                    f"Image {digest} is not in the store; submit it again."
                ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise UnreadableImage(
                f"Image {digest} is damaged in the store: its {len(data):,} bytes have another "
                "digest; submit it again."
            )
        return data

    def has(self, digest: str) -> bool:
        """Whether there are bytes under this digest, be they whole or not."""
        path = self._path(digest)
        with self._answering(f"look for image {digest}"):
            try:
                self._files.info(path)  # not exists(), which takes every error for "no"
            except FileNotFoundError:
                return False
        return True

    def delete(self, digest: str) -> None:
        """Forget the bytes; doing it again changes nothing."""
        path = self._path(digest)
        with self._answering(f"delete image {digest}"):
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                return

    def _shut(self) -> None:
        """A folder of images is nobody else's to look into, whoever made it and how."""
        if not self._is_shut:
            root = Path(self._root)
            durable.make_folder(root, _OURS)
            with suppress(PermissionError):  # it belongs to somebody who lets us write in it
                root.chmod(_OURS)
            self._is_shut = True

    def _path(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a SHA-256 digest in lower-case hex.")
        return f"{self._root.rstrip('/')}/{digest[:2]}/{digest[2:4]}/{digest}"

    def _upload(self, path: str, data: bytes) -> None:
        try:
            self._files.pipe_file(path, data)
        except FileNotFoundError:  # a store with real folders, such as sftp://
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(path, data)

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """The one door through which the store's errors come; each leaves as a sentence."""
        try:
            yield
        except FilterServiceError:
            raise
        except Exception as error:  # each kind of store has its own tree of errors
            raise StorageUnavailable(
                f"The store {self.url} could not {what} ({type(error).__name__}: {error}); "
                "check that it is there and that this account may use it, then try again."
            ) from error
