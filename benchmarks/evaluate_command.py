"""Times `evaluate --keep` of many labelled pictures whose vectors are kept, as a whole command.

    python -m benchmarks.evaluate_command [--pictures 10000]

Pictures are samples with a few bytes more, so that each is another file; their vectors are drawn at
random, near those of prompts. A database of its own is started and thrown away.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from filter_service.db.embeddings import keep_vectors, register_encoder
from filter_service.db.schema import upgrade
from filter_service.db.session import connect, sessions_of
from filter_service.db.tables import StoredImage
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import Encoder, encoder_of
from filter_service.images.views import View
from filter_service.local import services
from filter_service.policy import read_policy
from filter_service.settings import Settings
from filter_service.verdicts import KnownVectors

SIDE = 224  # pixels of every sample, so that each is one look


def main() -> None:
    """Print seconds of start and of the whole command, first and second time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10_000)
    count: int = parser.parse_args().pictures
    folder = Path(tempfile.mkdtemp())
    try:
        with services(Settings(data_dir=folder / "data")) as found:
            upgrade(found.database_url)
            settings = Settings(database_url=found.database_url, broker_url=found.broker_url)
            _fill(settings, folder / "set", count)
            environment = os.environ | {
                "FILTER_SERVICE_DATABASE_URL": found.database_url,
                "FILTER_SERVICE_BROKER_URL": found.broker_url,
                "FILTER_SERVICE_DATA_DIR": str(folder / "data"),
            }
            start = _seconds(["evaluate", str(_few(folder)), "--policy", str(POLICY)], environment)
            command = ["evaluate", str(folder / "set"), "--policy", str(POLICY), "--keep", "--json"]
            for what in ("new", "known"):
                whole = _seconds(command, environment)
                clock, cores = (w - s for w, s in zip(whole, start, strict=True))
                told = {"pictures": count, "labels": what, "start": round(start[0], 2)}
                after = {"clock after start": round(clock, 2), "core seconds": round(cores, 2)}
                print(json.dumps(told | after), flush=True)
    finally:
        shutil.rmtree(folder)


def _seconds(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """By the clock, and of all cores: other work on the same cores moves the first."""
    begun, used = time.perf_counter(), _used()
    done = subprocess.run(
        [sys.executable, "-m", "tasks", *words],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    return time.perf_counter() - begun, _used() - used


def _used() -> float:
    """Core seconds of all commands so far."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _few(folder: Path) -> Path:
    """One picture, whose evaluation is the start of the command and little more."""
    few = folder / "few" / "clear"
    few.mkdir(parents=True)
    shutil.copy(next(iter(sorted(SAMPLES.glob("*.jpg")))), few)
    return few.parent


def _fill(settings: Settings, folder: Path, count: int) -> None:
    """Files, rows and vectors."""
    encoder, rng = encoder_of(settings), np.random.default_rng(0)
    samples = [p.read_bytes() for p in sorted(SAMPLES.glob("*.jpg"))]
    names = [c.name for c in read_policy(POLICY).classes]
    engine = connect(str(settings.database_url))
    sessions = sessions_of(engine)
    prompts = encoder.encode_texts([p for c in read_policy(POLICY).classes for p in c.prompts])
    with sessions.begin() as session:
        encoder_id = register_encoder(
            session, encoder.fingerprint, encoder.name, encoder.dim, encoder.details
        )
    for first in range(0, count, 1_000):
        rows = []
        for number in range(first, min(first + 1_000, count)):
            data = samples[number % len(samples)] + number.to_bytes(4)
            name = (*names, "clear", "clear", "clear")[number % (len(names) + 3)]
            path = folder / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            size = {"width": SIDE, "height": SIDE, "shown_time": 1.0}
            rows.append({"digest": digest, "bytes": len(data), **size})
        with sessions.begin() as session:
            ids = session.scalars(insert(StoredImage).returning(StoredImage.id), rows).all()
            keep_vectors(session, encoder_id, {i: _drawn(encoder, prompts, rng) for i in ids})
    engine.dispose()


def _drawn(encoder: Encoder, prompts: np.ndarray, rng: np.random.Generator) -> KnownVectors:
    z = rng.standard_normal(encoder.dim) / np.sqrt(encoder.dim)
    z = z + 0.5 * prompts[rng.integers(len(prompts))]
    return KnownVectors((z / np.linalg.norm(z))[None].astype(np.float32), (View(),), (True,))


if __name__ == "__main__":
    main()
