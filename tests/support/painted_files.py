"""Makes image files of every kind, for comparing decoded pictures with browsers' painting.

Each is the same small picture, stored under some format, depth, palette, alpha, orientation or
colour space; they need not look the same.
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import PIL.Image

from tests.support.colour_profiles import PROFILES, cmyk_profile, grey_profile

SIZE = (48, 32)
Chunk = tuple[bytes, bytes]
PRIMARIES = {  # as cHRM has them: white, red, green, blue
    "srgb": (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    "p3": (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
}


def picture() -> PIL.Image.Image:
    """Smooth colours from edge to edge, and patches of full ones."""
    x, y = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    pixels = np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1).round().astype(np.uint8)
    drawn = PIL.Image.fromarray(pixels)
    for place, colour in enumerate([(200, 100, 60), (255, 0, 0), (0, 255, 0), (20, 40, 90)]):
        drawn.paste(colour, (4 + 11 * place, 8, 12 + 11 * place, 16))
    return drawn


def translucent() -> PIL.Image.Image:
    """The same, fading from nothing at the top to all of it at the bottom."""
    drawn = picture().convert("RGBA")
    fade = np.linspace(0, 255, SIZE[1]).round().astype(np.uint8)
    drawn.putalpha(PIL.Image.fromarray(np.repeat(fade[:, None], SIZE[0], axis=1)))
    return drawn


def ink() -> PIL.Image.Image:
    return picture().convert("CMYK")


def encoded(drawn: PIL.Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    drawn.save(file, form, **options)
    return file.getvalue()


def painted_files() -> dict[str, bytes]:
    """Every file by a name that says what it is."""
    return dict([*_png(), *_png_colours(), *_jpeg(), *_webp(), *_avif(), *_gif(), *_bmp()])


def made_png(pixels: npt.NDArray[np.integer], kind: int, *chunks: Chunk, depth: int = 8) -> bytes:
    """A PNG of these samples, (h, w) or (h, w, channels), of this colour type and bit depth."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    rows = pixels.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    elif depth == 8:
        packed = rows.astype(np.uint8)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., -depth:]
        packed = np.packbits(bits.reshape(height, -1), axis=1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    every = [(b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, every))


def chunk(named: Chunk) -> bytes:
    name, body = named
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def iccp(data: bytes) -> Chunk:
    return b"iCCP", b"made\0\0" + zlib.compress(data)


def gama(gamma: int) -> Chunk:
    return b"gAMA", struct.pack(">I", gamma)


def chrm(name: str) -> Chunk:
    return b"cHRM", struct.pack(">8I", *PRIMARIES[name])


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> Chunk:
    return b"cICP", bytes([primaries, transfer, matrix, full])


SRGB: Chunk = (b"sRGB", b"\0")


def _png() -> Iterator[tuple[str, bytes]]:
    rgb, rgba = np.asarray(picture()), np.asarray(translucent())
    grey = np.asarray(picture().convert("L"))
    grey_alpha = np.stack([grey, rgba[..., 3]], axis=-1)
    indexed = picture().quantize(16)
    indices = np.asarray(indexed)
    colours = (b"PLTE", bytes(indexed.getpalette() or ())[:48])
    fading = (b"tRNS", bytes(range(0, 256, 17)))
    yield "PNG RGB", made_png(rgb, 2)
    yield "PNG RGB 16 bits", made_png(rgb.astype(np.uint16) * 257, 2, depth=16)
    yield "PNG grey", made_png(grey, 0)
    yield "PNG grey 16 bits", made_png(grey.astype(np.uint16) * 257, 0, depth=16)
    for depth in (1, 2, 4):
        yield f"PNG grey {depth} bits", made_png(grey >> (8 - depth), 0, depth=depth)
        yield (
            f"PNG palette {depth} bits",
            made_png(indices & (2**depth - 1), 3, colours, depth=depth),
        )
    yield "PNG palette", made_png(indices, 3, colours)
    yield "PNG palette, alpha", made_png(indices, 3, colours, fading)
    yield "PNG RGBA", made_png(rgba, 6)
    yield "PNG RGBA 16 bits", made_png(rgba.astype(np.uint16) * 257, 6, depth=16)
    yield "PNG grey, alpha", made_png(grey_alpha, 4)
    yield "PNG grey, alpha, 16 bits", made_png(grey_alpha.astype(np.uint16) * 257, 4, depth=16)
    yield "PNG RGB, one colour clear", made_png(rgb, 2, (b"tRNS", struct.pack(">3H", 255, 0, 0)))
    clear = struct.pack(">H", int(grey[10, 6]))
    yield "PNG grey, one grey clear", made_png(grey, 0, (b"tRNS", clear))
    yield (
        "PNG white on nothing",
        made_png(np.dstack([rgba[..., 3:] | 255] * 3 + [rgba[..., 3:]]), 6),
    )
    yield "PNG opaque RGBA", encoded(picture().convert("RGBA"), "PNG")
    for orientation in (3, 6):
        yield f"PNG turned {orientation}", encoded(picture(), "PNG", exif=_turned(orientation))


def _png_colours() -> Iterator[tuple[str, bytes]]:
    rgb, rgba = np.asarray(picture()), np.asarray(translucent())
    grey = np.asarray(picture().convert("L"))
    indexed = picture().quantize(16)
    colours = (b"PLTE", bytes(indexed.getpalette() or ())[:48])
    for name, data in PROFILES.items():
        yield f"PNG {name} profile", made_png(rgb, 2, iccp(data))
    p3, swapped = iccp(PROFILES["P3"]), iccp(PROFILES["exchanged"])
    yield "PNG RGBA, P3 profile", made_png(rgba, 6, p3)
    yield "PNG RGBA, exchanged profile", made_png(rgba, 6, swapped)
    yield "PNG palette, exchanged profile", made_png(np.asarray(indexed), 3, swapped, colours)
    yield (
        "PNG 16 bits, exchanged profile",
        made_png(rgb.astype(np.uint16) * 257, 2, swapped, depth=16),
    )
    yield "PNG grey, grey profile", made_png(grey, 0, iccp(grey_profile(1.0)))
    yield (
        "PNG grey, alpha, grey profile",
        made_png(np.stack([grey, rgba[..., 3]], axis=-1), 4, iccp(grey_profile(1.0))),
    )
    yield (
        "PNG grey 16 bits, grey profile",
        made_png(grey.astype(np.uint16) * 257, 0, iccp(grey_profile(1.0)), depth=16),
    )
    yield "PNG grey, RGB profile", made_png(grey, 0, iccp(PROFILES["linear"]))
    yield "PNG RGB, grey profile", made_png(rgb, 2, iccp(grey_profile(1.0)))
    yield "PNG RGB, CMYK profile", made_png(rgb, 2, iccp(cmyk_profile()))
    yield "PNG broken profile", made_png(rgb, 2, iccp(b"no profile" * 20))
    yield "PNG profile cut", made_png(rgb, 2, iccp(PROFILES["exchanged"][:300]))
    chunks: dict[str, tuple[Chunk, ...]] = {
        "gAMA 1": (gama(100000),),
        "gAMA .45455": (gama(45455),),
        "gAMA .2": (gama(20000),),
        "gAMA 0": (gama(0),),
        "cHRM P3": (chrm("p3"),),
        "gAMA .45455, cHRM P3": (gama(45455), chrm("p3")),
        "gAMA 1, cHRM sRGB": (gama(100000), chrm("srgb")),
        "sRGB, gAMA 1": (SRGB, gama(100000)),
        "iCCP P3, gAMA 1": (p3, gama(100000)),
        "iCCP exchanged, sRGB": (swapped, SRGB),
        "sRGB, cHRM P3": (SRGB, chrm("p3")),
        "iCCP broken, gAMA 1": (iccp(b"no profile" * 20), gama(100000)),
        "cICP P3": (cicp(12, 13),),
        "cICP sRGB": (cicp(1, 13),),
        "cICP linear": (cicp(1, 8),),
        "cICP 709": (cicp(1, 1),),
        "cICP BT.2020": (cicp(9, 14),),
        "cICP gamma 2.2": (cicp(1, 4),),
        "cICP gamma 2.8": (cicp(5, 5),),
        "cICP P3, iCCP exchanged": (cicp(12, 13), swapped),
        "cICP P3, sRGB, gAMA": (cicp(12, 13), SRGB, gama(100000)),
        "cICP narrow": (cicp(12, 13, 0, 0),),
        "cICP matrix 1": (cicp(12, 13, 1),),
        "cICP unspecified": (cicp(2, 2),),
        "cICP PQ": (cicp(9, 16),),
        "cICP HLG": (cicp(9, 18),),
    }
    for name, some in chunks.items():
        yield f"PNG {name}", made_png(rgb, 2, *some)
    yield "PNG grey, gAMA 1", made_png(grey, 0, gama(100000))
    yield "PNG palette, gAMA 1", made_png(np.asarray(indexed), 3, gama(100000), colours)
    yield "PNG RGBA, gAMA 1", made_png(rgba, 6, gama(100000))
    yield "PNG grey, cICP linear", made_png(grey, 0, cicp(1, 8))


def _turned(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _jpeg() -> Iterator[tuple[str, bytes]]:
    yield "JPEG", encoded(picture(), "JPEG", quality=90)
    yield "JPEG 4:4:4", encoded(picture(), "JPEG", quality=95, subsampling=0)
    yield "JPEG progressive", encoded(picture(), "JPEG", quality=90, progressive=True)
    yield "JPEG grey", encoded(picture().convert("L"), "JPEG", quality=95)
    yield "JPEG RGB kept", encoded(picture(), "JPEG", quality=95, keep_rgb=True)
    yield "JPEG CMYK", encoded(ink(), "JPEG", quality=95)
    yield "JPEG CMYK, profile", encoded(ink(), "JPEG", quality=95, icc_profile=cmyk_profile())
    yield (
        "JPEG CMYK, RGB profile",
        encoded(ink(), "JPEG", quality=95, icc_profile=PROFILES["exchanged"]),
    )
    yield "JPEG YCCK", ycck()
    yield "JPEG YCCK, profile", ycck(cmyk_profile())
    yield "JPEG CMYK plain", encoded(ink(), "JPEG", quality=95).replace(b"Adobe", b"Plain", 1)
    for name, data in PROFILES.items():
        yield f"JPEG {name} profile", encoded(picture(), "JPEG", quality=95, icc_profile=data)
    yield (
        "JPEG grey, grey profile",
        encoded(picture().convert("L"), "JPEG", quality=95, icc_profile=grey_profile(1.0)),
    )
    yield (
        "JPEG grey, RGB profile",
        encoded(picture().convert("L"), "JPEG", quality=95, icc_profile=PROFILES["linear"]),
    )
    yield (
        "JPEG, grey profile",
        encoded(picture(), "JPEG", quality=95, icc_profile=grey_profile(1.0)),
    )
    yield "JPEG, CMYK profile", encoded(picture(), "JPEG", quality=95, icc_profile=cmyk_profile())
    yield "JPEG broken profile", encoded(picture(), "JPEG", icc_profile=b"no profile" * 20)
    for orientation in range(2, 9):
        yield (
            f"JPEG turned {orientation}",
            encoded(picture(), "JPEG", quality=95, exif=_turned(orientation)),
        )
    yield "JPEG turned 9", encoded(picture(), "JPEG", quality=95, exif=_turned(9))


def ycck(icc: bytes | None = None) -> bytes:
    """An Adobe JPEG of inks in YCCK, which Pillow does not write: the same samples, named so."""
    options = {} if icc is None else {"icc_profile": icc}
    data = encoded(ink(), "JPEG", quality=95, **options)
    start = data.index(b"Adobe") + 11
    return data[:start] + b"\x02" + data[start + 1 :]


def _webp() -> Iterator[tuple[str, bytes]]:
    yield "WEBP", encoded(picture(), "WEBP", quality=95)
    yield "WEBP lossless", encoded(picture(), "WEBP", lossless=True)
    yield "WEBP alpha", encoded(translucent(), "WEBP", lossless=True, exact=True)
    yield "WEBP lossy alpha", encoded(translucent(), "WEBP", quality=95)
    for name in ("P3", "exchanged", "sRGB"):
        yield (
            f"WEBP {name} profile",
            encoded(picture(), "WEBP", lossless=True, icc_profile=PROFILES[name]),
        )
    yield (
        "WEBP alpha, exchanged profile",
        encoded(
            translucent(), "WEBP", lossless=True, exact=True, icc_profile=PROFILES["exchanged"]
        ),
    )
    yield (
        "WEBP grey profile",
        encoded(picture(), "WEBP", lossless=True, icc_profile=grey_profile(1.0)),
    )
    for orientation in (2, 6):
        yield (
            f"WEBP turned {orientation}",
            encoded(picture(), "WEBP", lossless=True, exif=_turned(orientation)),
        )
    yield (
        "WEBP turned, alpha",
        encoded(translucent(), "WEBP", lossless=True, exact=True, exif=_turned(6)),
    )


def _avif() -> Iterator[tuple[str, bytes]]:
    best = {"quality": 100, "subsampling": "4:4:4"}
    yield "AVIF", encoded(picture(), "AVIF", **best)
    yield "AVIF 4:2:0", encoded(picture(), "AVIF", quality=90)
    yield "AVIF alpha", encoded(translucent(), "AVIF", **best)
    for name in ("P3", "exchanged"):
        yield f"AVIF {name} profile", encoded(picture(), "AVIF", **best, icc_profile=PROFILES[name])
    for orientation in (2, 6):
        yield (
            f"AVIF turned {orientation}",
            encoded(picture(), "AVIF", **best, exif=_turned(orientation)),
        )
    for name, codes in {
        "P3": (12, 13),
        "linear": (1, 8),
        "BT.2020": (9, 14),
        "PQ": (9, 16),
    }.items():
        yield f"AVIF nclx {name}", avif(*codes)


def avif(primaries: int, transfer: int) -> bytes:
    """An AVIF whose colour box names these codes in place of sRGB's."""
    data = encoded(picture(), "AVIF", quality=100, subsampling="4:4:4")
    start = data.index(b"colrnclx") + 8
    return data[:start] + struct.pack(">HH", primaries, transfer) + data[start + 4 :]


def _gif() -> Iterator[tuple[str, bytes]]:
    indexed = picture().quantize(64)
    yield "GIF", encoded(indexed, "GIF")
    yield "GIF clear entry", encoded(indexed, "GIF", transparency=3)
    yield "GIF interlaced", encoded(indexed, "GIF", interlace=1)


def _bmp() -> Iterator[tuple[str, bytes]]:
    yield "BMP", encoded(picture(), "BMP")
    yield "BMP palette", encoded(picture().quantize(64), "BMP")
    yield "BMP grey", encoded(picture().convert("L"), "BMP")
    yield "BMP two colours", encoded(picture().convert("1"), "BMP")
    yield "BMP 32 bits, no mask", bmp(translucent(), masks=False)
    yield "BMP alpha", bmp(translucent())
    yield "BMP alpha all 0", bmp(_with_alpha(0))
    yield "BMP alpha all 255", bmp(_with_alpha(255))
    yield "BMP V3, alpha all 0", bmp(_with_alpha(0), header=56)
    yield "BMP V3, alpha", bmp(translucent(), header=56)
    yield "BMP V5, exchanged profile", bmp(_with_alpha(255), icc=PROFILES["exchanged"])
    yield "BMP V5, linear by end points", bmp(_with_alpha(255), calibrated=True)
    yield "BMP 16 bits", bmp_16(picture())
    yield "BMP 16 bits, 565", bmp_16(picture(), masks=True)
    yield "BMP top first", bmp(translucent(), masks=False, top_first=True)


def _with_alpha(alpha: int) -> PIL.Image.Image:
    drawn = picture().convert("RGBA")
    drawn.putalpha(alpha)
    return drawn


def bmp(
    drawn: PIL.Image.Image,
    masks: bool = True,
    header: int = 124,
    icc: bytes = b"",
    calibrated: bool = False,
    top_first: bool = False,
) -> bytes:
    """A BMP of 32 bits, in a header of so many bytes; without masks of 40."""
    width, height = drawn.size
    size = header if masks else 40
    rows = np.asarray(drawn)[..., [2, 1, 0, 3]]
    body = (rows if top_first else rows[::-1]).tobytes()
    head = struct.pack(
        "<IiiHHIIiiII", size, width, -height if top_first else height, 1, 32,
        3 if masks else 0, len(body), 2835, 2835, 0, 0,
    )  # fmt: skip
    if masks:
        head += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    if size == 124:
        kind = b"DEBM" if icc else bytes(4) if calibrated else b"BGRs"
        head += kind + (_end_points() if calibrated else bytes(48))
        head += struct.pack("<4I", 4, size + len(body) if icc else 0, len(icc), 0)
    at = 14 + len(head)
    file = struct.pack("<2sIHHI", b"BM", at + len(body) + len(icc), 0, 0, at)
    return file + head + body + icc


def _end_points() -> bytes:
    """sRGB's primaries and a gamma of 1, as a BMP has them."""
    ends = (0.4124, 0.2126, 0.0193, 0.3576, 0.7152, 0.1192, 0.1805, 0.0722, 0.9505)
    return struct.pack("<9i3I", *(round(e * 2**30) for e in ends), *[1 << 16] * 3)


def bmp_16(drawn: PIL.Image.Image, masks: bool = False) -> bytes:
    """A BMP of 5 bits a colour; with masks of 6 for green."""
    red, green, blue = (np.asarray(drawn)[::-1, :, i].astype(np.uint16) for i in range(3))
    if masks:
        values = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
    else:
        values = (red >> 3) << 10 | (green >> 3) << 5 | blue >> 3
    body = values.astype("<u2").tobytes()
    width, height = drawn.size
    head = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 16, 3 if masks else 0, len(body), 0, 0, 0, 0
    ) + (struct.pack("<3I", 0xF800, 0x7E0, 0x1F) if masks else b"")
    at = 14 + len(head)
    return struct.pack("<2sIHHI", b"BM", at + len(body), 0, 0, at) + head + body
