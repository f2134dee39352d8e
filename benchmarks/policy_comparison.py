"""Benchmarks the comparison of two policy versions over a million stored embeddings.

    python -m benchmarks.policy_comparison                    # 1,000,000 vectors: 5 GB of disk
    python -m benchmarks.policy_comparison --vectors 100000

The vectors are clustered and of low rank, as embeddings of photographs are. Both versions have 10
classes of 5 prompts, no text in common, and thresholds that one image in a hundred passes: nothing
is shared that would make it quicker. The comparison is the service's own, on its own tables.
"""

import argparse
import resource
import statistics
import time
from typing import Any

import numpy as np
import psutil
from sqlalchemy import Engine, text

from benchmarks.counterfactual import RANK, embeddings
from benchmarks.folders import temporary_folder
from filter_service.db.embeddings import register_encoder
from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.local import services
from filter_service.policy import Calibration, ForbiddenClass, Policy
from filter_service.rollout.stored_vectors import ComparisonScope, compare
from filter_service.scoring import ClassVectors, FloatArray, LogitScale, PolicyVectors
from filter_service.settings import Settings

CLASSES, PROMPTS, NEUTRAL = 10, 5, 6
LOGIT_SCALE = LogitScale(100.0)
FLAGGED = 0.01  # of the images, by each class
CHUNK = 20_000  # rows written at once
TIMES = 3


def version(number: int, sample: FloatArray) -> PolicyVectors:
    """A version of texts of its own, whose thresholds fit the sample."""
    rng = np.random.default_rng(100 + number)
    dim = sample.shape[1]
    neutral = texts(NEUTRAL, dim, rng)
    vectors = tuple(
        ClassVectors(f"class-{c}", texts(PROMPTS, dim, rng), neutral, LOGIT_SCALE)
        for c in range(CLASSES)
    )
    policy = Policy(
        name="benchmark",
        neutral=tuple(f"version {number} neutral {i}" for i in range(NEUTRAL)),
        classes=tuple(
            ForbiddenClass(
                name=c.name,
                prompts=tuple(f"version {number} {c.name} {i}" for i in range(PROMPTS)),
                threshold=0.5,
                calibration=Calibration(a=1, b=-float(np.quantile(c.margins(sample), 1 - FLAGGED))),
            )
            for c in vectors
        ),
    )
    return PolicyVectors(policy, vectors)


def texts(n: int, dim: int, rng: np.random.Generator) -> FloatArray:
    """Unit vectors that share a direction with each other, as texts do: (n, dim)."""
    fixed = np.random.default_rng(0)
    fixed.standard_normal((2_000, RANK))  # what `embeddings` draws before its basis
    basis = np.linalg.qr(fixed.standard_normal((dim, RANK)))[0].T  # (rank, dim)
    v = rng.standard_normal((n, RANK)) / np.sqrt(RANK) @ basis
    v += np.random.default_rng(1).standard_normal(dim) / np.sqrt(dim)
    return np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), np.float32)


def load(owner: Engine, sessions: Sessions, count: int, dim: int) -> int:
    """Fill the service's tables by COPY in binary; -> the encoder's id."""
    with sessions.begin() as session:
        encoder = register_encoder(session, "ab" * 32, "benchmark", dim, {})
    with owner.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text(
                "INSERT INTO images (digest, bytes) SELECT sha256(n::text::bytea), 1 "
                "FROM generate_series(1, :count) n"
            ),
            {"count": count},
        )
        driver: Any = connection.connection.driver_connection
        columns = "encoder_id, image_id, frame, vector, exact_vector"
        into = f"COPY embeddings_{encoder} ({columns}) FROM STDIN (FORMAT BINARY)"
        with driver.cursor() as cursor, cursor.copy(into) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for start in range(0, count, CHUNK):
                z = embeddings(min(CHUNK, count - start), dim, seed=start)
                copy.write(rows(encoder, start + 1, z).tobytes())
            copy.write(b"\xff\xff")
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM ANALYZE embeddings_{encoder}"))
    return encoder


def rows(encoder: int, first: int, z: FloatArray) -> Any:  # noqa: ANN401  (a structured array)
    """Rows of `embeddings` as COPY wants them: each column after its length in bytes."""
    dim = z.shape[1]
    halves, singles = 4 + 2 * dim, 4 + 4 * dim
    names = [("columns", ">i2", 5)]
    names += [("n1", ">i4", 4), ("encoder", ">i4", encoder), ("n2", ">i4", 8)]
    names += [("image", ">i8", 0), ("n3", ">i4", 4), ("frame", ">i4", 0)]
    names += [("n4", ">i4", halves), ("dim4", ">i2", dim), ("zero4", ">i2", 0)]
    kinds: list[Any] = [(n, k) for n, k, _ in names] + [("half", ">f2", (dim,))]
    more = [("n5", ">i4", singles), ("dim5", ">i2", dim), ("zero5", ">i2", 0)]
    kinds += [(n, k) for n, k, _ in more] + [("single", ">f4", (dim,))]
    found = np.zeros(len(z), kinds)
    for name, _, value in names + more:
        found[name] = value
    found["image"] = np.arange(first, first + len(z))
    found["half"], found["single"] = z, z
    return found


def cpu_seconds(postmaster: psutil.Process) -> float:
    """CPU time of this process and of the database's, so far."""
    times = [p.cpu_times() for p in (psutil.Process(), *postmaster.children())]
    return sum(t.user + t.system for t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a change of policy would do: how long.")
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    options = parser.parse_args()
    with temporary_folder() as folder:
        settings = Settings(data_dir=folder, database_url=None, broker_url=None)
        with services(settings) as found:
            upgrade(found.database_url)
            owner, engine = connect(found.database_url, role=None), connect(found.database_url)
            began = time.perf_counter()
            sessions = sessions_of(engine)
            encoder = load(owner, sessions, options.vectors, options.dim)
            sample = embeddings(20_000, options.dim, seed=2)
            old, new = version(1, sample), version(2, sample)
            print(f"{options.vectors:,} vectors in {time.perf_counter() - began:.0f} s", flush=True)
            with owner.connect() as connection:
                backend = connection.scalar(text("SELECT pg_backend_pid()"))
            postmaster = psutil.Process(backend).parent()
            assert postmaster is not None
            measure(sessions, ComparisonScope(encoder, old, new, options.vectors), postmaster)
            owner.dispose()
            engine.dispose()


def measure(sessions: Sessions, asked: ComparisonScope, postmaster: psutil.Process) -> None:
    """Print time, memory and what was found."""
    seconds = []
    for _ in range(TIMES):
        began, cpu = time.perf_counter(), cpu_seconds(postmaster)
        found = compare(sessions, asked)
        seconds.append(time.perf_counter() - began)
        cpu = cpu_seconds(postmaster) - cpu
        print(f"{seconds[-1]:.2f} s, {cpu:.2f} s of CPU with Postgres", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{found.images:,} images: flagged by both {found.total.both:,}, only by the old "
        f"{found.total.only_old:,}, only by the new {found.total.only_new:,}; {found.again:,} "
        f"looked at again in float32\n"
        f"median of {TIMES}: {statistics.median(seconds):.2f} s; this process {peak:.0f} MB at most"
    )


if __name__ == "__main__":
    main()
