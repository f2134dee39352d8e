"""Measures whether a worker's memory grows with the number of images it has judged.

    python -m benchmarks.memory --images 10000

A real worker judges small drawn images with the bundled model, a tenth of them first; its resident
memory after that tenth and after all of them is compared.
"""

import argparse
import io
from collections.abc import Iterator

from benchmarks.folders import temporary_folder
from benchmarks.throughput import service
from filter_service.demo import POLICY
from filter_service.demo.scenes import DEV_SEEDS, render, sample_scene
from filter_service.policy import read_policy

SIDES = (96, 128, 192, 256)  # pixels: memory that depends on sizes would show
STEP = 1_000  # images of one batch


def pictures(first: int, count: int) -> Iterator[bytes]:
    """Scenes of one to four objects as small JPEG files."""
    for i in range(first, first + count):
        file = io.BytesIO()
        scene = sample_scene(DEV_SEEDS + 20_000_000 + i, 1 + i % 4)
        render(scene, SIDES[i % len(SIDES)]).save(file, "JPEG", quality=85)
        yield file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    policy = read_policy(POLICY)
    resident: list[float] = []
    step = min(STEP, options.images // 10)
    with (
        temporary_folder() as folder,
        service(folder / "data", [], policy, "bundled", None) as up,
    ):
        for first in range(0, options.images, step):
            rate, _ = up.judge(pictures(first, step), policy)
            resident.append(up.memory("VmRSS"))
            print(f"{first + step:,} images: {resident[-1]:.0f} MB, {rate:.0f}/s", flush=True)
        peak = up.memory("VmHWM")
    print(
        f"after {options.images:,} images {resident[-1] / resident[0] - 1:+.1%} against after "
        f"{step:,}; the most at any time {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
