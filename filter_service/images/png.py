"""Parses the chunks of a PNG: drops those not needed for decoding, reads those on colour."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
ANIMATED = (b"acTL", b"fcTL", b"fdAT")
SPARED = (b"tRNS", b"eXIf")  # these change what is seen, but pictures are shown without them too
FRAME = 12  # bytes of a chunk around its body: length, name, checksum


class Chunk(NamedTuple):
    """One chunk, with where it stands in the file."""

    name: bytes
    body: memoryview
    start: int
    end: int
    checksum: int

    @property
    def is_ancillary(self) -> bool:
        return bool(self.name[:1].islower())

    @property
    def is_intact(self) -> bool:
        """Whether its checksum is right."""
        return zlib.crc32(self.body, zlib.crc32(self.name)) == self.checksum


def chunks(data: bytes) -> Iterator[Chunk]:
    """Every chunk that is there with all its bytes, in order."""
    at, whole = len(SIGNATURE), memoryview(data)
    while at + FRAME <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + FRAME + length
        if end > len(data):
            return
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        yield Chunk(name, whole[at + 8 : end - 4], at, end, checksum)
        at = end
        if name == b"IEND":
            return


def lean(data: bytes) -> bytes:
    """The same picture without what decoding does not need: text, profiles, times, private data.

    Decoders refuse a file for too long a text or a wrong checksum in a comment; browsers show it.
    """
    parts, kept = [], 0
    for chunk in chunks(data):
        if not _is_needed(chunk):
            parts.append(data[kept : chunk.start])
            kept = chunk.end
    return data if kept == 0 else b"".join([*parts, data[kept:]])


def colours(data: bytes) -> dict[bytes, bytes]:
    """The chunks about colours by name, the first of each: they count only before the pixels."""
    found: dict[bytes, bytes] = {}
    for chunk in chunks(data):
        if chunk.name in (b"IDAT", b"PLTE"):
            break
        if chunk.name in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM") and chunk.is_intact:
            found.setdefault(chunk.name, bytes(chunk.body))
    return found


def _is_needed(chunk: Chunk) -> bool:
    if not chunk.is_ancillary or chunk.name in ANIMATED:
        return True
    return chunk.name in SPARED and chunk.is_intact
