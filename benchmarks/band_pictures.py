"""Generates synthetic pictures, of other kinds than the probe images, as image files."""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from filter_service.demo.scenes import TEST_SEEDS, render, sample_scene

SIZES = ((0.6, 4.0), (4.0, 8.0), (8.2, 14.0))  # shorter sides, times the input size
SHARES = (0.35, 0.3, 0.35)  # of the files
MEGAPIXELS = 8.0
CUTS = 8  # files from one painting, each another part of it, with another quality
WORDS = ("the", "of", "and", "to", "in", "is", "was", "for", "Order", "2024", "Total", "Reply")

Rng = np.random.Generator


def picture_file(number: int, input_size: int) -> tuple[str, bytes]:
    """One picture's kind and its file, for an encoder of this input size; always the same."""
    kind, picture = _painting(number // CUTS, input_size)
    rng = np.random.default_rng((number, 78))
    width, height = (int(side * rng.uniform(0.75, 1)) for side in picture.size)
    x, y = (
        int(rng.integers(a - b + 1)) for a, b in zip(picture.size, (width, height), strict=True)
    )
    return kind, _saved(rng, picture.crop((x, y, x + width, y + height)))


@lru_cache(4)  # files are asked for in order, by a few threads
def _painting(number: int, input_size: int) -> tuple[str, Image.Image]:
    rng = np.random.default_rng((number, 77))
    smallest, largest = SIZES[rng.choice(len(SIZES), p=SHARES)]
    short = input_size * rng.uniform(smallest, largest)
    short = max(16, min(short, (MEGAPIXELS * 1e6 / 1.8) ** 0.5))
    sides = int(short), int(short * rng.uniform(1, 1.8))
    width, height = sides if rng.random() < 0.5 else sides[::-1]
    kind = list(KINDS)[number % len(KINDS)]
    return kind, KINDS[kind](rng, width, height)


def _saved(rng: Rng, picture: Image.Image) -> bytes:
    """Mostly JPEGs, of all qualities and chroma subsamplings, some of them grey."""
    file = io.BytesIO()
    if rng.random() < 0.1:
        picture.save(file, "PNG", compress_level=1)
        return file.getvalue()
    if rng.random() < 0.05:
        picture = picture.convert("L")
    quality, subsampling = int(rng.integers(30, 97)), int(rng.integers(3))
    picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def _scene(rng: Rng, width: int, height: int) -> Image.Image:
    """A scene of pictograms, cut to shape."""
    side = max(width, height)
    seed = TEST_SEEDS + int(rng.integers(10**6))
    picture = render(sample_scene(seed, int(rng.integers(1, 5))), side)
    return picture.crop(((side - width) // 2, (side - height) // 2, *_end(side, width, height)))


def _end(side: int, width: int, height: int) -> tuple[int, int]:
    return (side - width) // 2 + width, (side - height) // 2 + height


def _collage(rng: Rng, width: int, height: int) -> Image.Image:
    """Pictures of other kinds, side by side, each at its own scale."""
    columns, rows = (int(n) for n in rng.integers(2, 5, 2))
    sheet = Image.new("RGB", (width, height), _colour(rng))
    for place in range(columns * rows):
        x, y = place % columns * width // columns, place // columns * height // rows
        paint = (_scene, _cells, _screenshot, _rings)[rng.integers(4)]
        size = max(16, width // columns), max(16, height // rows)
        sheet.paste(paint(rng, *size), (x, y))
    return sheet


def _cells(rng: Rng, width: int, height: int) -> Image.Image:
    """Flat areas around random points, as leaded glass has."""
    count = int(rng.integers(5, 60))
    points = rng.uniform(0, 1, (count, 2)) * (width, height)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    nearest = np.full((height, width), np.inf, dtype=np.float32)
    owner = np.zeros((height, width), dtype=np.uint8)
    for i, (px, py) in enumerate(points.astype(np.float32)):
        distance = (x - px) ** 2 + (y - py) ** 2
        closer = distance < nearest
        nearest[closer], owner[closer] = distance[closer], i
    return Image.fromarray(rng.integers(0, 256, (count, 3), dtype=np.uint8)[owner])


def _screenshot(rng: Rng, width: int, height: int) -> Image.Image:
    """Lines of real letters in boxes, light on dark or dark on light."""
    light = rng.random() < 0.6
    picture = Image.new("RGB", (width, height), (250, 250, 250) if light else (24, 26, 30))
    draw = ImageDraw.Draw(picture)
    size = min(int(rng.uniform(9, max(10.0, min(width, height) / 12))), width // 3)
    font = ImageFont.load_default(size)
    y = size // 2
    while y < height:
        if rng.random() < 0.15:
            draw.rectangle((size, y, width - size, y + 2 * size), fill=_colour(rng))
        words = " ".join(rng.choice(WORDS, max(1, width // (4 * size))))
        draw.text((2 * size, y), words, font=font, fill=(30, 30, 30) if light else (225, 225, 225))
        y += int(1.6 * size)
    return picture


def _rings(rng: Rng, width: int, height: int) -> Image.Image:
    """A zone plate: rings that get finer outwards, down to single pixels."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cx, cy = rng.uniform(0, width), rng.uniform(0, height)
    finest = rng.uniform(0.05, 0.5)  # cycles a pixel, at the far corner
    reach = float(max(width, height))
    wave = np.cos(np.pi * finest * ((x - cx) ** 2 + (y - cy) ** 2) / reach)  # (h, w)
    return _mixed(rng, 0.5 + 0.5 * wave)


def _julia(rng: Rng, width: int, height: int) -> Image.Image:
    """The border of a Julia set: detail at every scale."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1.5 : 1.5 : width * 1j]
    z = (x + 1j * y).astype(np.complex64)
    c = np.complex64(0.7885 * np.exp(2j * np.pi * rng.random()))
    steps = np.zeros(z.shape, dtype=np.float32)
    for _ in range(12):
        inside = np.abs(z) < 4
        steps += inside
        z = np.where(inside, z * z + c, z)
    return _mixed(rng, steps / 12)


def _halftone(rng: Rng, width: int, height: int) -> Image.Image:
    """Dots of print whose size follows a slow wave."""
    pitch, turn = rng.uniform(3, 14), rng.uniform(0, np.pi / 2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    screen = np.cos(2 * np.pi * u / pitch) * np.cos(2 * np.pi * v / pitch)
    tone = np.sin(2 * np.pi * (x / width * rng.uniform(0.5, 2) + y / height))
    return _mixed(rng, (screen > tone).astype(np.float32))


def _hatching(rng: Rng, width: int, height: int) -> Image.Image:
    """Hundreds of thin strokes, as of a pen."""
    picture = Image.new("RGB", (width, height), _colour(rng))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(100, 600))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        dx, dy = rng.normal(0, 0.2, 2) * (width, height)
        draw.line((x, y, x + dx, y + dy), fill=_colour(rng), width=int(rng.integers(1, 4)))
    return picture


def _blocks(rng: Rng, width: int, height: int) -> Image.Image:
    """Random colours in squares of one pixel up to a tenth of the picture."""
    side = int(np.exp(rng.uniform(0, np.log(max(2.0, min(width, height) / 10)))))
    shape = (-(-height // side), -(-width // side), 3)
    field = rng.integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(field.repeat(side, axis=0).repeat(side, axis=1)[:height, :width])


def _glow(rng: Rng, width: int, height: int) -> Image.Image:
    """Soft lights on a dark ground, with the grain of a sensor."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    values = np.zeros((height, width, 3), dtype=np.float32)
    for _ in range(5):
        cx, cy, spread = rng.uniform(0, 1, 3) * (width, height, max(width, height) / 2)
        light = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (spread + 4) ** 2))
        values += light[..., None] * rng.uniform(0, 200, 3).astype(np.float32)
    values += rng.uniform(0, 25) * rng.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _mixed(rng: Rng, weight: npt.NDArray[np.floating]) -> Image.Image:
    """Two colours, mixed: (h, w) of 0 to 1."""
    a, b = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    return Image.fromarray((weight[..., None] * (a - b) + b).clip(0, 255).astype(np.uint8))


def _colour(rng: Rng) -> tuple[int, int, int]:
    r, g, b = (int(n) for n in rng.integers(0, 256, 3))
    return r, g, b


KINDS: dict[str, Callable[[Rng, int, int], Image.Image]] = {
    "scene": _scene,
    "collage": _collage,
    "cells": _cells,
    "screenshot": _screenshot,
    "rings": _rings,
    "Julia set": _julia,
    "halftone": _halftone,
    "hatching": _hatching,
    "blocks": _blocks,
    "glow": _glow,
}
