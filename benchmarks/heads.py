"""Benchmarks heads: how often one is proposed, and what it gains, where the truth is known.

    python -m benchmarks.heads                  # 100 repeats of each world, some minutes
    python -m benchmarks.heads --repeats 20

Kinds of a drawn world, where the class lies off the prompts' direction, or its look-alikes do not;
and classes of the demo's pictures of which the prompts name one kind alone. Of 50 or 200 labels two
in five show the class. A gain is told twice: out of fold on the labels themselves, which is what
decides about a proposal, and on images that nobody labelled, beside the most that is there to gain.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from filter_service.calibration.heads import LabelledVectors, propose_head
from filter_service.calibration.labelled_margins import Bools, Floats
from filter_service.calibration.reliability import average_precision
from filter_service.demo import POLICY, bundled
from filter_service.demo.samples import moderation_scene
from filter_service.demo.scenes import DEV_SEEDS
from filter_service.policy import ForbiddenClass, read_policy

DIM, FRESH = 64, 4_000
DEMO_SEEDS = DEV_SEEDS + 75_000_000  # used for nothing else
DEMO_SCENES = 2_400


@dataclass(frozen=True)
class HeadWorld:
    """Images of one class: draws labelled ones, and others to look at; the best there can be."""

    name: str
    draw: Callable[[np.random.Generator, int], tuple[LabelledVectors, LabelledVectors]]
    best: float | None  # average precision along the true direction; None: unknown


def tilted(name: str, tilt: float, look_alikes: bool = False) -> HeadWorld:
    """A class that lies off its prompts' direction by the arc sine of `tilt`.

    Look-alikes: half of the others lie along the prompts' direction as far as the class does.
    """

    def draw(rng: np.random.Generator, count: int) -> tuple[LabelledVectors, LabelledVectors]:
        prompt, other = np.linalg.qr(rng.normal(size=(DIM, 2)))[0].T  # (d,) each
        towards = math.sqrt(1 - tilt**2) * prompt + tilt * other
        truths = np.arange(count + FRESH) % 5 < 2
        z = rng.normal(size=(len(truths), DIM)) / 8 + 0.5 * truths[:, None] * towards
        if look_alikes:
            like = ~truths & (rng.random(len(truths)) < 0.5)
            z += 0.5 * math.sqrt(1 - tilt**2) * like[:, None] * prompt
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        everything = LabelledVectors(z, 10 * (z @ prompt) - 2, truths)
        first = np.arange(len(truths)) < count
        return everything.among(first), everything.among(~first)

    return HeadWorld(name, draw, _best(tilt, look_alikes))


def _best(tilt: float, look_alikes: bool) -> float:
    """By Fisher's direction in the plane of prompts and class, which holds all that differs."""
    rng = np.random.default_rng(0)
    truths = np.arange(100_000) % 5 < 2
    along = 0.5 * math.sqrt(1 - tilt**2)
    like = ~truths & (rng.random(len(truths)) < (0.5 if look_alikes else 0.0))
    x = rng.normal(size=(len(truths), DIM)) / 8  # the first two along the prompts and across
    x[:, 0] += along * (truths | like)
    x[:, 1] += 0.5 * tilt * truths
    x = (x / np.linalg.norm(x, axis=1, keepdims=True))[:, :2]
    parts = x[truths], x[~truths]
    within = sum(np.cov(part.T) * len(part) for part in parts)
    way = np.linalg.solve(within, parts[0].mean(axis=0) - parts[1].mean(axis=0))
    return average_precision(x @ way, truths)


def pictured(
    class_name: str, prompt: str, vectors: Floats, shown: Bools, margins: Floats
) -> HeadWorld:
    """A class of the demo's pictures; the pool is drawn from without replacement."""

    def draw(rng: np.random.Generator, count: int) -> tuple[LabelledVectors, LabelledVectors]:
        positives = rng.permutation(np.flatnonzero(shown))
        others = rng.permutation(np.flatnonzero(~shown))
        yes = 2 * count // 5
        first = np.concatenate([positives[:yes], others[: count - yes]])
        rest = np.concatenate([positives[yes:], others[count - yes :]])
        everything = LabelledVectors(vectors, margins, shown)
        return everything.among(first), everything.among(rest)

    return HeadWorld(f"demo's {class_name}, named {prompt!r} alone", draw, None)


def demo_worlds() -> Iterator[HeadWorld]:
    """Classes of the demo's policy as if somebody had thought of one kind of them only."""
    model, policy = bundled.load(), read_policy(POLICY)
    scenes = [moderation_scene(DEMO_SEEDS + i, i % 2 == 0) for i in range(DEMO_SCENES)]
    vectors = model.encode_scenes(s.scene for s in scenes)
    for name, prompt in (("alcohol", "beer"), ("weapons", "a gun"), ("gambling", "dice")):
        one = ForbiddenClass(name=name, prompts=(prompt,), threshold=0.5)
        placed = model.vectors(policy.model_copy(update={"classes": (one,)}))
        shown = np.array([name in scene.classes for scene in scenes])
        margins = placed.classes[0].margins(vectors)
        yield pictured(name, prompt, vectors.astype(np.float64), shown, margins)
    for name in ("alcohol", "weapons"):
        whole = model.vectors(policy.model_copy(update={"classes": (policy.forbidden(name),)}))
        shown = np.array([name in scene.classes for scene in scenes])
        found = pictured(
            name, "", vectors.astype(np.float64), shown, whole.classes[0].margins(vectors)
        )
        yield HeadWorld(f"demo's {name}, named well", found.draw, None)


def figures(world: HeadWorld, count: int, repeats: int) -> str:
    """One line: proposals, and gains out of fold and on fresh images."""
    rows, proposed = [], 0
    for i in range(repeats):
        known, fresh = world.draw(np.random.default_rng([i, count]), count)
        found = propose_head(known, "class")
        after = fresh.margins + found.direction.added(fresh.vectors)
        before = average_precision(fresh.margins, fresh.truths)
        gained = average_precision(after, fresh.truths) - before
        rows.append((found.before, found.gain.value, before, gained))
        proposed += found.proven
    of_fold, gain, before, gained = np.mean(rows, axis=0)
    best = "" if world.best is None else f", {world.best - before:+.3f} at best"
    return (
        f"    {world.name}, {count} labels: proposed {proposed} of {repeats}; out of fold "
        f"{of_fold:.3f} {gain:+.3f}; on fresh images {before:.3f} {gained:+.3f}{best}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--labels", default="50,200")
    options = parser.parse_args()
    worlds = [
        tilted("named well", 0.0),
        tilted("named badly", 0.94),
        tilted("named by half", 0.8),
        tilted("with look-alikes", 0.8, look_alikes=True),
        *demo_worlds(),
    ]
    for world in worlds:
        for count in map(int, options.labels.split(",")):
            print(figures(world, count, options.repeats), flush=True)


if __name__ == "__main__":
    main()
