"""Reads what a file states about its colour space, in browsers' order of precedence."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from PIL.ImageFile import ImageFile

from filter_service.images import isobmff, png
from filter_service.images.decoder_errors import FOREIGN
from filter_service.images.profile_construction import (
    CURVES,
    D65,
    HDR,
    PRIMARIES,
    SRGB,
    SRGB_CURVE,
    Curve,
    profile,
    srgb,
)

LARGEST = 4 * 2**20  # bytes of a profile; those for print have about one million
AS_SRGB: Mapping[int, Curve] = dict.fromkeys((1, 6, 14, 15), SRGB_CURVE)
"""Video's curves: in AVIF, which is coded as video, browsers show them as sRGB's."""


@dataclass(frozen=True, slots=True)
class ColourStatement:
    """One of the places in which a file says what its numbers mean."""

    where: str  # as it is named in a sentence
    profile: bytes | None  # None: nothing that can be used
    why: str = ""  # likewise


def statements(picture: ImageFile, data: bytes) -> Iterator[ColourStatement]:
    """Each in turn, of a picture of which only the header was read; the first usable one counts."""
    if picture.format == "PNG":
        yield from _png(png.colours(data))
    elif picture.format == "BMP":
        yield from _bmp(data)
    elif picture.format != "GIF":  # browsers know no profiles in GIF
        embedded = picture.info.get("icc_profile")
        if embedded:
            yield _embedded("ICC profile", embedded)
        if picture.format == "AVIF" and (codes := isobmff.colour_codes(data)) is not None:
            yield _coded("nclx box", *codes, {**CURVES, **AS_SRGB})


def _png(chunks: Mapping[bytes, bytes]) -> Iterator[ColourStatement]:
    if b"cICP" in chunks:
        yield _cicp(chunks[b"cICP"])
    if b"iCCP" in chunks:
        yield _iccp(chunks[b"iCCP"])
    if b"sRGB" in chunks:
        yield ColourStatement("sRGB chunk", srgb())
    if b"gAMA" in chunks:
        yield _gamma(chunks[b"gAMA"], chunks.get(b"cHRM"))


def _cicp(body: bytes) -> ColourStatement:
    where = "cICP chunk"
    if len(body) != 4:
        return ColourStatement(where, None, "it does not have 4 bytes")
    primaries, transfer, matrix, full = body
    if (matrix, full) != (0, 1):
        return ColourStatement(where, None, "its numbers are no full-range RGB")
    return _coded(where, primaries, transfer, CURVES)


def _coded(
    where: str, primaries: int, transfer: int, curves: Mapping[int, Curve]
) -> ColourStatement:
    """Colours by two code points of ITU-T H.273; 2 says nothing."""
    if 2 in (primaries, transfer):
        return ColourStatement(where, None)
    if transfer in HDR:
        return ColourStatement(where, None, "its brightness reaches beyond that of a screen (HDR)")
    if primaries not in PRIMARIES or transfer not in curves:
        return ColourStatement(where, None, f"it names primaries {primaries} and curve {transfer}")
    return ColourStatement(where, profile(PRIMARIES[primaries], curves[transfer]))


def _iccp(body: bytes) -> ColourStatement:
    where = "ICC profile"
    _, _, rest = body.partition(b"\0")  # its name
    try:
        data = zlib.decompressobj().decompress(rest[1:], LARGEST + 1)
    except zlib.error:
        return ColourStatement(where, None, "it cannot be decompressed")
    return _embedded(where, data)


def _embedded(where: str, data: bytes) -> ColourStatement:
    if len(data) > LARGEST:
        return ColourStatement(where, None, f"it has more than {LARGEST:,} bytes")
    return ColourStatement(where, data)


def _gamma(body: bytes, chromaticities: bytes | None) -> ColourStatement:
    where = "gAMA chunk"
    if len(body) != 4 or body == bytes(4):
        return ColourStatement(where, None, "it is no number above 0")
    (gamma,) = struct.unpack(">I", body)
    primaries = SRGB
    if chromaticities is not None and len(chromaticities) == 32:
        primaries = tuple(value / 100_000 for value in struct.unpack(">8I", chromaticities))
    try:
        return ColourStatement(where, profile(primaries, (100_000 / gamma,)))
    except FOREIGN as error:
        return ColourStatement(where, None, str(error))


def _bmp(data: bytes) -> Iterator[ColourStatement]:
    """The colour space of a header of version 4 or 5."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size < 108 or len(data) < 14 + size:
        return
    kind = data[14 + 56 : 14 + 60]
    if kind == bytes(4):
        yield _end_points(struct.unpack_from("<9i3I", data, 14 + 60))
    elif kind == b"DEBM" and size >= 124:  # MBED, backwards: embedded
        start, length = struct.unpack_from("<II", data, 14 + 112)
        yield _embedded("ICC profile", data[14 + start : 14 + start + length])


def _end_points(values: tuple[int, ...]) -> ColourStatement:
    """Red, green and blue as x, y and z each, and their gammas, in fixed-point numbers."""
    where = "BMP header's colours"
    ends, gammas = [v / 2**30 for v in values[:9]], [v / 2**16 for v in values[9:]]
    if not any(ends) or not all(gammas):
        return ColourStatement(where, None)
    red, green, blue = ends[:2], ends[3:5], ends[6:8]
    try:
        return ColourStatement(
            where, profile((*D65, *red, *green, *blue), *((gamma,) for gamma in gammas))
        )
    except FOREIGN as error:
        return ColourStatement(where, None, str(error))
