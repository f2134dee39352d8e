"""Compares ways of viewing images of every aspect ratio, by detections and false flags.

    python -m benchmarks.views

Scenes of the demo's world are drawn in shapes from 1:1 to 1:10, upright and lying, the things in
them as large against the short side as in squares. In `alone` one thing lies at a random place on
an empty ground; in `filled` there is one in every square of the page. Half of the pictures show one
forbidden thing. Schemes are compared on development seeds, the service's own also on test seeds;
`squash` is the bundled model as it is, `crop` the same with ViT-B-32's preprocessing.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from filter_service.demo import POLICY
from filter_service.demo.kinds import CLASS_OF, TRAINED_STYLES
from filter_service.demo.samples import ALLOWED
from filter_service.demo.scenes import (
    DEV_SEEDS,
    TEST_SEEDS,
    PlacedObject,
    Scene,
    render,
    sample_scene,
)
from filter_service.encoder import Encoder, load_encoder
from filter_service.images.views import Box, windows
from filter_service.policy import Policy, read_policy
from filter_service.policy.coverage import Coverage
from filter_service.verdicts import threshold_margin

SIDE = 128  # pixels of the short side
SHAPES = {
    "1:1": 1.0,
    "4:3": 4 / 3,
    "3:2": 1.5,
    "16:9": 16 / 9,
    "2:1": 2.0,
    "1:2.2": 2.2,
    "1:4": 4.0,
    "1:10": 10.0,
}
FIRST = {"dev": DEV_SEEDS + 5_000_000, "test": TEST_SEEDS + 150_000_000}  # for nothing else
Looks = Sequence[Box | None]
Scheme = Callable[[int, int, Encoder], Looks]


def scene(seed: int, forbidden: bool, ratio: float, filled: bool) -> tuple[Scene, float, float]:
    """A scene and its shape in short sides; every other one stands upright."""
    rng = np.random.default_rng((seed, 21))
    shape = (1.0, ratio) if seed % 2 else (ratio, 1.0)
    first = sample_scene(seed, 1, ALLOWED, TRAINED_STYLES)
    things = [_anywhere(first.objects[0], shape, rng)]
    if filled:
        things = [_in_square(seed, i, shape) for i in range(max(1, round(ratio)))]
    if forbidden:
        place = int(rng.integers(len(things)))
        things[place] = replace(things[place], kind=str(rng.choice(list(CLASS_OF))))
    return replace(first, objects=tuple(things)), *shape


def _anywhere(
    thing: PlacedObject, shape: tuple[float, float], rng: np.random.Generator
) -> PlacedObject:
    x, y = (thing.size / 2 + rng.uniform() * (s - thing.size) for s in shape)
    return replace(thing, x=x, y=y)


def _in_square(seed: int, number: int, shape: tuple[float, float]) -> PlacedObject:
    """One thing somewhere in a square of the page."""
    thing = sample_scene(seed + 100_000 * number, 1, ALLOWED, TRAINED_STYLES).objects[0]
    step = max(shape) / max(1, round(max(shape)))
    along = number * step + (step - 1) / 2
    return replace(
        thing,
        x=thing.x + (along if shape[0] > 1 else 0),
        y=thing.y + (along if shape[1] > 1 else 0),
    )


def model_alone(width: int, height: int, encoder: Encoder) -> Looks:
    return windows(width, height, encoder.preprocessing, Coverage.MODEL)


def whole_squashed(width: int, height: int, encoder: Encoder) -> Looks:
    return [Box(0, 0, width, height)]


def squares(overlap: float) -> Scheme:
    return lambda width, height, encoder: _windows(width, height, 1.0, overlap)


def oblongs(widest: float) -> Scheme:
    """Windows of this shape, squashed, each overlapping the next by half."""
    return lambda width, height, encoder: _windows(width, height, widest, 0.5)


def whole_and_squares(width: int, height: int, encoder: Encoder) -> Looks:
    return [Box(0, 0, width, height), *_windows(width, height, 1.0, 0.0)]


def served(width: int, height: int, encoder: Encoder) -> Looks:
    return windows(width, height, encoder.preprocessing)


def _windows(width: int, height: int, widest: float, overlap: float) -> list[Box]:
    long, short = max(width, height), min(width, height)
    size = min(long, widest * short)
    count = 1 + math.ceil(round((long - size) / (size * (1 - overlap)), 6))
    starts = [(long - size) * i / max(1, count - 1) for i in range(count)]
    return [
        Box(s, 0, s + size, height) if width > height else Box(0, s, width, s + size)
        for s in starts
    ]


SCHEMES: dict[str, Scheme] = {
    "the model's own look": model_alone,
    "the whole, squashed": whole_squashed,
    "squares edge to edge": squares(0.0),
    "squares, half overlapping": squares(0.5),
    "the whole and squares": whole_and_squares,
    "windows of 1.4:1": oblongs(1.4),
    "windows of 1.6:1": oblongs(1.6),
    "windows of 2:1": oblongs(2.0),
}
SERVED: dict[str, Scheme] = {"served": served}


@dataclass(frozen=True)
class Measured:
    """How many pictures of a shape were flagged, and with how many looks."""

    found: float  # share of the pictures with something forbidden
    false: float  # share of the others
    looks: float  # a picture


def measure(
    encoder: Encoder, policy: Policy, pictures: Sequence[Image.Image], schemes: dict[str, Scheme]
) -> dict[str, Measured]:
    """Of pictures of one size or turned by 90 degrees, the first half with a forbidden thing."""
    flags: dict[str, list[bool]] = {name: [] for name in schemes}
    looks = dict.fromkeys(schemes, 0)
    for picture, over in zip(pictures, _over(encoder, policy, pictures, schemes), strict=True):
        for name, scheme in schemes.items():
            boxes = scheme(*picture.size, encoder)
            flags[name].append(max(over[box] for box in boxes) >= 0)
            looks[name] += len(boxes)
    half = len(pictures) // 2
    return {
        name: Measured(
            float(np.mean(found[:half])), float(np.mean(found[half:])), looks[name] / len(pictures)
        )
        for name, found in flags.items()
    }


def _over(
    encoder: Encoder, policy: Policy, pictures: Sequence[Image.Image], schemes: dict[str, Scheme]
) -> Iterator[dict[Box | None, float]]:
    """How far each look is over the nearest threshold, in logits; each is taken once."""
    thresholds = np.array([threshold_margin(c) for c in policy.classes])
    vectors = encoder.vectors(policy)
    for picture in pictures:
        boxes = list(dict.fromkeys(b for s in schemes.values() for b in s(*picture.size, encoder)))
        pixels = torch.stack([encoder.pixels(picture, box) for box in boxes])  # (b, 3, h, w)
        over = (vectors.margins(encoder.encode(pixels)) - thresholds).max(axis=1)  # (b,)
        yield dict(zip(boxes, over.tolist(), strict=True))


def cropping(encoder: Encoder) -> Encoder:
    """The same model with ViT-B-32's preprocessing: the shortest side, then the centre square."""
    config = {**encoder.preprocessing, "resize_mode": "shortest"}
    encoder.details["preprocessing"] = config
    encoder._transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    encoder._whole = image_transform_v2(
        PreprocessCfg(**{**config, "resize_mode": "squash"}), is_train=False
    )
    return encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind and shape")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--content", nargs="+", default=["alone", "filled"])
    parser.add_argument("--preprocessing", nargs="+", default=["squash", "crop"])
    parser.add_argument("--test", action="store_true", help="the service's own on test seeds")
    options = parser.parse_args()
    policy = read_policy(POLICY)
    schemes = SERVED if options.test else SCHEMES | SERVED
    first = FIRST["test" if options.test else "dev"]
    for preprocessing in options.preprocessing:
        encoder = load_encoder(device="cpu", precision="float32")
        encoder = cropping(encoder) if preprocessing == "crop" else encoder
        for content in options.content:
            print(
                f"\n{preprocessing}, {content}\n\n| shape | looks | recall | false flags | scheme |"
            )
            print("|---|---|---|---|---|")
            for shape in options.shapes:
                drawn = [
                    _drawn(first + i, forbidden, SHAPES[shape], content == "filled")
                    for forbidden in (True, False)
                    for i in range(options.count)
                ]
                for name, m in measure(encoder, policy, drawn, schemes).items():
                    row = f"{m.looks:.1f} | {m.found:.1%} | {m.false:.1%} | {name}"
                    print(f"| {shape} | {row} |", flush=True)


def _drawn(seed: int, forbidden: bool, ratio: float, filled: bool) -> Image.Image:
    found, *shape = scene(seed, forbidden, ratio, filled)
    return render(found, SIDE, (shape[0], shape[1]))


if __name__ == "__main__":
    main()
