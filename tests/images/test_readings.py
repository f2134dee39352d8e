"""Where viewers show a file in several ways, each of them is judged, named and drawn."""

import numpy as np
import PIL.Image
import pytest

from filter_service.errors import UnreadableImage
from filter_service.images import BACKGROUND, Image, Limits, decode, digest
from filter_service.rendering import renditions
from filter_service.storage import Storage
from tests.support.bad_files import encoded, still
from tests.support.painted_files import bmp, translucent

DARK = (18, 18, 18)
SIZE = (64, 64)


def readings(data: bytes) -> list[str]:
    return [f.reading for f in decode(data).frames]


def corner(image: Image, reading: str) -> tuple[int, ...]:
    found = image.frame(0, reading).picture.getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


def with_hole(side: int, alpha: int = 0) -> bytes:
    """A PNG of which so many pixels, both ways, let the page through."""
    drawn = PIL.Image.new("RGBA", SIZE, (200, 100, 60, 255))
    drawn.paste((255, 255, 255, alpha), (0, 0, side, side))
    return encoded(drawn, "PNG")


def turned(form: str) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(still(), form, exif=exif)


def test_alpha_is_laid_over_a_light_page_and_over_a_dark_one() -> None:
    image = decode(with_hole(32))
    assert [f.reading for f in image.frames] == ["", "over dark"]
    assert (corner(image, ""), corner(image, "over dark")) == (BACKGROUND, DARK)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF", "TIFF", "BMP"])
def test_a_white_drawing_is_seen_over_a_dark_page(form: str) -> None:
    drawn = PIL.Image.new("RGBA", SIZE, (255, 255, 255, 0))
    drawn.paste((255, 255, 255, 255), (16, 16, 48, 48))
    data = bmp(drawn) if form == "BMP" else encoded(drawn, form)
    image = decode(data)
    plain, dark = (np.asarray(image.frame(0, r).picture) for r in ("", "over dark"))
    assert plain.std() < 1
    assert dark.std() > 50


@pytest.mark.parametrize("data", [with_hole(0), with_hole(64, 250), with_hole(32, 255)])
def test_alpha_that_nobody_sees_makes_no_reading(data: bytes) -> None:
    assert readings(data) == [""]


def test_a_small_hole_is_seen() -> None:
    assert readings(with_hole(2)) == ["", "over dark"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [("PNG", ["", "not turned"]), ("WEBP", ["", "not turned"]), ("JPEG", [""]), ("TIFF", [""])],
)
def test_a_disputed_orientation_is_read_both_ways(form: str, expected: list[str]) -> None:
    image = decode(turned(form))
    assert [f.reading for f in image.frames] == expected
    assert image.frames[0].picture.size == (32, 48)
    assert image.frames[-1].picture.size == ((48, 32) if len(expected) > 1 else (32, 48))


def test_an_orientation_outside_exif_is_not_obeyed() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(encoded(still(), "JPEG", xmp=xmp)).frames[0].picture.size == (48, 32)


def test_readings_are_combined() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = encoded(translucent(), "WEBP", lossless=True, exif=exif)
    assert readings(data) == ["", "not turned", "over dark", "over dark, not turned"]


def test_a_bmp_that_is_all_transparent_is_opaque() -> None:
    drawn = still().convert("RGBA")
    drawn.putalpha(0)
    (frame,) = decode(bmp(drawn)).frames
    np.testing.assert_array_equal(frame.picture, still())


def test_the_alpha_of_a_bmp_is_obeyed_and_ignored() -> None:
    image = decode(bmp(translucent()))
    assert [f.reading for f in image.frames] == ["", "over dark", "without alpha"]
    np.testing.assert_array_equal(
        image.frame(0, "without alpha").picture, translucent().convert("RGB")
    )


def test_inks_that_nobody_signed_are_read_both_ways() -> None:
    signed = encoded(PIL.Image.new("CMYK", SIZE, (0, 255, 255, 0)), "JPEG", quality=95)
    image = decode(signed.replace(b"Adobe", b"Plain", 1))
    assert (readings(signed), [f.reading for f in image.frames]) == ([""], ["", "inks inverted"])
    red, black = (np.array(corner(image, r)) for r in ("", "inks inverted"))
    assert abs(red - (254, 0, 0)).max() < 5 and black.max() < 5


def test_one_reading_of_one_frame_can_be_asked_for() -> None:
    (frame,) = decode(with_hole(32), only=0, reading="over dark").frames
    assert (frame.reading, frame.picture.getpixel((0, 0))) == ("over dark", DARK)


def test_a_reading_that_is_none_is_a_sentence() -> None:
    with pytest.raises(UnreadableImage, match="no reading 'upside down'; ask for one of '', 'over"):
        decode(with_hole(32), only=0, reading="upside down")


def test_readings_have_names_of_letters() -> None:
    """They become part of a view's name, which ends in numbers."""
    for data in (bmp(translucent()), turned("WEBP"), with_hole(32)):
        assert all(c.isalpha() or c in ", " for r in readings(data) for c in r)


def test_what_a_moderator_is_shown_is_the_reading_that_was_judged(tmp_path: object) -> None:
    storage = Storage(str(tmp_path))
    data = with_hole(64)
    storage.put(digest(data), data)
    shown = {
        reading: renditions.points(storage, digest(data), 0, Limits(), reading).grey.getpixel(
            (0, 0)
        )
        for reading in ("", "over dark")
    }
    assert shown == {"": 255, "over dark": 18}
    light, dark = (
        renditions.original(storage, digest(data), 0, Limits(), reading) for reading in shown
    )
    assert len({light, dark}) == 2
