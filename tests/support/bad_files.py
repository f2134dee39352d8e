"""Makes corrupt, foreign and oversized image files, and small good ones to corrupt."""

import io
import os
import random
import socket
import stat
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

TOO_MANY_BYTES = 33 * 2**20  # more than the default limit
SIZE = (48, 32)  # of the good files


def make_bad_files(folder: Path) -> dict[str, str]:
    """Fill the folder; name of each file -> what is wrong with it."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {**_truncated(), **_foreign(), **_broken(), **_animations(), **_bombs()}
    for name, (_, data) in contents.items():
        (folder / name).write_bytes(data)
    return {name: wrong for name, (wrong, _) in contents.items()} | _special(folder)


def still(seed: int = 0, size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """A picture with both smooth and noisy parts."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise[:, : width // 2] = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    return PIL.Image.fromarray(noise)


def encoded(picture: PIL.Image.Image, form: str, **options: object) -> bytes:
    """The picture as a file of this format."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def animated(form: str, count: int = 5, **options: object) -> bytes:
    """Frames of one grey each, 10 brighter from frame to frame, on a noisy right half."""
    frames = []
    for number in range(count):
        frame = still(number)
        frame.paste((10 * number,) * 3, (0, 0, SIZE[0] // 2, SIZE[1]))
        frames.append(frame)
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options)


def spoiled_animation(form: str) -> bytes:
    """An animation of five frames whose number 2 cannot be decoded."""
    return {"GIF": _spoiled_gif, "PNG": _spoiled_apng, "WEBP": _spoiled_webp}[form]()


def gif(frames: int, width: int, height: int) -> bytes:
    """A small file with as many frames of one pixel as wished, on a canvas as large as wished."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b";"


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8) -> bytes:
    """A grey PNG with a header of this size and these chunks after it."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )


def tiff(width: int, height: int, pages: int = 1, **tags: int) -> bytes:
    """A TIFF of 8-bit grey pages that promise this size and hold one byte."""
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 278: height, 279: 1}
    values |= {int(tag.removeprefix("tag")): value for tag, value in tags.items()}
    file = bytearray(b"II*\0" + struct.pack("<I", 8))
    for page in range(pages):
        after = len(file) + 2 + 12 * len(values) + 4
        file += struct.pack("<H", len(values))
        file += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
        file += struct.pack("<I", after if page < pages - 1 else 0)
    return bytes(file)


Contents = dict[str, tuple[str, bytes]]  # name -> what is wrong, bytes


def _truncated() -> Contents:
    formats = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")
    cut = {f"truncated.{f}": (f"a {f} cut at 60 %", _cut(encoded(still(), f))) for f in formats}
    jpeg = encoded(still(), "jpeg")
    return cut | {
        "progressive.jpg": ("a cut JPEG", _cut(encoded(still(), "jpeg", progressive=True))),
        "header.jpg": ("the first 20 bytes of a JPEG", jpeg[:20]),
        "one-byte.jpg": ("the first byte of a JPEG", jpeg[:1]),
        "empty.jpg": ("zero bytes", b""),
        "magic.bmp": ("nothing after BM", b"BM"),
        "magic.gif": ("nothing after the magic number", b"GIF89a"),
        "no-frame.gif": ("a GIF without a frame", gif(0, 4, 4)),
        "no-data.png": ("a PNG without pixels", png(4, 4)),
    }


def _foreign() -> Contents:
    return {
        "text.jpg": ("text with the wrong extension", b"I am not an image.\n" * 9),
        "page.png": ("a web page with the wrong extension", b"<!doctype html><p>Hello</p>"),
        "document.pdf": ("a PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"),
        "drawing.svg": ("a vector drawing", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "archive.jpg": ("a zip archive", b"PK\x03\x04" + bytes(60)),
        "program.png": ("an executable", b"\x7fELF" + bytes(60)),
        "sound.webp": ("a sound", b"RIFF\x24\0\0\0WAVEfmt " + bytes(28)),
        "film.avif": ("a film", b"\0\0\0\x18ftypisom" + bytes(12)),
        "postscript.jpg": ("a program in PostScript", encoded(still(), "eps")),
        "icon.jpg": ("an image in a format not taken", encoded(still(), "ico")),
        "noise.jpg": ("random bytes", random.Random(0).randbytes(5000)),
    }


def _broken() -> Contents:
    whole = encoded(still(), "png")
    pixels = whole.index(b"IDAT")
    jpeg = encoded(still(), "jpeg")
    size = jpeg.index(b"\xff\xc0") + 5
    webp = encoded(still(), "webp", lossless=True)
    return {
        "garbled.png": ("pixels overwritten", _overwritten(whole, pixels + 40)),
        "no-stream.png": ("pixels not compressed", png(4, 4, (b"IDAT", b"not compressed"))),
        "no-size.jpg": ("a JPEG of 0 × 0", jpeg[:size] + bytes(4) + jpeg[size + 4 :]),
        "no-tables.jpg": ("no quantisation tables", jpeg.replace(b"\xff\xdb", b"\xff\xfe")),
        "garbled.webp": ("header overwritten", webp[:20] + b"\0" * 8 + webp[28:]),
        "float.tiff": ("32-bit samples", encoded(PIL.Image.new("F", (4, 4), 0.5), "tiff")),
        "samples.tiff": ("9,999 samples per pixel", tiff(4, 4, tag277=9999)),
        "compression.tiff": ("an unknown compression", tiff(4, 4, tag259=4242)),
        "box.avif": ("nothing after the first box", encoded(still(), "avif")[:40]),
        "name-\udcff.jpg": ("noise, and a name that is not text", b"\xff\xd8\xff" + bytes(99)),
    }


def _animations() -> Contents:
    return {
        f"bad-frame.{form.lower()}": (
            f"an animated {form} with one bad frame",
            spoiled_animation(form),
        )
        for form in ("GIF", "PNG", "WEBP")
    } | {"frames.gif": ("20,000 frames", gif(20_000, 1, 1))}


def _bombs() -> Contents:
    black = zlib.compress(bytes(20_000 * (20_000 // 8 + 1)), 9)
    jpeg = encoded(still(), "jpeg")
    size = jpeg.index(b"\xff\xc0") + 5
    vast = struct.pack(">HH", 40_000, 40_000)
    return {
        "header.png": ("a header of 40,000 × 40,000", png(40_000, 40_000, (b"IDAT", b"x"))),
        "vast.jpg": ("a header of 40,000 × 40,000", jpeg[:size] + vast + jpeg[size + 4 :]),
        "bomb.png": ("400 million pixels", png(20_000, 20_000, (b"IDAT", black), depth=1)),
        "bomb.gif": ("2,000 frames of 25 million pixels", gif(2_000, 5_000, 5_000)),
        "vast.tiff": ("a header of 60,000 × 60,000", tiff(60_000, 60_000)),
    }


def _special(folder: Path) -> dict[str, str]:
    """What is in a folder and is no file, or cannot be read."""
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    _make_socket(folder / "socket.jpg")
    locked = folder / "locked.jpg"
    locked.write_bytes(b"noise for those who may read everything")
    locked.chmod(0)
    with (folder / "heavy.jpg").open("wb") as file:
        file.truncate(TOO_MANY_BYTES)  # sparse: takes no room
    return {
        "folder.jpg": "a folder",
        "pipe.jpg": "a named pipe, which blocks who opens it",
        "loop.jpg": "a symbolic link to itself",
        "dangling.jpg": "a symbolic link to nothing",
        "device.jpg": "an endless device",
        "socket.jpg": "a socket",
        "locked.jpg": "no permission to read it",
        "heavy.jpg": "more bytes than the limit",
    }


def _make_socket(path: Path) -> None:
    # The address of a socket is at most 107 bytes long, so it is made elsewhere and moved.
    with tempfile.TemporaryDirectory(dir=path.parent) as short:
        short_path = os.path.relpath(Path(short) / "s")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(short_path)
        Path(short_path).rename(path)
    assert stat.S_ISSOCK(path.stat().st_mode)


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 6 // 10]


def _overwritten(data: bytes, start: int, count: int = 24) -> bytes:
    return data[:start] + b"\xa5" * count + data[start + count :]


def _nth(data: bytes, mark: bytes, n: int) -> int:
    """Where the mark stands for the n-th time, from 0."""
    place = -1
    for _ in range(n + 1):
        place = data.index(mark, place + 1)
    return place


def _spoiled_gif() -> bytes:
    data = bytearray(animated("GIF"))
    descriptor = _nth(bytes(data), b"," + bytes(4) + struct.pack("<HH", *SIZE), 2)
    table = 3 * 2 ** ((data[descriptor + 9] & 7) + 1) if data[descriptor + 9] & 128 else 0
    data[descriptor + 10 + table] = 0xFF  # bits of a code: at most 12
    return bytes(data)


def _spoiled_apng() -> bytes:
    data = animated("PNG")
    return _overwritten(data, _nth(data, b"fdAT", 1) + 40)


def _spoiled_webp() -> bytes:
    data = animated("WEBP", lossless=True)
    return _overwritten(data, _nth(data, b"ANMF", 2) + 40, 200)


Spoiler = Callable[[random.Random, bytearray], None]


def corrupted(data: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three random faults: bits, runs, cuts, holes, doubled parts."""
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        if spoilt:
            chance.choice(_SPOILERS)(chance, spoilt)
    return bytes(spoilt)


def _flip(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _flip_head(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(min(len(data), 128))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))


def _fill(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    run = len(data[start : start + chance.randint(1, 64)])
    data[start : start + run] = bytes([chance.randrange(256)]) * run


def _truncate(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data)) :]


def _remove(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randint(1, 64)]


def _double(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    data[start:start] = data[start : start + chance.randint(1, 64)]


_SPOILERS: tuple[Spoiler, ...] = (_flip, _flip_head, _flip_head, _fill, _truncate, _remove, _double)
