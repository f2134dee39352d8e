"""Benchmarks the speed and exactness of counterfactual image search in a large store.

    python -m benchmarks.counterfactual                     # 500,000 vectors: half an hour, 6 GB
    python -m benchmarks.counterfactual --vectors 50000

The vectors are clustered and of low rank, as embeddings of photographs are; one in a hundred lies
on the flagged side. The search is the service's own, on its own tables and index; brute force over
the same vectors in float32 says which answer is the right one.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from sqlalchemy import Engine

from benchmarks.folders import temporary_folder
from filter_service.db.embeddings import index_grown, register_encoder
from filter_service.db.policies import load_policy, store_policy
from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.vectors import StoredMemory
from filter_service.explain.counterfactual import ASKED
from filter_service.local import services
from filter_service.policy import ForbiddenClass, Policy
from filter_service.scoring import FloatArray
from filter_service.settings import Settings
from filter_service.verdicts import Verdict

RANK, CLUSTERS = 64, 2_000  # photographs spread over some dozens of dimensions, in many topics
FLAGGED = 0.01
POLICY = Policy(
    name="benchmark",
    neutral=("a photo",),
    classes=(ForbiddenClass(name="forbidden", prompts=("a knife",), threshold=0.5),),
)


def embeddings(n: int, dim: int, seed: int) -> FloatArray:
    """Clustered unit vectors of low rank with a little noise of full rank: (n, dim)."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    falling = 1 / np.sqrt(1 + np.arange(RANK))  # the spectrum of real embeddings falls as slowly
    centres = fixed.standard_normal((CLUSTERS, RANK)) * falling  # (clusters, rank)
    sizes = 1 / (1 + np.arange(CLUSTERS))  # some topics are common, most are rare
    basis: FloatArray = np.linalg.qr(fixed.standard_normal((dim, RANK)))[0].T  # (rank, dim)
    chosen = rng.choice(CLUSTERS, n, p=sizes / sizes.sum())
    low = centres[chosen] + 0.5 * falling * rng.standard_normal((n, RANK))  # (n, rank)
    z = (low @ basis).astype(np.float32)  # (n, dim)
    z += 0.02 * rng.standard_normal((n, dim), dtype=np.float32)
    z += 0.5 * basis[0].astype(np.float32)  # embeddings share a direction
    return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))


def margins(z: FloatArray) -> FloatArray:
    """Of a class that one in a hundred shows; 0 is the threshold: (n, dim) -> (n,) logits."""
    direction = np.random.default_rng(1).standard_normal((z.shape[1],)).astype(np.float32)
    spread = embeddings(20_000, z.shape[1], seed=2) @ direction
    return np.asarray(100 * (z @ direction - np.quantile(spread, 1 - FLAGGED)) / np.ptp(spread))


def load(engine: Engine, sessions: Sessions, z: FloatArray, m: FloatArray) -> int:
    """Fill the service's tables by COPY; -> the encoder's id."""
    with sessions.begin() as session:
        encoder = register_encoder(session, "ab" * 32, "benchmark", z.shape[1], {})
        (class_id,) = load_policy(session, store_policy(session, POLICY)).class_ids.values()
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        register_vector(driver)
        rows = range(len(z))
        copy(
            driver,
            "images (id, digest, bytes)",
            "int8 bytea int8",
            ((i, i.to_bytes(32, "big"), 1) for i in rows),
        )
        copy(
            driver,
            "embeddings (encoder_id, image_id, frame, vector, exact_vector)",
            "int4 int8 int4 halfvec vector",
            ((encoder, i, 0, HalfVector(z[i]), Vector(z[i])) for i in rows),
        )
        copy(
            driver,
            "scores (encoder_id, class_id, image_id, margin, frame, exact)",
            "int4 int4 int8 float8 int4 bool",
            ((encoder, class_id, i, float(m[i]), 0, True) for i in rows),
        )
        driver.commit()
    return encoder


def copy(driver: psycopg.Connection, table: str, types: str, rows: Iterator[Any]) -> None:
    """Fill a table by COPY in binary; `types` are those of its columns, by name."""
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types.split())
        for row in rows:
            copy.write_row(row)


def ask(memory: StoredMemory, z: FloatArray, side: Verdict) -> str | None:
    """The digest of the nearest image on a side."""
    found = memory.images(
        z, policy=POLICY, class_name="forbidden", side=side, beyond=0.0, limit=ASKED
    )
    return found[0].digest if found else None


def measure(memory: StoredMemory, z: FloatArray, m: FloatArray, queries: FloatArray) -> None:
    """Print time and exactness for both directions."""
    of_queries = margins(queries)
    for name, side, start, there in (
        ("flagged image, nearest clear one", Verdict.CLEAR, of_queries >= 0, m < 0),
        ("clear image, nearest flagged one", Verdict.FLAGGED, of_queries < 0, m >= 0),
    ):
        asked, candidates = queries[start], np.flatnonzero(there)
        right = [int(candidates[np.argmax(z[candidates] @ q)]) for q in asked]
        seconds, hits = [], 0
        for q, best in zip(asked, right, strict=True):
            began = time.perf_counter()
            found = ask(memory, q, side)
            seconds.append(time.perf_counter() - began)
            hits += found == f"{best:064x}"
        first, *warm = np.array(seconds) * 1000
        print(
            f"{name}: {len(asked)} queries among {len(candidates):,}; median "
            f"{np.median(warm):.1f} ms, 95 % within {np.quantile(warm, 0.95):.1f} ms, "
            f"the first {first:.0f} ms; exact in {hits} of {len(asked)}",
            flush=True,
        )


def queries_of(count: int, dim: int) -> FloatArray:
    """Unseen vectors, as many on each side of the threshold: (2 count, dim)."""
    pool = embeddings(400 * count, dim, seed=4)
    m = margins(pool)
    return np.concatenate([pool[m >= 0][:count], pool[m < 0][:count]])


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vectors", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100, help="in each direction")
    options = parser.parse_args()
    with timed("vectors made"):
        z = embeddings(options.vectors, options.dim, seed=3)
        m = margins(z)
    print(f"{len(z):,} vectors of {options.dim}, {np.mean(m >= 0):.2%} on the flagged side")
    with temporary_folder() as folder:
        settings = Settings(data_dir=folder / "data", database_url=None)
        with services(settings) as found:
            upgrade(found.database_url)
            owner = connect(found.database_url, role=None)
            engine = connect(found.database_url)
            sessions = sessions_of(engine)
            with timed("loaded"):
                encoder = load(owner, sessions, z, m)
            with timed("indexed"), sessions.begin() as session:
                index_grown(session)
            with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
                size = connection.exec_driver_sql(
                    "SELECT pg_size_pretty(pg_database_size(current_database()))"
                ).scalar()
            print(f"size of the database: {size}")
            memory = StoredMemory(sessions, encoder, options.dim, scale=100.0)
            measure(memory, z, m, queries_of(options.queries, options.dim))
            engine.dispose()
            owner.dispose()


if __name__ == "__main__":
    main()
