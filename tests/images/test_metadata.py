"""What judging does not need keeps no picture from being judged; formats not taken have a name."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from filter_service.errors import UnreadableImage
from filter_service.images import FORMATS, check, decode
from tests.support.bad_files import encoded, still
from tests.support.colour_profiles import PROFILES
from tests.support.painted_files import chunk, gama, iccp, made_png

PIXELS = np.asarray(still())
LONG = b"x" * (3 * 2**20)
WHOLE = made_png(PIXELS, 2)


def with_chunk(raw: bytes) -> bytes:
    """A PNG with this between its header and its pixels."""
    return WHOLE[:33] + raw + WHOLE[33:]


def spoiled(name: bytes, body: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return chunk((name, body))[:-4] + b"\0\0\0\1"


HARMLESS = {
    "a long text": chunk((b"tEXt", b"Comment\0" + LONG)),
    "a long compressed text": chunk((b"zTXt", b"Comment\0\0" + zlib.compress(LONG))),
    "a long international text": chunk((b"iTXt", b"Comment\0\0\0\0\0" + LONG)),
    "a text that does not unpack": chunk((b"zTXt", b"Comment\0\0" + b"no stream")),
    "a wrong checksum in a text": spoiled(b"tEXt", b"Comment\0hello"),
    "a wrong checksum in a profile": spoiled(*iccp(PROFILES["exchanged"])),
    "a wrong checksum in a gamma": spoiled(*gama(100_000)),
    "a wrong checksum in resolutions": spoiled(b"pHYs", bytes(9)),
    "a wrong checksum in private data": spoiled(b"prVt", b"data"),
    "a wrong checksum in EXIF": spoiled(b"eXIf", b"MM\0*"),
    "EXIF that is none": chunk((b"eXIf", b"no EXIF")),
    "a long profile": chunk(iccp(PROFILES["sRGB"].ljust(2 * 2**20, b"\0"))),
    "a time that is none": chunk((b"tIME", b"\0")),
    "a gamma of two bytes": chunk((b"gAMA", b"\0\0")),
    "a chunk for nobody": chunk((b"abCd", LONG)),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_is_not_needed_keeps_no_png_from_being_judged(what: str) -> None:
    np.testing.assert_array_equal(decode(with_chunk(HARMLESS[what])).frames[0].picture, PIXELS)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE"])
def test_a_wrong_checksum_in_what_is_needed_is_no_picture(name: bytes) -> None:
    colours = encoded(still().quantize(16), "PNG")
    at = colours.index(name)
    end = at + 4 + struct.unpack_from(">I", colours, at - 4)[0]
    broken = colours[:end] + bytes(b ^ 255 for b in colours[end : end + 4]) + colours[end + 4 :]
    with pytest.raises(UnreadableImage):
        decode(broken)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"no such header", b"MM\0*\0\0\0\x08\xff\xff", b""])
def test_broken_exif_keeps_no_file_from_being_judged(form: str, exif: bytes) -> None:
    data = encoded(still(), form, exif=b"Exif\0\0" + exif)
    assert decode(data).frames[0].picture.size == still().size


FAXES: dict[str, tuple[str, dict[int, int]]] = {
    "group 4": ("group4", {}),
    "group 4, bits turned round": ("group4", {266: 2}),
    "group 4, strips": ("group4", {278: 10}),
    "group 3": ("group3", {}),
    "group 3 in two dimensions": ("group3", {292: 1}),
    "group 3, whole bytes": ("group3", {292: 4}),
    "CCITT": ("tiff_ccitt", {}),
}


def fax(kind: str) -> bytes:
    code, options = FAXES[kind]
    page = still(size=(160, 120)).convert("1")
    return encoded(page, "TIFF", compression=code, tiffinfo=options)


@pytest.mark.parametrize("kind", FAXES)
def test_a_whole_fax_is_judged(kind: str) -> None:
    page = still(size=(160, 120)).convert("1").convert("RGB")
    np.testing.assert_array_equal(decode(fax(kind)).frames[0].picture, page)


@pytest.mark.parametrize("kind", FAXES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_fax_whose_data_break_is_not_half_judged(kind: str, share: float) -> None:
    data = fax(kind)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        tags = picture.tag_v2  # type: ignore[attr-defined]
        at = tags[273][0] + int(share * tags[279][0])
    with pytest.raises(UnreadableImage):
        decode(data[:at] + bytes(b ^ 0x5A for b in data[at : at + 8]) + data[at + 8 :])


NAMED = {
    "HEIC/HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "HEIC/HEIF ": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    "JPEG XL": b"\xff\x0a" + bytes(40),
    "JPEG XL ": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
    "JPEG 2000": encoded(still(), "JPEG2000"),
    "Photoshop (PSD)": b"8BPS\0\1" + bytes(40),
    "PDF": encoded(still(), "PDF"),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "SVG ": b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>",
    "PostScript": encoded(still(), "EPS"),
    "icon (ICO)": encoded(still(), "ICO"),
    "video (MP4 or MOV)": b"\0\0\0\x18ftypisom\0\0\2\0isommp41",
    "video (Matroska or WebM)": b"\x1aE\xdf\xa3" + bytes(40),
    "video (AVI)": b"RIFF\x24\0\0\0AVI LIST" + bytes(28),
    "sound (WAVE)": b"RIFF\x24\0\0\0WAVEfmt " + bytes(28),
    "HTML": b"<!DOCTYPE html><p>Hello</p>",
    "ZIP archive": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_format_that_is_known_and_not_taken_is_named(name: str) -> None:
    for refuse in (check, decode):
        with pytest.raises(UnreadableImage) as caught:
            refuse(NAMED[name])
        said = str(caught.value)
        assert f"is in the format {name.strip()}, which is not taken" in said
        assert all(form in said for form in FORMATS)


@pytest.mark.parametrize("form", ["PNG", "GIF", "TIFF", "JPEG", "AVIF"])
def test_a_broken_header_of_a_format_that_is_taken_is_called_so(form: str) -> None:
    data = encoded(still(), form)
    with pytest.raises(UnreadableImage, match=f"begins as {form} does|cannot be decoded"):
        decode(data[:12] + b"\xa5" * 40)
