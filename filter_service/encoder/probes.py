"""Generates the synthetic probe images on which the error of screening is measured."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

COUNT = 32


def probes(input_size: int) -> Iterator[bytes]:
    """JPEG files for an encoder of this input size in pixels; the same ones every time.

    Large ones become smooth where they are made as small as the input, small ones stay sharp.
    Qualities and chroma subsamplings are those usual on the web.
    """
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        height = int(input_size * rng.uniform(1, 4))
        picture = _PAINTERS[number % len(_PAINTERS)](rng, height * 4 // 3, height)
        file = io.BytesIO()
        quality, subsampling = int(rng.integers(30, 96)), int(rng.integers(3))
        picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
        yield file.getvalue()


def _noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """1/f noise: the power spectrum of photographs (Field, 1987)."""
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(width), np.fft.fftfreq(height)))
    amplitude = np.maximum(frequency, 1 / width) ** -rng.uniform(0.6, 1.4)  # (h, w // 2 + 1)
    white = rng.standard_normal((2, height, width), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(height, width))  # (2, h, w)
    light, tint = field / field.std(axis=(1, 2), keepdims=True)
    colours = light + rng.uniform(-0.5, 0.5, (3, 1, 1)) * tint  # (3, h, w)
    return _picture(rng.uniform(90, 160) + rng.uniform(30, 60) * colours)


def _waves(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Two colours that fade into each other in waves."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    phase = rng.uniform(-3, 3) * x + rng.uniform(-3, 3) * y  # (h, w)
    return _mixed(rng, 0.5 + 0.5 * np.cos(2 * np.pi * phase))


def _grating(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Stripes of two to four pixels."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    turn, pitch = rng.uniform(0, np.pi), rng.uniform(2, 4)
    phase = (x * np.cos(turn) + y * np.sin(turn)) / pitch  # (h, w)
    slow = np.cos(2 * np.pi * rng.uniform(0.5, 2) * x / width)  # parts of it, as cloth has folds
    return _mixed(rng, np.where(slow > 0, np.cos(2 * np.pi * phase) > 0, rng.uniform(0, 1)))


def _shapes(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Overlapping ellipses and boxes with hard edges."""
    picture = _waves(rng, width, height)
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y, w, h = rng.uniform(0, 1, 4) * (width, height, width / 3, height / 3)
        paint = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        paint((x, y, x + w, y + h), fill=_colour(rng))
    return picture


def _grain(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Shapes under noise of every pixel for itself, as sand, gravel and high ISO numbers have."""
    shapes = np.asarray(_shapes(rng, width, height), dtype=np.float32).transpose(2, 0, 1)
    noise = rng.standard_normal((3, height, width), dtype=np.float32)  # (3, h, w)
    return _picture(shapes + rng.uniform(10, 120) * noise)


def _text(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Lines of upright strokes, the texture of print."""
    picture = Image.new("RGB", (width, height), _colour(rng))
    draw, ink = ImageDraw.Draw(picture), _colour(rng)
    size = int(rng.integers(max(2, height // 40), max(4, height // 12)))
    for y in range(0, height, 2 * size):
        x = 0.0
        while x < width:
            stroke = rng.uniform(0.05, 0.3) * size
            top = y + rng.uniform(0, 0.5) * size
            draw.rectangle((x, top, x + stroke, y + size), fill=ink)
            x += stroke + rng.uniform(0.1, 1.0) * size
    return picture


def _threads(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Hundreds of lines one pixel wide, as hair, grass and wire."""
    picture = _waves(rng, width, height)
    draw = ImageDraw.Draw(picture)
    for x, y, dx, dy in rng.uniform(-1, 1, (500, 4)) * (width, height, width / 4, height / 4):
        draw.line((abs(x), abs(y), abs(x) + dx, abs(y) + dy), fill=_colour(rng), width=1)
    return picture


def _mixed(rng: np.random.Generator, weight: npt.NDArray[np.floating]) -> Image.Image:
    """Two colours, mixed: (h, w) of 0 to 1."""
    a, b = rng.uniform(0, 255, (2, 3, 1, 1))
    return _picture(a * weight + b * (1 - weight))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = rng.integers(0, 256, 3)
    return int(r), int(g), int(b)


def _picture(values: npt.NDArray[np.floating]) -> Image.Image:
    """(3, h, w) of 0 to 255 -> image."""
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


_PAINTERS = (_noise, _waves, _grating, _shapes, _grain, _text, _threads, _noise)
