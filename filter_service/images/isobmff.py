"""Parses the boxes of an ISO base media file, for the colour codes of an AVIF."""

import struct
from collections.abc import Iterator

MOST_BOXES = 1_000  # in one box; files have a dozen
_ON_THE_WAY = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # boxes on the way to colours -> bytes before


def colour_codes(data: bytes) -> tuple[int, int] | None:
    """Primaries and curve of the first `nclx` colour box, as ITU-T H.273 numbers them."""
    return _colour_codes(memoryview(data))


def _colour_codes(data: memoryview) -> tuple[int, int] | None:
    for name, body in _boxes(data):
        if name in _ON_THE_WAY:
            inner = _colour_codes(body[_ON_THE_WAY[name] :])
            if inner is not None:
                return inner
        elif name == b"colr" and bytes(body[:4]) == b"nclx" and len(body) >= 8:
            primaries, transfer = struct.unpack_from(">HH", body, 4)
            return primaries, transfer
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    for _ in range(MOST_BOXES):
        if at + 8 > len(data):
            return
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        end = len(data) if size == 0 else at + size
        if end < at + head or end > len(data):
            return
        yield name, data[at + head : end]
        at = end
