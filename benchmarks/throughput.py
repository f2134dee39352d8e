"""Benchmarks the throughput of the whole service against that of the bare model.

    python -m benchmarks.throughput                       # 2,000 images, three rounds
    python -m benchmarks.throughput --images 200 --rounds 1

On a folder of JPEGs, drawn at 500 x 375 unless `--folder` names one, with ViT-B/32 at random
weights unless `--model` and `--pretrained` name others:

(a) the usual loop: one image at a time, decoded, preprocessed and encoded in float32;
(b) the bare forward pass: batches of ready pixels in the precision that the service screens in;
(c) the service: from queued to recorded, explanations included, through Celery, Redis and Postgres.

Machines are noisy, so that only ratios within one run mean something; of several rounds, which take
turns, the median is given.
"""

import argparse
import io
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.folders import temporary_folder
from filter_service.cli.supervision import ended
from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.demo.scenes import DEV_SEEDS, render, sample_scene
from filter_service.encoder import Encoder, load_encoder
from filter_service.images import decode
from filter_service.intake import batches, item_lists, submissions
from filter_service.intake.submissions import Submission
from filter_service.local import services
from filter_service.local.data_folder import DataFolder
from filter_service.policy import ForbiddenClass, Policy
from filter_service.scoring import FloatArray
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict, threshold_margin
from tasks.__main__ import CeleryQueue

LOOPED = 100  # images of one round of (a)
BATCH = 64
SHARES = (0.01, 0.05)  # of the images are flagged


@dataclass
class Rates:
    """Images a second, round by round."""

    loop: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    service: dict[float, list[float]] = field(default_factory=dict)  # by share flagged
    differ: dict[float, int] = field(default_factory=dict)
    peak: float = 0.0  # MB of the worker


def pictures(count: int) -> Iterator[bytes]:
    """Scenes as JPEG files of 500 x 375 pixels."""
    for i in range(count):
        file = io.BytesIO()
        scene = render(sample_scene(DEV_SEEDS + i, 1 + i % 4), 500)
        scene.crop((0, 62, 500, 437)).save(file, "JPEG", quality=88)
        yield file.getvalue()


def policy_of(threshold: float) -> Policy:
    return Policy(
        name="benchmark",
        templates=("a photo of {}",),
        neutral=("a wall", "a street", "a table", "some grass"),
        classes=(
            ForbiddenClass(
                name="weapons", prompts=("a gun", "a knife", "a sword"), threshold=threshold
            ),
            ForbiddenClass(name="tobacco", prompts=("a cigarette",), threshold=1 - 1e-9),
            ForbiddenClass(name="gambling", prompts=("dice", "a casino"), threshold=1 - 1e-9),
        ),
    )


def policy_that_flags(share: float, encoder: Encoder, exact: FloatArray) -> Policy:
    """A policy that flags this share of the images, its threshold between two of them.

    At 0 it lies a logit above all of them, out of reach of any error band.
    """
    margins = encoder.vectors(policy_of(0.5)).margins(exact)[:, 0]  # (n,)
    ranked = np.sort(margins)[::-1]
    flagged = max(1, round(share * len(ranked)))
    between = (ranked[flagged - 1] + ranked[flagged]) / 2 if share else ranked[0] + 1
    return policy_of(float(1 / (1 + np.exp(-between))))


def encode_exactly(encoder: Encoder, files: Sequence[bytes]) -> FloatArray:
    """The truth: every image in float32 from fully decoded pixels: (n, d)."""
    rows = []
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        pixels = torch.stack(
            [encoder.pixels(decode(f).frames[0].picture) for f in part]
        )  # (b, 3, h, w)
        rows.append(encoder.encode(pixels))
    return np.concatenate(rows)


def loop(encoder: Encoder, files: Sequence[bytes], texts: FloatArray) -> float:
    """(a), images a second."""
    began = time.perf_counter()
    for file in files:
        pixels = encoder.pixels(decode(file).frames[0].picture)
        (encoder.encode(pixels[None]) @ texts.T).argmax()
    return len(files) / (time.perf_counter() - began)


def bare(encoder: Encoder, pixels: torch.Tensor) -> float:
    """(b), images a second."""
    began = time.perf_counter()
    for part in pixels.split(BATCH):
        encoder.screen(part)
    return len(pixels) / (time.perf_counter() - began)


@dataclass
class Service:
    """A worker that is up and has its model, with a database and a broker."""

    settings: Settings
    sessions: Sessions
    worker: psutil.Process

    def judge(self, files: Iterable[bytes], policy: Policy) -> tuple[float, list[Verdict | None]]:
        """(c): images a second from queued to recorded, and the verdicts in order."""
        fresh = uuid.uuid4().bytes  # behind a JPEG's end: same picture, unknown digest
        sent = (Submission(str(i), file + fresh) for i, file in enumerate(files))
        storage = Storage(self.settings.images_at)
        batch = submissions.accept(self.sessions, storage, lambda: None, sent, policy)
        began = time.perf_counter()
        CeleryQueue().notify_workers(self.settings.broker_url or "")
        while not batches.status(self.sessions, batch).finished:
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        verdicts = [i.verdict for i in item_lists.items(self.sessions, batch, limit=1_000_000)]
        return len(verdicts) / seconds, verdicts

    def memory(self, which: str) -> float:
        """Of the process with the model, in MB: "VmRSS" is resident now, "VmHWM" the most ever."""
        family = [self.worker, *self.worker.children(recursive=True)]
        texts = [Path(f"/proc/{p.pid}/status").read_text() for p in family]
        return max(int(t.split(f"{which}:")[1].split()[0]) for t in texts if which in t) / 1024


@contextmanager
def service(
    folder: Path, some: Sequence[bytes], policy: Policy, model: str, pretrained: str | None
) -> Iterator[Service]:
    """Everything started, and warm."""
    settings = Settings(
        data_dir=folder,
        database_url=None,
        broker_url=None,
        model=model,
        pretrained=pretrained,
        device="cpu",
    )
    with services(settings) as found:
        upgrade(found.database_url)
        addresses = {"database_url": found.database_url, "broker_url": found.broker_url}
        settings = settings.model_copy(update=addresses)
        engine = connect(found.database_url)
        process = CeleryQueue().worker(settings, folder / "worker.log")
        with ended([process]):
            up = Service(settings, sessions_of(engine), psutil.Process(process.pid))
            up.judge(some, policy)
            yield up
        engine.dispose()
    shutil.rmtree(DataFolder.of(settings).home)  # for root, it may lie outside the folder


def run(
    files: Sequence[bytes],
    rounds: int,
    model: str,
    pretrained: str | None,
    shares: Sequence[float] = SHARES,
) -> Rates:
    encoder = load_encoder(model, pretrained, device="cpu")
    texts = encoder.encode_texts([f"a photo of {x}" for x in ("a gun", "a knife", "a wall")])
    exact = encode_exactly(encoder, files)
    policies = {share: policy_that_flags(share, encoder, exact) for share in shares}
    first = policy_that_flags(SHARES[-1], encoder, exact[:BATCH])  # it explains, too
    ready = torch.stack([encoder.pixels(decode(f).frames[0].picture) for f in files[: 4 * BATCH]])
    print(
        f"{encoder.name}, {len(files)} images; "
        f"CPU with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads; "
        f"the service screens in {encoder.precision}",
        flush=True,
    )
    rates = Rates()
    with (
        temporary_folder() as folder,
        service(folder / "data", files[:BATCH], first, model, pretrained) as up,
    ):
        for number in range(rounds):
            rates.loop.append(loop(encoder, files[:LOOPED], texts))
            rates.bare.append(bare(encoder, ready))
            for share, policy in policies.items():
                rate, verdicts = up.judge(files, policy)
                rates.service.setdefault(share, []).append(rate)
                margins = encoder.vectors(policy).margins(exact)  # (n, classes)
                limits = [threshold_margin(c) for c in policy.classes]
                truth = (margins >= np.array(limits)).any(axis=1)  # (n,)
                flagged = [v is Verdict.FLAGGED for v in verdicts]
                differ = int((truth != np.array(flagged)).sum())
                differ += sum(v is Verdict.UNDETERMINED for v in verdicts)
                rates.differ[share] = rates.differ.get(share, 0) + differ
            print(f"round {number + 1}: " + line(rates, -1), flush=True)
        rates.peak = up.memory("VmHWM")
    return rates


def line(rates: Rates, index: int | None = None) -> str:
    """One round, or the medians of all."""

    def of(values: Sequence[float]) -> float:
        return float(np.median(values)) if index is None else values[index]

    def ratio(above: Sequence[float], below: Sequence[float]) -> float:
        return of([x / y for x, y in zip(above, below, strict=True)])

    parts = [f"a {of(rates.loop):.1f}/s, b {of(rates.bare):.1f}/s"]
    for share, values in rates.service.items():
        parts.append(
            f"at {share:.0%} flagged c {of(values):.1f}/s, c/a {ratio(values, rates.loop):.2f}, "
            f"c/b {ratio(values, rates.bare):.2f}"
        )
        if share and 0.0 in rates.service:
            down = 1 - ratio(values, rates.service[0.0])
            parts[-1] += f", {down:.1%} less than without explanations"
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="JPEGs of your own")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", default="random", help="empty: the model's own weights")
    parser.add_argument(
        "--no-explanations",
        action="store_true",
        help="also with nothing to flag, hence to explain: what explanations cost",
    )
    options = parser.parse_args()
    if options.folder:
        found = sorted(
            p for p in options.folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")
        )
        files = [p.read_bytes() for p in found[: options.images]]
    else:
        files = list(pictures(options.images))
    shares = (0.0, *SHARES) if options.no_explanations else SHARES
    rates = run(files, options.rounds, options.model, options.pretrained or None, shares)
    print(f"median of {options.rounds}: {line(rates)}")
    print(f"peak memory of the worker: {rates.peak:.0f} MB")
    for share, count in rates.differ.items():
        print(f"verdicts unlike float32's at {share:.0%} flagged: {count}")


if __name__ == "__main__":
    main()
