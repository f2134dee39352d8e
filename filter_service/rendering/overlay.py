"""Draws explanations: the map over the image, and the flip region.

A map is drawn on a fixed scale and never stretched to its own peak: where nothing speaks for a
class, nothing is coloured. What the model did not see, such as the margins of a centre crop, is
darkened, and the part that a view shows is outlined. Only the record is needed, no model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from filter_service.images.views import Box, looked_at
from filter_service.verdicts.explanation import FlipRegion, Map

FULL = 20.0  # times its equal part of the margin: where a place reaches the full colour
FAINT = 2.0  # logits: margins below this count as this, so that noise is not drawn in full colour
REACH = 1.25  # places around one that share its colour
STRONGEST = 0.85  # opacity of the full colour
UNSEEN = 0.35  # of its light is left to what the model did not see
EVIDENCE, AGAINST = (232, 78, 20), (32, 104, 216)  # speaks for the class, against it
INK, PALE, PAPER, OUTLINE = (28, 30, 34), (116, 120, 128), (252, 252, 250), (255, 255, 255)
EMPTY = (234, 234, 230)
VIEWED = (250, 204, 70)  # around the part of a picture that the map is of

Floats = npt.NDArray[np.floating]
Colour = tuple[int, int, int]


def seen(width: int, height: int, preprocessing: Mapping[str, Any], part: Box | None = None) -> Box:
    """Where the model's input lies in a picture, of which it was given a part, in shares of it."""
    if part is None:
        return looked_at(width, height, preprocessing)
    box = part.scaled(width, height)
    if preprocessing.get("resize_mode", "shortest") != "longest":
        return box
    inner = looked_at(box.right - box.left, box.bottom - box.top, preprocessing)
    x, y = box.left, box.top
    return Box(x + inner.left, y + inner.top, x + inner.right, y + inner.bottom)


def fit(picture: Image.Image, longest: int) -> Image.Image:
    """A picture with a longer side of so many pixels; small ones are enlarged."""
    scale = longest / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def overlay(
    picture: Image.Image,
    relevance_map: Map,
    margin: float,
    preprocessing: Mapping[str, Any],
    region: FlipRegion | None = None,
    part: Box | None = None,
) -> Image.Image:
    """The map over its picture, greyed: warm where it speaks for the class, blue where against.

    Of a picture that was seen in parts, the one that the map is of is outlined.
    """
    where = seen(*picture.size, preprocessing, part)
    heat, unseen = _heat(picture.size, relevance_map.grid, margin, where)
    drawn = Image.fromarray(tinted(np.asarray(picture.convert("L"), np.float32), heat))
    drawn.paste(drawn.point(lambda level: level * UNSEEN), mask=Image.fromarray(unseen))
    if part is not None:
        _frame(drawn, where)
    if region is not None and is_part(region, relevance_map):
        _outline(drawn, region, relevance_map.grid.shape, where)
    return drawn


def map_layer(
    size: tuple[int, int],
    grid: Floats,
    margin: float,
    preprocessing: Mapping[str, Any],
    part: Box | None = None,
) -> Image.Image:
    """The colours of `overlay` alone, to be laid over a picture of this shape: RGBA.

    Nothing of the picture is in them, and `grid` may be a word's, whose whole is the margin.
    """
    where = seen(*size, preprocessing, part)
    heat, unseen = _heat(size, grid, margin, where)
    layer = np.empty((*heat.shape, 4), np.uint8)  # (h, w, 4)
    layer[..., :3] = np.where(heat[..., None] > 0, EVIDENCE, AGAINST)
    layer[..., 3] = (255 * _strength(heat)).round()
    layer[unseen] = (0, 0, 0, round(255 * (1 - UNSEEN)))
    drawn = Image.fromarray(layer)
    if part is not None:
        _frame(drawn, where)
    return drawn


def region_layer(
    size: tuple[int, int],
    region: FlipRegion,
    relevance_map: Map,
    preprocessing: Mapping[str, Any],
    part: Box | None = None,
) -> Image.Image:
    """The outline of `overlay` alone, to be laid over a picture of this shape: RGBA."""
    layer = Image.new("RGBA", size)
    _outline(layer, region, relevance_map.grid.shape, seen(*size, preprocessing, part))
    return layer


def full_colour(relevance_map: Map, margin: float) -> float:
    """Logits at which a place of a map gets the full colour."""
    return _full(relevance_map.grid.size, margin)


def is_part(region: FlipRegion, relevance_map: Map) -> bool:
    """There is an answer in a part of the image, not only in the whole."""
    flips = region.flips or bool(region.blurred_flips)
    return flips and len(region.places) < relevance_map.grid.size


def _full(places: int, margin: float) -> float:
    return FULL * max(abs(margin), FAINT) / places


def _heat(
    size: tuple[int, int], grid: Floats, margin: float, box: Box
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Shares of the full colour at each pixel, and which pixels lie outside the box: (h, w)."""
    (width, height), (gh, gw) = size, grid.shape
    down = _weights(height, box.top, box.bottom, gh)
    across = _weights(width, box.left, box.right, gw)
    heat = down @ (grid.astype(np.float32) / _full(grid.size, margin)) @ across.T
    return heat, ~np.outer(down.any(axis=1), across.any(axis=1))


def _weights(pixels: int, start: float, end: float, places: int) -> Floats:
    """How much each place counts at each pixel: (pixels, places); all 0 outside the model's view.

    Raised cosines: smooth, and never below 0, where a cubic kernel would swing to the other sign
    beside every strong place.
    """
    at = (np.arange(pixels) + 0.5 - start) / (end - start) * places - 0.5  # in places, 0: the first
    far = np.abs(at.clip(0, places - 1)[:, None] - np.arange(places))
    weights = 1 + np.cos(np.pi * (far / REACH).clip(0, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    weights[(at < -0.5) | (at > places - 0.5)] = 0
    return weights.astype(np.float32)


def tinted(grey: Floats, heat: Floats) -> npt.NDArray[np.uint8]:
    """Colours laid over a grey picture (h, w), which stays visible below: (h, w, 3)."""
    grey, heat = grey[..., None] / 255, heat[..., None]
    ground = 255 * (0.22 + 0.7 * grey)  # flatter, so that the colours stand out
    strength = _strength(heat)
    colours = np.where(heat > 0, EVIDENCE, AGAINST) * (0.62 + 0.38 * grey)
    return np.asarray(ground * (1 - strength) + colours * strength).round().astype(np.uint8)


def _strength(heat: Floats) -> Floats:
    """Opacity of the colours."""
    return np.asarray(STRONGEST * np.abs(heat).clip(0, 1) ** 0.75)


def _outline(drawn: Image.Image, region: FlipRegion, shape: tuple[int, int], box: Box) -> None:
    """A line around the places of a region, between them and their neighbours."""
    gh, gw = shape
    gone = np.zeros((gh + 2, gw + 2), dtype=bool)  # with a border that belongs to nothing
    for place in region.places:
        gone[place // gw + 1, place % gw + 1] = True
    xs = np.linspace(box.left, box.right, gw + 1)
    ys = np.linspace(box.top, box.bottom, gh + 1)
    flat = np.argwhere(gone[1:, 1:-1] != gone[:-1, 1:-1])  # sides between places above and below
    upright = np.argwhere(gone[1:-1, 1:] != gone[1:-1, :-1])
    sides = [(xs[x], ys[y], xs[x + 1], ys[y]) for y, x in flat]
    sides += [(xs[x], ys[y], xs[x], ys[y + 1]) for y, x in upright]
    _lines(drawn, sides, OUTLINE)


def _frame(drawn: Image.Image, box: Box) -> None:
    """A line around the part of a picture that a view shows."""
    thin, (width, height) = max(1.0, min(drawn.size) / 240), drawn.size
    left, top = max(box.left, thin), max(box.top, thin)  # a line on an edge is half outside
    right, bottom = min(box.right, width - 1 - thin), min(box.bottom, height - 1 - thin)
    sides = [(left, top, right, top), (left, bottom, right, bottom)]
    sides += [(left, top, left, bottom), (right, top, right, bottom)]
    _lines(drawn, sides, VIEWED)


def _lines(
    drawn: Image.Image, sides: Sequence[tuple[float, float, float, float]], inner: Colour
) -> None:
    """Upright and level lines, readable on any ground."""
    draw, thin = ImageDraw.Draw(drawn), max(1.0, min(drawn.size) / 240)
    for colour, half in ((INK, 1.5 * thin), (inner, 0.5 * thin)):
        for left, top, right, bottom in sides:
            draw.rectangle((left - half, top - half, right + half, bottom + half), colour)
