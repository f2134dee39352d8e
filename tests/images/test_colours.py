"""A picture's colours are those that are shown, whatever its numbers mean."""

import io
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch
from PIL import ImageCms

from filter_service.demo import POLICY, SAMPLES
from filter_service.images import decode
from filter_service.images.views import View
from filter_service.policy import read_policy
from filter_service.verdicts import Verdict, judge, score
from tests.support.bad_files import encoded, png, still
from tests.support.colour_profiles import PROFILES, SRGB_XYZ, cmyk_profile, grey_profile, profile
from tests.support.console_world import labelled
from tests.support.painted_files import gama, iccp, made_png
from tests.support.precision import bundled

SEEN = {  # how browsers show stored (200, 100, 60)
    "sRGB": (200, 100, 60),
    "P3": (215, 93, 47),
    "Adobe RGB": (227, 100, 55),
    "ProPhoto": (255, 80, 64),
    "linear": (229, 168, 133),
    "exchanged": (100, 200, 60),
}
Judged = tuple[list[Verdict], npt.NDArray[np.floating]]
COMPARED = 120  # samples, half of them forbidden
BROWN = PIL.Image.new("RGB", (16, 16), (200, 100, 60))


def colour(data: bytes) -> npt.NDArray[np.int64]:
    """Of the middle of the first frame."""
    picture = decode(data).frames[0].picture
    return np.array(picture.getpixel((picture.width // 2, picture.height // 2)))


def stored_as(picture: PIL.Image.Image, name: str) -> bytes:
    """A PNG that looks the same under this profile."""
    there = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name]))
    here = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES["sRGB"]))
    turned = ImageCms.profileToProfile(picture, here, there)
    assert turned is not None
    return encoded(turned, "PNG", icc_profile=PROFILES[name], compress_level=1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("name", PROFILES)
def test_an_embedded_profile_is_obeyed(form: str, name: str) -> None:
    shown = colour(encoded(BROWN, form, icc_profile=PROFILES[name], quality=100))
    assert abs(shown - SEEN[name]).max() <= 4


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_a_profile_of_greys_is_obeyed(form: str) -> None:
    dim = PIL.Image.new("L", (16, 16), 125)
    assert abs(colour(encoded(dim, form, icc_profile=grey_profile(1.0))) - 186).max() <= 1


def test_a_profile_of_inks_is_obeyed() -> None:
    red = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    plain, dull = (colour(encoded(red, "JPEG", icc_profile=p)) for p in (None, cmyk_profile()))
    assert abs(plain - (254, 0, 0)).max() <= 3
    assert abs(dull - (255, 149, 124)).max() <= 4


UNUSABLE = {
    "no profile": b"no profile" * 20,
    "half a profile": PROFILES["exchanged"][:300],
    "for greys": grey_profile(1.0),
    "for inks": cmyk_profile(),
    "too large": PROFILES["exchanged"].ljust(4 * 2**20 + 1, b"\0"),
}


@pytest.mark.parametrize("what", UNUSABLE)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_profile_that_cannot_be_used_is_as_none_and_said(form: str, what: str) -> None:
    image = decode(encoded(BROWN, form, icc_profile=UNUSABLE[what]))
    assert abs(colour(encoded(BROWN, form, icc_profile=UNUSABLE[what])) - SEEN["sRGB"]).max() <= 3
    (note,) = image.notes
    assert note.startswith("The colours are shown as if there were no ICC profile: ")
    assert note.endswith(".") and note.isprintable()


def test_a_profile_that_cannot_be_used_gives_way_to_the_next_statement() -> None:
    data = made_png(np.asarray(BROWN), 2, iccp(b"no profile" * 20), gama(100_000))
    assert abs(colour(data) - SEEN["linear"]).max() <= 1
    assert len(decode(data).notes) == 1


def test_a_bomb_of_a_profile_is_not_unpacked() -> None:
    bomb = b"made\0\0" + zlib.compress(bytes(40 * 2**20), 1)
    assert "more than 4,194,304 bytes" in decode(png(1, 1, (b"iCCP", bomb), _PIXEL)).notes[0]


_PIXEL = (b"IDAT", zlib.compress(b"\0\x80"))


def test_nothing_is_said_of_ordinary_colours() -> None:
    for data in (None, PROFILES["sRGB"], PROFILES["P3"]):
        assert decode(encoded(still(), "JPEG", icc_profile=data)).notes == ()


def test_a_profile_that_changes_nothing_changes_no_pixel() -> None:
    plain, named = (encoded(still(), "PNG", icc_profile=p) for p in (None, PROFILES["sRGB"]))
    assert decode(plain).frames[0].picture.tobytes() == decode(named).frames[0].picture.tobytes()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF"])
def test_every_frame_of_a_file_is_converted(form: str) -> None:
    more = {"save_all": True, "append_images": [BROWN], "icc_profile": PROFILES["exchanged"]}
    frames = decode(encoded(PIL.Image.new("RGB", (16, 16)), form, quality=100, **more)).frames
    assert np.abs(np.asarray(frames[1].picture)[8, 8] - np.array(SEEN["exchanged"])).max() <= 4


@pytest.mark.parametrize("name", ["P3", "Adobe RGB", "exchanged"])
def test_colours_of_a_reduced_jpeg_are_those_of_the_full_one(name: str) -> None:
    big = still(size=(960, 640)).resize((48, 32)).resize((960, 640))
    data = encoded(big, "JPEG", quality=95, icc_profile=PROFILES[name])
    small, full = decode(data, at_least=112), decode(data)
    assert (small.drafted, full.drafted) == (True, False)
    reduced = full.frames[0].picture.resize(small.frames[0].picture.size, PIL.Image.Resampling.BOX)
    apart = np.abs(np.asarray(reduced, float) - np.asarray(small.frames[0].picture, float))
    assert apart.mean() < 1


@pytest.mark.parametrize("name", ["ProPhoto", "linear"])
def test_a_jpeg_whose_light_is_coded_otherwise_is_not_reduced(name: str) -> None:
    data = encoded(still(size=(960, 640)), "JPEG", icc_profile=PROFILES[name])
    assert not decode(data, at_least=112).drafted


def test_threads_convert_alike() -> None:
    files = [encoded(still(), "PNG", icc_profile=data) for data in PROFILES.values()]
    files += [encoded(still(), "PNG", icc_profile=profile(SRGB_XYZ, (g,))) for g in (1.2, 1.4, 3)]
    alone = [decode(data).frames[0].picture.tobytes() for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = [i.frames[0].picture.tobytes() for i in threads.map(decode, files * 8)]
    assert together == alone * 8


@pytest.fixture(scope="module")
def samples() -> list[PIL.Image.Image]:
    names = labelled(True)[: COMPARED // 2] + labelled(False)[: COMPARED // 2]
    return [PIL.Image.open(SAMPLES / name).convert("RGB") for name in names]


def verdicts(files: Iterable[bytes]) -> Judged:
    """Of each file by the bundled model; and the margins, in logits: (files, classes)."""
    policy, encoder = read_policy(POLICY), bundled()
    pixels = torch.stack([encoder.pixels(decode(f).frames[0].picture) for f in files])
    margins = encoder.vectors(policy).margins(encoder.encode(pixels))
    return [judge(score(m[None], (View(),), (True,), policy)) for m in margins], margins


@pytest.fixture(scope="module")
def as_they_are(samples: list[PIL.Image.Image]) -> Judged:
    return verdicts(encoded(picture, "PNG") for picture in samples)


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "sRGB"])
def test_no_verdict_depends_on_how_colours_are_stored(
    samples: list[PIL.Image.Image], as_they_are: Judged, name: str
) -> None:
    before, margins = as_they_are
    after, others = verdicts(stored_as(picture, name) for picture in samples)
    assert after == before
    assert np.median(np.abs(others - margins).max(axis=1)) < 1


def test_what_is_shown_as_forbidden_by_its_gamma_is_flagged(
    samples: list[PIL.Image.Image], as_they_are: Judged
) -> None:
    """Light stored as it is, and one number in the file that says so."""
    flagged = [p for p, v in zip(samples, as_they_are[0], strict=True) if v is Verdict.FLAGGED]
    linear = ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4 * 255  # (256,)
    files = [
        made_png(linear.round().astype(np.uint8)[np.asarray(p)], 2, gama(100_000))
        for p in flagged[:6]
    ]
    assert set(verdicts(files)[0]) == {Verdict.FLAGGED}
