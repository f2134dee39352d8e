"""Benchmarks preparing pictures: from a file's bytes to what the model and the record need of it.

    python -m benchmarks.prepare
    python -m benchmarks.prepare --before ../checkout-of-another-commit

Core-milliseconds of one thread for a picture of each kind: decoded, looked at, hashed. Each build
works in a process of its own, and the builds take turns; of the rounds the median is given. With
another build the pixels and hashes of both are compared, too.
"""

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from filter_service.demo.scenes import DEV_SEEDS, render, sample_scene
from filter_service.encoder import load_encoder
from filter_service.pipeline.subject import prepare

KINDS = {"500 x 375 JPEG": (500, 20), "12 megapixel JPEG": (4000, 3), "500 x 375 PNG": (500, 20)}


def files(kind: str) -> Iterator[bytes]:
    """Scenes of 4:3, with grain as a camera leaves it."""
    width, number = KINDS[kind]
    for i in range(number):
        scene = render(sample_scene(DEV_SEEDS + i, 1 + i % 4), 500).crop((0, 62, 500, 437))
        large = np.asarray(scene.resize((width, width * 3 // 4)), np.int16)
        grain = np.random.default_rng(i).normal(0, 4, large.shape).astype(np.int16)
        file = io.BytesIO()
        picture = PIL.Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8))
        picture.save(file, kind.rsplit(maxsplit=1)[-1], quality=88)
        yield file.getvalue()


def measured() -> dict[str, tuple[float, str]]:
    """For each kind of file core-milliseconds, and a digest of all that was made of it."""
    torch.set_num_threads(1)
    encoder = load_encoder("ViT-B-32", "random", device="cpu")
    found = {}
    for kind in KINDS:
        some = list(files(kind))
        prepare(some[0], encoder)
        began = time.process_time()
        subjects = [prepare(data, encoder) for data in some]
        took = (time.process_time() - began) * 1000 / len(some)
        seen = hashlib.sha256()
        for subject in subjects:
            assert subject.pixels is not None
            seen.update(subject.pixels.numpy().tobytes() + (subject.pdq or "").encode())
        found[kind] = took, seen.hexdigest()
    return found


def of(checkout: Path) -> dict[str, tuple[float, str]]:
    """The same by another build, in a process that imports everything else from its checkout."""
    command = [sys.executable, "-P", __file__, "--serve"]  # -P: its folder has a `queue`, too
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {kind: tuple(both) for kind, both in json.loads(done.stdout).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="checkout of a build to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        print(json.dumps(measured()))
        return
    checkouts = [asked.before.resolve()] if asked.before else []
    checkouts.append(Path(__file__).parents[1])
    rounds = [[of(checkout) for checkout in checkouts] for _ in range(asked.rounds)]
    for kind in KINDS:
        costs = [statistics.median(r[i][kind][0] for r in rounds) for i in range(len(checkouts))]
        same = len({side[kind][1] for turn in rounds for side in turn}) == 1
        print(f"{kind}: " + ", ".join(f"{c:.2f}" for c in costs) + " core-milliseconds", end="")
        print(f", {costs[-1] / costs[0]:.2f}; " + ("same" if same else "OTHER") + " pixels, hashes")


if __name__ == "__main__":
    main()
