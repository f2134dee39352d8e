"""Whether the fast pass ever leads further astray than its band says, and what the band costs.

    python -m benchmarks.bands --images 20000
    python -m benchmarks.bands --images 300 --model ViT-B-32 --pretrained random

Draws pictures of other kinds than the probes that bands are measured on, and takes each both ways:
the fast one (JPEGs that are large enough decoded at half their size, in float32 and in bfloat16),
and the served one (decoded in full, in float32). Prints how many margins lay outside the band,
which has to be none, the largest deviation, and what share of the pictures is encoded twice where
one in a hundred is flagged.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.band_pictures import picture_file
from filter_service.demo.thresholds import FILE
from filter_service.encoder import Encoder, load_encoder
from filter_service.encoder.bands import glance
from filter_service.images import decode
from filter_service.pipeline import audited
from filter_service.policy import Policy, read_policy
from filter_service.scoring import FloatArray

BATCH = 64
FLAGGED = 0.01  # of the pictures, by all classes together
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Taken:
    """One picture, ready for both passes: (3, h, w) each."""

    kind: str
    digest: str
    drafted: bool
    fast: Tensor
    full: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """Many pictures' vectors."""

    kinds: npt.NDArray[np.str_]  # (n,)
    audited: npt.NDArray[np.bool_]  # (n,)
    drafted: npt.NDArray[np.bool_]  # (n,)
    served: FloatArray  # (n, d)
    fast: dict[str, FloatArray]  # by precision, (n, d) each


def take(encoder: Encoder, number: int) -> Taken:
    kind, data = picture_file(number, encoder.input_size)
    image = glance(data, encoder.input_size)
    fast = encoder.pixels(image.frames[0].picture)
    full = encoder.pixels(decode(data).frames[0].picture) if image.drafted else fast
    return Taken(kind, image.digest, image.drafted, fast, full)


def sample(encoders: dict[str, Encoder], numbers: range, threads: int) -> Sample:
    """Draw and encode so many pictures."""
    first = encoders["float32"]
    kinds, audits, drafted = [], [], []
    served: list[FloatArray] = []
    fast: dict[str, list[FloatArray]] = {name: [] for name in encoders}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(numbers), BATCH):
            some = list(pool.map(partial(take, first), numbers[start : start + BATCH]))
            kinds += [t.kind for t in some]
            audits += [audited(t.digest) for t in some]
            drafted += [t.drafted for t in some]
            served.append(first.encode(torch.stack([t.full for t in some])))
            for name, encoder in encoders.items():
                fast[name].append(encoder.screen(torch.stack([t.fast for t in some])))
    return Sample(
        np.array(kinds),
        np.array(audits),
        np.array(drafted),
        np.concatenate(served),
        {name: np.concatenate(parts) for name, parts in fast.items()},
    )


def report(encoder: Encoder, policy: Policy, found: Sample) -> Iterator[str]:
    """What one precision's bands did, line by line."""
    vectors = encoder.vectors(policy)
    served = vectors.margins(found.served)  # (n, classes)
    fast = vectors.margins(found.fast[encoder.precision])
    bands = np.where(
        found.drafted[:, None], encoder.band(policy), encoder.band(policy, drafted=False)
    )  # (n, classes)
    deviations = np.abs(fast - served)
    shares = np.divide(deviations, bands, out=np.zeros_like(bands), where=bands > 0)
    for name, some in {"drafted": found.drafted, "in full": ~found.drafted}.items():
        if some.any():
            kind = found.kinds[some][shares[some].max(axis=1).argmax()]
            yield (
                f"{encoder.precision}, {name}: {int((deviations > bands)[some].sum())} of "
                f"{deviations[some].size:,} margins outside the band; largest deviation "
                f"{deviations[some].max():.3f} logits, {shares[some].max():.2f} of the band "
                f"({kind}), median {np.median(shares[some].max(axis=1)):.3f}; "
                f"bands {_listed(bands[some][0])}"
            )
    flagged, twice = costs(served, fast, bands, found.audited)
    yield f"{encoder.precision}: at {flagged:.2%} flagged {twice:.2%} of the pictures confirmed"


def costs(
    served: npt.NDArray[np.float64],  # (n, classes), as the two after it
    fast: npt.NDArray[np.float64],
    bands: npt.NDArray[np.float64],
    audits: npt.NDArray[np.bool_],  # (n,)
) -> tuple[float, float]:
    """The share that is flagged, and the one that goes through the exact pass."""
    thresholds = np.quantile(served, 1 - FLAGGED / served.shape[1], axis=0)  # (classes,)
    flagged = (served >= thresholds).any(axis=1)
    near = (fast >= thresholds - bands).any(axis=1)
    return float(flagged.mean()), float((near | audits).mean())


def _listed(values: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return " ".join(f"{v:.3f}" for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--pretrained", default="", help="empty: the model's own weights")
    parser.add_argument("--policy", type=Path, default=FILE)
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
        f"{len(set(found.kinds.tolist()))} kinds, {found.drafted.mean():.0%} of them drafted; "
        f"CPU with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    )
    for encoder in encoders.values():
        for line in report(encoder, policy, found):
            print(line, flush=True)


if __name__ == "__main__":
    main()
