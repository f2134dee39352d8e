"""Draws training images as views are: page windows, empty grounds, squares in part hidden.

A look is drawn as a model gets it, with the scene that is to be recognised in it: things of which
little is seen, at the edge of a window or under a patch, are not in that scene.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from filter_service.demo.scenes import SIZES, SQUARE, PlacedObject, Scene, render, sample_scene

SHARES = {"square": 0.3, "page": 0.62, "ground": 0.08}  # of the looks
THINGS = (0.25, 0.4, 0.25, 0.1)  # share of squares with 1, 2, 3, 4 things
SPARSE = 0.6  # share of pages with one thing
LONGEST = 2.6  # pages, times as long as wide
WIDEST = 2.0  # windows of them, which are squashed into the square
RECOGNISED = 0.4  # share of a thing that is to be seen
HIDDEN = 0.15  # share of the looks with places hidden
MOST_HIDDEN = 0.35  # of their places
PLACES = 8  # a side
BLOTCHES = 3  # a side: places are hidden singly, or in patches of about this size
BLURRED_TO = 4  # pixels a side

Look = tuple[Image.Image, Scene]
Mask = npt.NDArray[np.bool_]


def look(seed: int, side: int) -> Look:
    """A picture, and the scene that is to be recognised in it."""
    rng = np.random.default_rng((seed, 31))
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if kind == "page":
        picture, scene, size = _window(seed, side, rng)
    else:
        things = 1 + int(rng.choice(len(THINGS), p=THINGS))
        scene, size = sample_scene(seed, things if kind == "square" else 0), SQUARE
        picture = render(scene, side)
    shown = np.ones((side, side), dtype=np.bool_)
    if rng.random() < HIDDEN:
        shown = ~_hidden(side, rng)
        picture = _filled(picture, shown, rng)
    seen = tuple(o for o in scene.objects if _share(o, size, shown) >= RECOGNISED)
    return picture, replace(scene, objects=seen)


def _window(
    seed: int, side: int, rng: np.random.Generator
) -> tuple[Image.Image, Scene, tuple[float, float]]:
    """A part of a page squashed into the square; and how large, in sides, a thing of size 1 is."""
    length = float(rng.uniform(1, LONGEST))
    width = float(rng.uniform(1, min(WIDEST, length)))
    start = float(rng.uniform(0, length - width))
    across = bool(rng.random() < 0.5)
    shape = (length, 1.0) if across else (1.0, length)
    page = _page(seed, shape, rng)
    drawn = render(page, side, shape)
    ends = start / length, (start + width) / length
    left, right = (drawn.width * e for e in ends) if across else (0, drawn.width)
    top, bottom = (0, drawn.height) if across else (drawn.height * e for e in ends)
    picture = drawn.resize((side, side), Image.Resampling.BICUBIC, (left, top, right, bottom))
    placed = tuple(
        replace(o, x=(o.x - start) / width) if across else replace(o, y=(o.y - start) / width)
        for o in page.objects
    )
    size = (1 / width, 1.0) if across else (1.0, 1 / width)
    return picture, replace(page, objects=placed), size


def _page(seed: int, shape: tuple[float, float], rng: np.random.Generator) -> Scene:
    """One thing on a page, or none to two in every square of it."""
    length = max(shape)
    things = 1 if rng.random() < SPARSE else int(rng.integers(0, round(2 * length) + 1))
    crowded = SIZES[max(1, min(round(things / length), len(SIZES)))]
    return sample_scene(seed, things, sizes={things: crowded}, shape=shape)


def _hidden(side: int, rng: np.random.Generator) -> Mask:
    """Up to so many places, singly or in patches: (side, side)."""
    cells = PLACES if rng.random() < 0.5 else BLOTCHES
    few = Image.fromarray(rng.random((cells, cells)).astype(np.float32), "F")
    field = np.asarray(few.resize((PLACES, PLACES), Image.Resampling.BICUBIC))
    places = field > np.quantile(field, 1 - rng.uniform(0.05, MOST_HIDDEN))  # (PLACES, PLACES)
    return np.asarray(places.repeat(side // PLACES, axis=0).repeat(side // PLACES, axis=1))


def _filled(picture: Image.Image, shown: Mask, rng: np.random.Generator) -> Image.Image:
    """With the mean colour, or a blur, where nothing is shown."""
    few = 1 if rng.random() < 0.5 else BLURRED_TO
    fill = picture.resize((few, few), Image.Resampling.BOX)
    fill = fill.resize(picture.size, Image.Resampling.BICUBIC)
    return Image.composite(picture, fill, Image.fromarray(shown))


def _share(thing: PlacedObject, size: tuple[float, float], shown: Mask) -> float:
    """How much of a thing's square is seen, where what lies beyond the look is not."""
    side = len(shown)
    half = thing.size * size[0] * side / 2, thing.size * size[1] * side / 2
    left, right = (max(0, round(thing.x * side + s * half[0])) for s in (-1, 1))
    top, bottom = (max(0, round(thing.y * side + s * half[1])) for s in (-1, 1))
    return float(shown[top:bottom, left:right].sum() / (4 * half[0] * half[1]))
