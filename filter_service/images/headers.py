"""Reads file headers: detects the format, and refuses those that are not supported."""

import io
import struct
from collections.abc import Iterable

import PIL.Image
from PIL.ImageFile import ImageFile

from filter_service.errors import UnreadableImage
from filter_service.images import png

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

_TAKEN = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_FOREIGN = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"\0\0\1\0", "icon (ICO)"),
    (b"icns", "icon (ICNS)"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"BPG\xfb", "BPG"),
    (b"DDS ", "DirectDraw surface (DDS)"),
    (b"AT&TFORM", "DjVu"),
    (b"\x1aE\xdf\xa3", "video (Matroska or WebM)"),
    (b"FLV\1", "video (Flash)"),
    (b"\0\0\1\xba", "video (MPEG)"),
    (b"PK\3\4", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"Rar!", "RAR archive"),
    (b"7z\xbc\xaf", "7-Zip archive"),
)
_BRANDS = {  # of ISO base media files
    b"heic": "HEIC/HEIF",
    b"heix": "HEIC/HEIF",
    b"heim": "HEIC/HEIF",
    b"heis": "HEIC/HEIF",
    b"hevc": "HEIC/HEIF",
    b"hevx": "HEIC/HEIF",
    b"mif1": "HEIC/HEIF",
    b"msf1": "HEIC/HEIF",
    b"crx ": "Canon raw (CR3)",
}
_RIFF = {b"AVI ": "video (AVI)", b"WAVE": "sound (WAVE)"}


def opened(data: bytes) -> ImageFile:
    """The header only; raises UnreadableImage for what is in no format that is taken."""
    lean = png.lean(data) if data.startswith(png.SIGNATURE) else data
    try:
        return PIL.Image.open(io.BytesIO(lean), formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImage(_refusal(data)) from error


def _refusal(data: bytes) -> str:
    taken = ", ".join(FORMATS)
    known = _known(data)
    if known is not None:
        return (
            f"The file is in the format {known}, which is not taken; submit the picture as one of "
            f"{taken}."
        )
    begun = "AVIF" if data[4:8] == b"ftyp" else _begun(data, _TAKEN)
    if begun is not None:
        return (
            f"The file begins as {begun} does, but what follows is no header of it; submit a "
            "whole, readable image."
        )
    return (
        f"The file begins with {data[:8]!r}, which is no readable header of any of {taken}; submit "
        "an image in one of these formats."
    )


def _known(data: bytes) -> str | None:
    """The name of a format that is known and not taken."""
    if data[4:8] == b"ftyp":
        return _branded(data)
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    text = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"<svg" in text:
        return "SVG"
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return _begun(data, _FOREIGN)


def _begun(data: bytes, marks: Iterable[tuple[bytes, str]]) -> str | None:
    return next((name for mark, name in marks if data.startswith(mark)), None)


def _branded(data: bytes) -> str | None:
    """An ISO base media file by its brands: the major one, then those that it is compatible to."""
    (size,) = struct.unpack_from(">I", data)
    brands = [data[i : i + 4] for i in (8, *range(16, min(size, 200), 4))]
    if {b"avif", b"avis"} & set(brands):
        return None
    return next((_BRANDS[b] for b in brands if b in _BRANDS), "video (MP4 or MOV)")
