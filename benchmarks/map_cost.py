"""Benchmarks the default relevance map, as a multiple of one forward pass.

    python -m benchmarks.map_cost

Plain forward passes and passes with their maps take turns on the same images; given is the median
of the paired ratios, for 1, 16 and 100 classes, on ViT-B/32 and ViT-B/16 at random weights.
"""

import argparse
import time

import numpy as np
import torch

from filter_service.encoder import Encoder, load_encoder
from filter_service.explain.relevance import capture

CLASSES = (1, 16, 100)


def ratios(encoder: Encoder, classes: int, images: int, pairs: int) -> list[float]:
    side, rng = encoder.input_size, np.random.default_rng(0)
    x = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(0))
    u = (rng.normal(size=(images, classes, encoder.dim)) * encoder.dim**-0.5).astype(np.float32)
    found = []
    for _ in range(pairs + 1):
        began = time.perf_counter()
        encoder.encode(x)
        plain = time.perf_counter()
        capture(encoder, x).maps(range(images), u)
        found.append((time.perf_counter() - plain) / (plain - began))
    return found[1:]  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "ViT-B-16"])
    parser.add_argument("--images", type=int, default=8, help="in one pass")
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    for model in options.models:
        encoder = load_encoder(model, "random", device="cpu", precision="float32")
        for classes in CLASSES:
            found = ratios(encoder, classes, options.images, options.pairs)
            low, high = np.percentile(found, [25, 75])
            print(
                f"{model}, {classes} classes: {np.median(found):.2f} forward passes "
                f"(half of the pairs within {low:.2f} to {high:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
