"""Generates the demo's sample images, and scenes for choosing thresholds and evaluating.

    python -m filter_service.demo.samples

Every third scene holds one forbidden kind among ordinary ones. Nothing is chosen by what a model
says of it: the samples are the first `COUNT` scenes from `SAMPLE_SEEDS`, whatever they show.
"""

import argparse
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from filter_service.demo import SAMPLES
from filter_service.demo.kinds import CLASS_OF, ORDINARY, TRAINED_STYLES
from filter_service.demo.scenes import SIZES, Scene, Sizes, render, sample_scene

SAMPLE_SEEDS = 990_000_000  # between the development and the test seeds, used for nothing else
COUNT = 240
SIDE = 384  # pixels
QUALITY = 85  # of the JPEG files
OBJECTS = (0.45, 0.35, 0.20)  # share of scenes with 1, 2, 3 objects
ALLOWED = tuple(name for name, _ in ORDINARY)


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """A scene and the forbidden classes that it shows."""

    scene: Scene
    classes: tuple[str, ...]


def moderation_scene(
    seed: int,
    forbidden: bool,
    styles: tuple[str, ...] = TRAINED_STYLES,
    sizes: Sizes = SIZES,
) -> LabelledScene:
    """A scene of 1 to 3 ordinary objects; if asked, one of them is replaced by a forbidden kind."""
    rng = np.random.default_rng((seed, 11))
    count = int(rng.choice(3, p=OBJECTS)) + 1
    scene = sample_scene(seed, count, ALLOWED, styles, sizes)
    if not forbidden:
        return LabelledScene(scene, ())
    kind, place = str(rng.choice(list(CLASS_OF))), int(rng.integers(count))
    objects = list(scene.objects)
    objects[place] = replace(objects[place], kind=kind)
    return LabelledScene(replace(scene, objects=tuple(objects)), (CLASS_OF[kind],))


def moderation_scenes(
    first_seed: int,
    count: int,
    styles: tuple[str, ...] = TRAINED_STYLES,
    sizes: Sizes = SIZES,
) -> Iterator[LabelledScene]:
    """Consecutive seeds, every third scene with a forbidden object."""
    for i in range(count):
        yield moderation_scene(first_seed + i, i % 3 == 0, styles, sizes)


def jpeg(scene: Scene) -> bytes:
    """The scene as the demo submits it."""
    file = io.BytesIO()
    render(scene, SIDE).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def as_submitted(scene: Scene) -> Image.Image:
    """The scene after a trip through its JPEG file, which is what the service sees."""
    return Image.open(io.BytesIO(jpeg(scene))).convert("RGB")


def write(folder: Path) -> None:
    """Write the sample images and `labels.jsonl`, from which each can be drawn again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = []
    for i, sample in enumerate(moderation_scenes(SAMPLE_SEEDS, COUNT)):
        name = f"{i:03}.jpg"
        (folder / name).write_bytes(jpeg(sample.scene))
        label = {
            "file": name,
            "kinds": [o.kind for o in sample.scene.objects],
            "classes": sample.classes,
            "scene": asdict(sample.scene),
        }
        lines.append(json.dumps(label) + "\n")
    (folder / "labels.jsonl").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=SAMPLES)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
