"""Every kind of file becomes upright RGB frames or a sentence that says why not."""

import hashlib
import io
import pickle
import random
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from filter_service.errors import ImageError, ImageTooLarge, UnreadableImage
from filter_service.images import BACKGROUND, FORMATS, Image, Limits, decode, digest, read
from filter_service.settings import Settings
from tests.support.bad_files import (
    SIZE,
    animated,
    corrupted,
    encoded,
    gif,
    make_bad_files,
    png,
    spoiled_animation,
    still,
    tiff,
)

LOSSLESS = {"WEBP": {"lossless": True}}
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """The first frame as an array (h, w, 3)."""
    return np.asarray(decode(data).frames[0].picture)


def numbers(image: Image) -> tuple[int, ...]:
    return tuple(f.number for f in image.frames)


def sample(form: str) -> bytes:
    """A small file of a format, or an animation of "animated FORMAT"."""
    still_form = form.removeprefix("animated ")
    return encoded(still(), form) if still_form == form else animated(still_form)


def grey(image: Image) -> list[int]:
    """The grey of the left half of each frame: ten times its number."""
    return [round(np.asarray(f.picture)[4:-4, 4 : SIZE[0] // 2 - 4].mean()) for f in image.frames]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("bad")
    return folder, make_bad_files(folder)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_becomes_rgb(form: str) -> None:
    image = decode(encoded(still(), form))
    assert (image.format, image.width, image.height) == (form, *SIZE)
    assert (numbers(image), image.drafted) == ((0,), False)
    assert [(f.picture.mode, f.picture.size) for f in image.frames] == [("RGB", SIZE)]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "TIFF"])
def test_a_lossless_file_is_decoded_exactly(form: str) -> None:
    data = encoded(still(), form, **LOSSLESS.get(form, {}))
    np.testing.assert_array_equal(pixels(data), np.asarray(still()))


def test_an_image_is_known_by_its_bytes() -> None:
    data = encoded(still(), "PNG")
    assert decode(data).digest == digest(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(form: str, orientation: int) -> None:
    upright = PIL.Image.new("RGB", (48, 32), (20, 20, 20))
    upright.paste((240, 240, 240), (0, 0, 24, 16))  # a light corner, top left
    undo = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]  # Transpose that makes the stored picture
    stored = upright if undo is None else upright.transpose(PIL.Image.Transpose(undo))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, form, exif=exif))
    assert (image.width, image.height) == image.frames[0].picture.size == (48, 32)
    corners = np.asarray(image.frames[0].picture)[[4, 4, -5, -5], [4, -5, 4, -5], 0]
    assert list(corners > 128) == [True, False, False, False]


def test_a_broken_orientation_is_upright() -> None:
    data = encoded(still(), "PNG", exif=b"Exif\0\0no such header")
    assert decode(data).frames[0].picture.size == SIZE


def test_cmyk_becomes_rgb() -> None:
    red = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert abs(pixels(encoded(red, "JPEG"))[8, 8] - np.array([254, 0, 0])).max() <= 3


def test_a_palette_becomes_its_colours() -> None:
    picture = still().quantize(16)
    np.testing.assert_array_equal(pixels(encoded(picture, "PNG")), picture.convert("RGB"))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    scaled = pixels(encoded(PIL.Image.fromarray(values), form))
    np.testing.assert_array_equal(scaled[0, :, 0], [0, 1, 128, 255])


def test_twelve_bits_are_scaled_by_twelve() -> None:
    data = tiff(2, 1, tag258=12)
    offset = struct.pack("<HHII", 273, 4, 1, len(data))
    data = data.replace(struct.pack("<HHII", 273, 4, 1, 8), offset)
    data = data.replace(struct.pack("<HHII", 279, 4, 1, 1), struct.pack("<HHII", 279, 4, 1, 3))
    assert list(pixels(data + b"\xff\xf8\x00")[0, :, 0]) == [255, 128]


def test_sixteen_bits_with_white_at_zero_are_turned() -> None:
    data = encoded(PIL.Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)), "TIFF")
    flipped = data.replace(
        struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHII", 262, 3, 1, 0)
    )
    assert list(pixels(flipped)[0, :, 0]) == [255, 0]


def test_a_transparent_grey_of_sixteen_bits_shows_the_background() -> None:
    rows = struct.pack(">B2H", 0, 1000, 0)
    data = png(2, 1, (b"tRNS", struct.pack(">H", 1000)), (b"IDAT", _deflate(rows)), depth=16)
    assert [tuple(p) for p in pixels(data)[0]] == [BACKGROUND, (0, 0, 0)]


@pytest.mark.parametrize(("mode", "form"), [("LA", "PNG"), ("RGBA", "PNG"), ("PA", "TIFF")])
def test_alpha_is_laid_over_the_background(mode: str, form: str) -> None:
    black = PIL.Image.new(mode, (2, 1), 0)
    black.putalpha(PIL.Image.fromarray(np.array([[0, 255]], dtype=np.uint8)))
    flat = pixels(encoded(black, form))
    assert [tuple(p) for p in flat[0]] == [BACKGROUND, (0, 0, 0)]


def test_half_an_alpha_is_half_the_background() -> None:
    assert tuple(pixels(encoded(PIL.Image.new("RGBA", (1, 1), (0, 0, 0, 127)), "PNG"))[0, 0]) == (
        128,
        128,
        128,
    )


def test_a_transparent_palette_entry_shows_the_background() -> None:
    picture = PIL.Image.new("P", (2, 1), 0)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    flat = pixels(encoded(picture, "GIF", transparency=0))
    assert [tuple(p) for p in flat[0]] == [BACKGROUND, (40, 50, 60)]


@pytest.mark.parametrize("form", ANIMATED)
def test_every_frame_of_an_animation_is_decoded(form: str) -> None:
    image = decode(animated(form))
    assert numbers(image) == (0, 1, 2, 3, 4)
    np.testing.assert_allclose(grey(image), [0, 10, 20, 30, 40], atol=4)


@pytest.mark.parametrize("form", ANIMATED)
def test_of_many_frames_some_are_kept_from_first_to_last(form: str) -> None:
    image = decode(animated(form, 11), Limits(max_frames=4))
    kept = numbers(image)
    assert (len(kept), kept[0], kept[-1]) == (4, 0, 10)
    np.testing.assert_allclose(grey(image), [10 * n for n in kept], atol=4)


def test_a_single_frame_may_be_asked_for() -> None:
    assert numbers(decode(animated("GIF"), Limits(max_frames=1))) == (0,)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [5, 2])
def test_one_bad_frame_makes_an_animation_unreadable(form: str, kept: int) -> None:
    with pytest.raises(UnreadableImage, match="Frame 2 of 0 to 4 cannot be decoded"):
        decode(spoiled_animation(form), Limits(max_frames=kept))


@pytest.mark.parametrize("form", [*FORMATS, "animated PNG", "animated WEBP", "animated AVIF"])
def test_a_cut_file_is_never_decoded(form: str) -> None:
    data = sample(form)
    for percent in range(2, 96, 3):
        with pytest.raises(ImageError):
            decode(data[: len(data) * percent // 100])


def test_a_gif_cut_between_two_frames_is_a_shorter_one() -> None:
    data = animated("GIF")
    for end in range(len(data) // 2, len(data) - 1, 50):
        answer = _answer(data[:end])
        if isinstance(answer, Image):
            whole = decode(data).frames[: len(answer.frames)]
            assert [f.picture.tobytes() for f in answer.frames] == [
                f.picture.tobytes() for f in whole
            ]


def test_auxiliary_pictures_of_a_jpeg_are_left_out() -> None:
    data = encoded(still(), "MPO", save_all=True, append_images=[still(1)])
    assert numbers(decode(data)) == (0,)
    assert numbers(decode(data[:-200])) == (0,)  # as tools leave it that strip them


def test_no_bad_file_is_decoded(bad: tuple[Path, dict[str, str]]) -> None:
    folder, wrong = bad
    assert len(wrong) >= 30
    for name, what in wrong.items():
        with pytest.raises(ImageError):
            pytest.fail(f"{what}: {decode(read(folder / name))!r}")


def test_bad_files_are_told_in_sentences(bad: tuple[Path, dict[str, str]]) -> None:
    folder, wrong = bad
    for name in wrong:
        with pytest.raises(ImageError) as caught:
            decode(read(folder / name))
        said = str(caught.value)
        assert said.endswith(".") and said.isprintable() and len(said) < 600
        assert str(pickle.loads(pickle.dumps(caught.value))) == said


def test_every_file_in_the_folder_is_named(bad: tuple[Path, dict[str, str]]) -> None:
    folder, wrong = bad
    assert {p.name for p in folder.iterdir()} == set(wrong)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder.jpg", "is a folder"),
        ("pipe.jpg", "is a named pipe"),
        ("socket.jpg", "is a socket"),
        ("device.jpg", "is a device"),
        ("loop.jpg", "Too many levels of symbolic links"),
        ("dangling.jpg", "No such file"),
    ],
)
def test_only_regular_files_are_read(
    bad: tuple[Path, dict[str, str]], name: str, reason: str
) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        read(bad[0] / name)


def test_a_refusal_to_read_is_told(tmp_path: Path) -> None:
    class Locked(type(tmp_path)):  # type: ignore[misc]
        """A file of somebody else: root, who may run the tests, is refused nothing."""

        def open(self, *_: object, **__: object) -> io.BytesIO:
            raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "a.jpg").write_bytes(b"secret")
    with pytest.raises(UnreadableImage, match="Permission denied"):
        read(Locked(tmp_path / "a.jpg"))


def test_a_heavy_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(2**33)  # sparse
    with pytest.raises(ImageTooLarge, match="8,589,934,592 bytes, the limit is 100"):
        read(tmp_path / "a.jpg", Limits(max_bytes=100))


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"whole")
    assert read(tmp_path / "a.jpg") == b"whole"


def test_bytes_have_a_limit() -> None:
    data = encoded(still(), "PNG")
    decode(data, Limits(max_bytes=len(data)))
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode(data, Limits(max_bytes=len(data) - 1))


def test_pixels_have_a_limit() -> None:
    data = encoded(still(), "PNG")
    decode(data, Limits(max_pixels=48 * 32))
    with pytest.raises(ImageTooLarge, match="1,536 pixels, the limit is 1,535"):
        decode(data, Limits(max_pixels=48 * 32 - 1))


def test_pixels_are_counted_over_the_frames_kept() -> None:
    data = animated("GIF")
    decode(data, Limits(max_pixels=2 * 48 * 32, max_frames=2))
    with pytest.raises(ImageTooLarge, match="frames to be judged"):
        decode(data, Limits(max_pixels=2 * 48 * 32, max_frames=3))


def test_pixels_are_refused_before_they_are_decoded() -> None:
    # Of 90 million pixels only the header is there: decoding would call it truncated.
    with pytest.raises(ImageTooLarge, match="90,000,000 pixels"):
        decode(png(10_000, 9_000, (b"IDAT", b"")), Limits(max_pixels=80_000_000))


def test_frames_passed_over_are_counted_before_they_are_decoded() -> None:
    with pytest.raises(ImageTooLarge, match="1,001,000,000 pixels in 1,001 frames"):
        decode(gif(1_001, 1_000, 1_000), Limits(max_pixels=1_000_000, max_frames=1))


@pytest.mark.parametrize("data", [gif(5_001, 1, 1), tiff(1, 1, pages=5_001)])
def test_frames_have_a_limit(data: bytes) -> None:
    with pytest.raises(ImageTooLarge, match="more than 5,000 frames"):
        decode(data)


def test_endless_pages_are_not_counted_to_the_end() -> None:
    start = time.process_time()
    with pytest.raises(ImageTooLarge, match="more than 5,000 frames"):
        decode(tiff(1, 1, pages=40_000))  # Pillow would count for a minute
    assert time.process_time() - start < 15


def test_later_pages_are_measured_too() -> None:
    pages = [still(size=(8, 8)), still(size=(64, 64))]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageTooLarge, match="4,160 pixels"):
        decode(data, Limits(max_pixels=100))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((896, 448), (448, 224)), ((446, 446), (446, 446)), ((2000, 1000), (500, 250))],
)
def test_a_jpeg_is_drafted_no_smaller_than_twice_what_is_needed(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = decode(encoded(still(size=size), "JPEG"), at_least=112)
    assert image.frames[0].picture.size == expected
    assert image.drafted == (expected != size)
    assert (image.width, image.height) == size


def test_a_drafted_jpeg_is_upright() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = decode(encoded(still(size=(800, 400)), "JPEG", exif=exif), at_least=50)
    assert (image.width, image.height, image.frames[0].picture.size) == (400, 800, (100, 200))


def test_other_formats_are_not_drafted() -> None:
    assert not decode(encoded(still(size=(800, 400)), "PNG"), at_least=50).drafted


def test_limits_are_those_of_the_settings() -> None:
    assert Limits.of(Settings()) == Limits()
    assert Limits.of(Settings(max_bytes=1, max_pixels=2, max_frames=3)) == Limits(1, 2, 3)


class Raising(bytes):
    """Bytes that are no image, and raise what a decoder might when they are looked at."""

    error: type[Exception]

    def __getitem__(self, _: object) -> bytes:  # type: ignore[override]
        raise self.error("some reason")


@pytest.mark.parametrize(
    "error",
    [
        AssertionError,
        AttributeError,
        BufferError,
        EOFError,
        IndexError,
        KeyError,
        NotImplementedError,
        OSError,
        RecursionError,
        SyntaxError,
        SystemError,
        TypeError,
        UserWarning,
        ValueError,
        ZeroDivisionError,
        struct.error,
        zlib.error,
    ],
)
def test_what_decoders_raise_becomes_a_sentence(error: type[Exception]) -> None:
    data = Raising(b"not an image")
    data.error = error
    with pytest.raises(UnreadableImage, match=rf"\({error.__name__}: .*some reason'?\); submit"):
        decode(data)


def test_too_little_memory_is_too_large_an_image() -> None:
    data = Raising(b"not an image")
    data.error = MemoryError
    with pytest.raises(ImageTooLarge, match="too much memory"):
        decode(data)


def test_a_time_limit_passes_through() -> None:
    class SoftTimeLimitExceeded(Exception):
        pass

    data = Raising(b"not an image")
    data.error = SoftTimeLimitExceeded
    with pytest.raises(SoftTimeLimitExceeded):
        decode(data)


def test_threads_decode_alike() -> None:
    files = [animated(form) for form in ANIMATED] + [encoded(still(), form) for form in FORMATS]
    alone = [[f.picture.tobytes() for f in decode(data).frames] for data in files]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(decode, files * 5))
    assert [[f.picture.tobytes() for f in i.frames] for i in together] == alone * 5


def test_the_warnings_of_pillow_are_not_heard() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(png(10_000, 9_000, (b"IDAT", _deflate(bytes(9_000 * 10_001)))))


@pytest.mark.parametrize("form", [*FORMATS, *(f"animated {form}" for form in ANIMATED)])
def test_corrupted_files_are_decoded_or_refused(
    form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = sample(form)
    chance = random.Random(form)
    answers = [_answer(corrupted(data, chance)) for _ in range(300)]
    assert {type(a) for a in answers} == {Image, str}  # anything else was raised
    assert all(f.picture.mode == "RGB" for a in answers if isinstance(a, Image) for f in a.frames)
    assert capfd.readouterr().err == ""


def _answer(data: bytes) -> Image | str:
    try:
        return decode(data, Limits(max_pixels=1_000_000, max_frames=8))
    except ImageError as error:
        return str(error)


def _deflate(rows: bytes) -> bytes:
    return zlib.compress(rows, 1)
