"""Reads image files from disk, and computes the SHA-256 digest that names an image."""

import hashlib
import stat
from pathlib import Path

from filter_service.errors import UnreadableImage
from filter_service.images.decoder_errors import translated
from filter_service.images.limits import STANDARD, Limits, check_bytes

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def digest(data: bytes) -> str:
    """The name of an image: SHA-256 of its bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path, limits: Limits = STANDARD) -> bytes:
    """The bytes of a regular file, its size checked first; raises UnreadableImage, ImageTooLarge.

    A named pipe would block for ever and a device has no end, so neither is opened.
    """
    name = repr(str(path))  # repr: a name need not be valid text
    with translated(f"The file {name} cannot be read"):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
            raise UnreadableImage(f"{name} is {kind}; submit regular files only.")
        check_bytes(status.st_size, limits)
        with path.open("rb") as file:
            return file.read(status.st_size)
