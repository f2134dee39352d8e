"""Renders random pictogram scenes at any size, with object masks and true captions.

A scene is a value. The same seed gives the same scene, and a scene without one object is the same
picture in every pixel that the object did not touch, which is the causal truth that explanations
are measured against.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from filter_service.demo.kinds import KINDS, TRAINED_STYLES

CELL = 128  # pixels of a sprite's side in the atlas
COLUMNS = 20  # sprites in a row of the atlas
TEST_SEEDS = 1_000_000_000  # seeds from here on are never trained on
DEV_SEEDS = 900_000_000  # seeds from here to TEST_SEEDS: thresholds and choices

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 243),
    "black": (38, 38, 42),
    "grey": (150, 150, 152),
    "red": (206, 96, 92),
    "orange": (232, 168, 102),
    "yellow": (238, 220, 130),
    "green": (134, 186, 120),
    "blue": (112, 160, 214),
    "purple": (164, 130, 200),
    "pink": (238, 176, 196),
}
TEXTURES = ("plain", "gradient", "striped", "dotted", "checked", "noisy")
SIZES = {1: (0.30, 0.85), 2: (0.26, 0.52), 3: (0.24, 0.44), 4: (0.22, 0.40)}
"""Smallest and largest side of an object, as a fraction of the picture, by number of objects."""
LARGE = {1: (0.50, 0.71), 2: (0.40, 0.56), 3: (0.34, 0.46), 4: (0.30, 0.40)}
"""Likewise for scenes whose objects fill up to half the picture."""

EMPTY = "an empty background"
"""The caption of a scene without any object."""

Sizes = Mapping[int, tuple[float, float]]

SQUARE = 1.0, 1.0

Pixels = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """One object: where it is and how it is drawn; lengths are fractions of the picture's side."""

    kind: str
    style: str
    x: float  # centre, from the left
    y: float  # centre, from the top
    size: float  # longer side
    turn: float = 0.0  # degrees, counter-clockwise
    mirrored: bool = False
    light: float = 1.0  # brightness factor


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects on a background, later ones in front."""

    objects: tuple[PlacedObject, ...]
    colour: str
    texture: str
    seed: int  # of the texture


def sample_scene(
    seed: int,
    n_objects: int,
    kinds: tuple[str, ...] = KINDS,
    styles: tuple[str, ...] = TRAINED_STYLES,
    sizes: Sizes = SIZES,
    shape: tuple[float, float] = SQUARE,
) -> Scene:
    """A random scene of so many different kinds, decided by the seed alone."""
    rng = np.random.default_rng((seed, n_objects))
    objects: list[PlacedObject] = []
    for kind in rng.choice(kinds, n_objects, replace=False):
        x, y, size = _free_place(rng, objects, sizes[n_objects], shape)
        objects.append(
            PlacedObject(
                kind=str(kind),
                style=styles[rng.integers(len(styles))],
                x=x,
                y=y,
                size=size,
                turn=float(rng.uniform(-20, 20)),
                mirrored=bool(rng.random() < 0.5),
                light=float(rng.uniform(0.8, 1.15)),
            )
        )
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    return Scene(tuple(objects), colour, TEXTURES[rng.integers(len(TEXTURES))], seed)


def without(scene: Scene, index: int) -> Scene:
    """The same scene with one object left out."""
    return replace(scene, objects=scene.objects[:index] + scene.objects[index + 1 :])


def render(scene: Scene, side: int, shape: tuple[float, float] = SQUARE) -> Image.Image:
    """Draw a scene in RGB: `shape`, width and height, is in sides of so many pixels."""
    size = round(shape[0] * side), round(shape[1] * side)
    canvas = _background(scene, side, size)  # (height, width, 3), 0 to 255
    for placed in scene.objects:
        patch, alpha, top, left = _sprite(placed, side, size)  # (h, w, 3), (h, w, 1)
        window = canvas[top : top + patch.shape[0], left : left + patch.shape[1]]
        window += alpha * (patch - window)
    return Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))


def mask(scene: Scene, index: int, side: int) -> npt.NDArray[np.bool_]:
    """Pixels that show one object, without those hidden by objects in front: (side, side)."""
    cover = np.zeros((side, side), dtype=np.float32)
    for placed in scene.objects[index:]:
        _, alpha, top, left = _sprite(placed, side, (side, side))  # (h, w, 1)
        window = cover[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        if placed is scene.objects[index]:
            window[:] = alpha[..., 0]
        else:
            window *= 1 - alpha[..., 0]
    return cover > 0.5


def captions(scene: Scene) -> list[str]:
    """Every caption that is true of a scene: kinds, pairs, attributes, places and relations."""
    if not scene.objects:
        grounds = ("", f"{scene.colour} ", f"{scene.texture} ", f"{scene.texture} {scene.colour} ")
        return [f"an empty {ground}background" for ground in grounds]
    true = [a(o.kind) for o in scene.objects]
    for o in scene.objects:
        true += [f"{a(o.kind)} on a {scene.colour} background"]
        true += [f"{a(o.kind)} on a {scene.texture} background"]
        true += [f"{a(o.kind)} {place}" for place in _places(o)]
        if o.size >= 0.5:
            true.append(f"a big {o.kind}")
        if o.size <= 0.3:
            true.append(f"a small {o.kind}")
    for o in scene.objects:
        for p in scene.objects:
            if o is not p:
                true += [f"{a(o.kind)} and {a(p.kind)}"]
                true += [f"{a(o.kind)} {how} {a(p.kind)}" for how in _relations(o, p)]
    return true


def a(noun: str) -> str:
    """The noun with its article; plural and uncountable kinds have none."""
    if noun in BARE:
        return noun
    return f"{'an' if noun[0] in 'aeiou' and noun != 'unicorn' else 'a'} {noun}"


BARE = frozenset(
    {
        "beer",
        "wine",
        "champagne",
        "whisky",
        "sake",
        "coffee",
        "milk",
        "bread",
        "cheese",
        "sushi",
        "corn",
        "broccoli",
        "popcorn",
        "grapes",
        "cherries",
        "headphones",
        "glasses",
        "scissors",
        "lightning",
        "fire",
        "dice",
        "french fries",
    }
)
"""Kinds that take no article."""


def _places(o: PlacedObject) -> list[str]:
    across = ["on the left"] if o.x < 0.38 else ["on the right"] if o.x > 0.62 else []
    return across + (["at the top"] if o.y < 0.38 else ["at the bottom"] if o.y > 0.62 else [])


def _relations(o: PlacedObject, p: PlacedObject) -> list[str]:
    across = ["left of"] if p.x - o.x > 0.2 else ["right of"] if o.x - p.x > 0.2 else []
    return across + (["above"] if p.y - o.y > 0.2 else ["below"] if o.y - p.y > 0.2 else [])


def _free_place(
    rng: np.random.Generator,
    taken: list[PlacedObject],
    sizes: tuple[float, float],
    shape: tuple[float, float],
) -> tuple[float, float, float]:
    """A place that overlaps no other object by much; objects shrink when the picture is full."""
    low, high = sizes
    for attempt in range(200):
        size = float(rng.uniform(low, low + (high - low) * (1 - attempt / 200)))
        x, y = (float(v) for v in rng.uniform(size / 2, [s - size / 2 for s in shape]))
        if all(max(abs(x - o.x), abs(y - o.y)) > 0.45 * (size + o.size) for o in taken):
            return x, y, size
    return x, y, low


@lru_cache(maxsize=4096)
def _sprite_at(style: str, kind: str, reduction: int) -> Image.Image:
    """A sprite with premultiplied alpha, scaled down by a power of two."""
    i = KINDS.index(kind)
    left, top = i % COLUMNS * CELL, i // COLUMNS * CELL
    cell = _atlas(style).crop((left, top, left + CELL, top + CELL))
    rgba = np.asarray(cell, dtype=np.float32)  # (CELL, CELL, 4)
    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:] / 255, rgba[..., 3:]], axis=-1)
    return Image.fromarray(rgba.round().astype(np.uint8), "RGBA").reduce(reduction)


@lru_cache(maxsize=8)
def _atlas(style: str) -> Image.Image:
    return Image.open(Path(__file__).parent / "sprites" / f"{style}.webp").convert("RGBA")


def _sprite(
    placed: PlacedObject, side: int, size: tuple[int, int]
) -> tuple[Pixels, Pixels, int, int]:
    """An object's colours (h, w, 3), its alpha (h, w, 1), and its top left pixel in the picture."""
    width, height = size
    length = placed.size * side  # pixels
    reduction = 1
    while CELL // (reduction * 2) >= length and reduction < 8:
        reduction *= 2
    source = _sprite_at(placed.style, placed.kind, reduction)
    box, scale = max(2, round(length * 1.3)), source.width / length  # 1.3: room for the corners
    left, top = round(placed.x * side - box / 2), round(placed.y * side - box / 2)
    angle = np.deg2rad(placed.turn)
    cos, sin = float(np.cos(angle)) * scale, float(np.sin(angle)) * scale
    flip = -1.0 if placed.mirrored else 1.0
    # The affine map goes from the box's pixels to the sprite's, around both centres.
    cx, cy, half = placed.x * side - left, placed.y * side - top, source.width / 2
    matrix = (
        flip * cos, -flip * sin, half - flip * (cos * cx - sin * cy),
        sin, cos, half - (sin * cx + cos * cy),
    )  # fmt: skip
    drawn = source.transform((box, box), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    crop = (max(0, -left), max(0, -top), min(box, width - left), min(box, height - top))
    rgba = np.asarray(drawn.crop(crop), dtype=np.float32)  # (h, w, 4), premultiplied
    alpha = rgba[..., 3:] / 255  # (h, w, 1)
    colours = rgba[..., :3] * placed.light / np.maximum(alpha, 1 / 255)  # (h, w, 3)
    return colours.clip(0, 255), alpha, max(0, top), max(0, left)


def _background(scene: Scene, side: int, size: tuple[int, int]) -> Pixels:
    """A coloured, textured ground: (h, w, 3), 0 to 255; the same pattern at every size."""
    rng = np.random.default_rng((scene.seed, 7))
    base = np.array(COLOURS[scene.colour], dtype=np.float32) + rng.uniform(-10, 10, 3)
    shade = _texture(scene.texture, rng, side, size)  # (h, w), -1 to 1
    return np.asarray(base + 26 * shade[..., None], dtype=np.float32)


def _texture(name: str, rng: np.random.Generator, side: int, size: tuple[int, int]) -> Pixels:
    width, height = size
    across_at, down_at = ((np.arange(n, dtype=np.float32) + 0.5) / side for n in size)
    x, y = np.meshgrid(across_at, down_at)  # (h, w), in sides
    angle, phase, pitch = rng.uniform(0, np.pi), rng.uniform(0, 1), rng.uniform(5, 9)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    if name == "gradient":
        longest = max(1.0, width / side, height / side)  # no steeper than a square's, in all
        return np.asarray(1.6 * (along - along.mean()) / longest, dtype=np.float32)
    if name == "striped":
        return np.asarray(np.sign(np.sin(2 * np.pi * (along * pitch + phase))), dtype=np.float32)
    if name == "checked":
        waves = np.sin(2 * np.pi * along * pitch * 0.6) * np.sin(2 * np.pi * across * pitch * 0.6)
        return np.asarray(np.sign(waves), dtype=np.float32)
    if name == "dotted":
        u, v = (along * pitch + phase) % 1 - 0.5, (across * pitch) % 1 - 0.5
        return np.asarray(1 - 2 * (u * u + v * v < 0.07), dtype=np.float32)
    if name == "noisy":
        grid = Image.fromarray(rng.uniform(-1, 1, (16, 16)).astype(np.float32), "F")
        return np.asarray(grid.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    return np.zeros((height, width), dtype=np.float32)
