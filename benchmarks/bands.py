"""Measures whether screening errors stay within their band, and how much the band costs.

    python -m benchmarks.bands --images 20000
    python -m benchmarks.bands --images 300 --model ViT-B-32 --pretrained random

Draws pictures of other kinds than the probes that bands are measured on, and takes each both ways:
the fast one, in bfloat16, and the served one, in float32 (where that is the fast one, too, nothing
deviates and nothing is encoded twice). Prints how many margins lay outside the band,
which has to be none, the largest deviation, and what share of the pictures is encoded twice where
one in a hundred is flagged.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.band_pictures import picture_file
from filter_service.demo import POLICY
from filter_service.encoder import Encoder, load_encoder
from filter_service.images import decode
from filter_service.pipeline import audited
from filter_service.policy import Policy, read_policy
from filter_service.scoring import FloatArray

BATCH = 64
FLAGGED = 0.01  # of the pictures, by all classes together
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Taken:
    """One picture, ready for both passes."""

    kind: str
    digest: str
    pixels: Tensor  # (3, h, w)


@dataclass(frozen=True, slots=True)
class Sample:
    """Many pictures' vectors."""

    kinds: npt.NDArray[np.str_]  # (n,)
    audited: npt.NDArray[np.bool_]  # (n,)
    served: FloatArray  # (n, d)
    fast: dict[str, FloatArray]  # by precision, (n, d) each


def take(encoder: Encoder, number: int) -> Taken:
    kind, data = picture_file(number, encoder.input_size)
    image = decode(data)
    return Taken(kind, image.digest, encoder.pixels(image.frames[0].picture))


def sample(encoders: dict[str, Encoder], numbers: range, threads: int) -> Sample:
    """Draw and encode so many pictures."""
    first = encoders["float32"]
    kinds, audits = [], []
    served: list[FloatArray] = []
    fast: dict[str, list[FloatArray]] = {name: [] for name in encoders}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(numbers), BATCH):
            some = list(pool.map(partial(take, first), numbers[start : start + BATCH]))
            kinds += [t.kind for t in some]
            audits += [audited(t.digest) for t in some]
            pixels = torch.stack([t.pixels for t in some])  # (b, 3, h, w)
            served.append(first.encode(pixels))
            for name, encoder in encoders.items():
                exact = encoder.screening_is_exact
                fast[name].append(served[-1] if exact else encoder.screen(pixels))
    return Sample(
        np.array(kinds),
        np.array(audits),
        np.concatenate(served),
        {name: np.concatenate(parts) for name, parts in fast.items()},
    )


def report(encoder: Encoder, policy: Policy, found: Sample) -> Iterator[str]:
    """What one precision's bands did, line by line."""
    vectors = encoder.vectors(policy)
    served = vectors.margins(found.served)  # (n, classes)
    fast = vectors.margins(found.fast[encoder.precision])
    band = encoder.band(policy)  # (classes,)
    deviations = np.abs(fast - served)
    shares = np.divide(deviations, band, out=np.zeros_like(deviations), where=band > 0)
    worst = shares.max(axis=1)  # (n,)
    yield (
        f"{encoder.precision}: {int((deviations > band).sum())} of {deviations.size:,} margins "
        f"outside the band; largest deviation {deviations.max():.3f} logits, {worst.max():.2f} of "
        f"the band ({found.kinds[worst.argmax()]}), median {np.median(worst):.3f}; "
        f"bands {' '.join(f'{v:.3f}' for v in band)}"
    )
    flagged, twice = costs(
        served, fast, band, found.audited & ~np.bool_(encoder.screening_is_exact)
    )
    yield f"{encoder.precision}: at {flagged:.2%} flagged {twice:.2%} of the pictures confirmed"


def costs(
    served: npt.NDArray[np.float64],  # (n, classes)
    fast: npt.NDArray[np.float64],  # (n, classes)
    band: npt.NDArray[np.float64],  # (classes,)
    audits: npt.NDArray[np.bool_],  # (n,)
) -> tuple[float, float]:
    """The share that is flagged, and the one that goes through the exact pass."""
    thresholds = np.quantile(served, 1 - FLAGGED / served.shape[1], axis=0)  # (classes,)
    flagged = (served >= thresholds).any(axis=1)
    near = (fast >= thresholds - band).any(axis=1)
    return float(flagged.mean()), float((near | audits).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--pretrained", default="", help="empty: the model's own weights")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--threads", type=int, default=2, help="that draw and decode")
    options = parser.parse_args()
    policy = read_policy(options.policy)
    encoders = {
        name: load_encoder(options.model, options.pretrained, device="cpu", precision=name)
        for name in PRECISIONS
    }
    numbers = range(options.first, options.first + options.images)
    found = sample(encoders, numbers, options.threads)
    print(
        f"{encoders['float32'].name}, {options.images:,} pictures of "
        f"{len(set(found.kinds.tolist()))} kinds; "
        f"CPU with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    )
    for encoder in encoders.values():
        for line in report(encoder, policy, found):
            print(line, flush=True)


if __name__ == "__main__":
    main()
