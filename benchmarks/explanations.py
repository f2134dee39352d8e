"""Compares all relevance-map methods, and writes the report that chooses the default.

    python -m benchmarks.explanations
    python -m benchmarks.explanations --model local-dir:another --name smaller --quick

On rendered scenes, where an object can be left out and the scene drawn again. Choices are made on
the development split; the test split is for the figures of what was chosen. Results are kept as
JSON, one file a model, and the page is written from all of them. The smaller model is trained with
`python -m filter_service.demo.train --seed 2 --steps 2400 --width 96 --layers 4 --head-width 32
--out another`.
"""

import argparse
import time
from pathlib import Path

from benchmarks.explaining import candidates, page
from benchmarks.explaining.sanity import absent_share, sanity
from benchmarks.explaining.study import FILLS, Figures, Study, grid_of, measure_all
from benchmarks.explaining.trials import draw
from benchmarks.explaining.unoffered import EVERY
from benchmarks.explaining.wording import words
from filter_service.demo.scenes import DEV_SEEDS, TEST_SEEDS
from filter_service.encoder import load_encoder

DOCS = Path(__file__).parent.parent / "docs"
FROM_DEV, FROM_TEST = DEV_SEEDS + 40_000_000, TEST_SEEDS + 40_000_000
WORDED = 100  # scenes whose captions are tried


def run(model: str, name: str, images: int, quick: bool, pictures: Path | None) -> page.Results:
    """Both splits of one model; if quick, only the default's rivals among what is costly."""
    encoder = load_encoder(model, device="cpu")
    grid, began = grid_of(encoder), time.perf_counter()

    def said(figures: Figures) -> None:
        gone = time.perf_counter() - began
        print(
            f"{gone:6.0f} s  {figures.name:48s} causal {figures.causal.value:.3f}, deletion "
            + ", ".join(f"{f} {v:.3f}" for f, v in figures.deletion.items()),
            flush=True,
        )

    print(f"{name}: development split", flush=True)
    dev = Study(encoder, draw(encoder, FROM_DEV, images), grid)
    dev.prepare(FILLS[:1])
    tried = measure_all(dev, candidates.cheap(), FILLS[:1], said)

    print(f"{name}: test split", flush=True)
    test = Study(encoder, draw(encoder, FROM_TEST, images), grid)
    test.prepare(FILLS)
    wanted = candidates.RIVALS if quick else EVERY
    methods = {n: EVERY[n] for n in page.ONE_PASS}
    methods |= {n: m for n, m in candidates.costly().items() if n in wanted}
    found = measure_all(test, methods, FILLS, said)
    for other, grids in candidates.baselines(encoder, test.trials, grid).items():
        found[other] = test.measure(other, grids, FILLS)
        said(found[other].figures)
    default = found[page.DEFAULT]
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        figures = {n: m.figures for n, m in found.items()}
        page.draw_curves(figures, pictures / "deletion-curves.webp")
        page.draw_maps(test, pictures / "map-grid.webp")
    vision = encoder.details["architecture"]["vision_cfg"]
    return page.Results(
        model=name,
        fingerprint=encoder.fingerprint,
        shape=f"{vision['layers']} layers of width {vision['width']}, {grid[0]} x {grid[1]} places",
        images=images,
        pairs=len(test.trials.pairs),
        dropped=test.trials.dropped,
        dev={n: m.figures for n, m in tried.items()},
        test={n: m.figures for n, m in found.items()},
        gaps={n: test.gap(default, m) for n, m in found.items() if m is not default},
        sanity=sanity(encoder, EVERY[page.DEFAULT], test.trials),
        words=words(encoder, draw(encoder, FROM_TEST, min(images, WORDED))),
        absent={n: absent_share(encoder, m, dev.trials) for n, m in candidates.damped().items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--name", default="bundled", help="of the model, in the page")
    parser.add_argument("--images", type=int, default=300, help="scenes of each split")
    parser.add_argument("--quick", action="store_true", help="of costly maps, only the rivals")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of page and results")
    options = parser.parse_args()
    pictures = options.out / "pictures" if options.name == "bundled" else None
    results = run(options.model, options.name, options.images, options.quick, pictures)
    folder = options.out / "explanations-benchmark"
    page.keep(results, folder)
    page.write(folder, options.out / "explanations-benchmark.md")
    print(f"written: {options.out / 'explanations-benchmark.md'}")


if __name__ == "__main__":
    main()
