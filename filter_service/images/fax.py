"""Checks that the fax-compressed data of a TIFF are intact.

The decoder of fax codes raises nothing: where the data break, it guesses how to go on, and paints
the rest white. But the codes of a picture are no matter of choice, so that those of what was
decoded, written again, are those in the file.
"""

import io
from collections.abc import Mapping

import PIL.Image
from PIL.ImageFile import ImageFile

_CODES: Mapping[object, str] = {2: "tiff_ccitt", 3: "group3", 4: "group4"}
_COMPRESSION, _OFFSETS, _LENGTHS = 259, 273, 279
_KEPT = (262, 266, 278, 292, 293)  # white's side, order of bits, rows of a strip, options


def check_fax(page: ImageFile, data: bytes) -> None:
    """Of a loaded page of a TIFF; raises ValueError where its codes are not those of its pixels."""
    tags = page.tag_v2  # type: ignore[attr-defined]
    code = _CODES.get(tags.get(_COMPRESSION))
    if code is None:
        return
    options = {tag: tags[tag] for tag in _KEPT if tag in tags}
    again = io.BytesIO()
    bare = PIL.Image.frombytes(page.mode, page.size, page.tobytes())
    bare.save(again, "TIFF", compression=code, tiffinfo=options)
    with PIL.Image.open(again) as written:
        if _codes(written, again.getvalue()) != _codes(page, data):
            raise ValueError("its fax codes break off or are not those of a picture")


def _codes(page: PIL.Image.Image, data: bytes) -> list[bytes]:
    tags = page.tag_v2  # type: ignore[attr-defined]
    strips = zip(tags[_OFFSETS], tags[_LENGTHS], strict=True)
    return [data[start : start + length].rstrip(b"\0") for start, length in strips]
