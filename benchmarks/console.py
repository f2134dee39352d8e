"""Benchmarks the response times of the console's pages with a million stored items.

    python -m benchmarks.console                     # 1,000,000 items: some 20 minutes, 6 GB
    python -m benchmarks.console --items 100000
    python -m benchmarks.console --only slider       # no search, and so no index to be built

One item in ten is flagged, four fifths of these wait for review, the others were decided. The
sample images and their explanations are real; the other images are vectors near the samples', so
that searching walks through crowds. A signed-in moderator asks a real server over its loopback
address for one page after another.
"""

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Json
from sqlalchemy import Engine

from benchmarks.counterfactual import copy, timed
from benchmarks.folders import temporary_folder
from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.accounts.clients import add_client
from filter_service.db.embeddings import index_grown, register_encoder
from filter_service.db.policies import KnownPolicy, load_policy, store_policy
from filter_service.db.schema import upgrade
from filter_service.db.scope import DEFAULT
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import Encoder, load_encoder
from filter_service.images import decode
from filter_service.local import services
from filter_service.pipeline import moderate
from filter_service.policy import Policy, Severity, read_policy
from filter_service.scoring import FloatArray
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Outcome, Verdict
from filter_service.verdicts.explanation import Explanation
from filter_service.web.console.policy_form import PolicyForm

FLAGGED, UNDETERMINED = 10, 499  # one item in so many
WAITING = 5  # all flagged items but one in so many
BATCH = 5_000  # items
DAYS = 60
NEAR = 0.6  # length of what is added to a sample's vector
ASKED = 100  # requests for each page
LIMIT = 150.0  # ms
RARE = "rare"  # name of a client of one batch


@dataclass(frozen=True)
class World:
    """The policy, the encoder and the judged samples that the rows are made of."""

    policy: Policy
    known: KnownPolicy
    policy_id: int
    encoder_id: int
    outcomes: Sequence[Outcome]  # of the samples
    vectors: FloatArray  # (items, d) unit; those of the samples first
    rare: int  # the client of one batch; all others are the default one's

    def flags(self) -> list[Explanation]:
        return [e for o in self.outcomes for e in o.explanations]


def vectors_like(samples: FloatArray, n: int) -> FloatArray:
    """The samples and a crowd around each: (n, d) unit."""
    rng = np.random.default_rng(0)
    d = samples.shape[1]
    z = samples[rng.integers(len(samples), size=n)]
    z = z + NEAR / np.sqrt(d) * rng.standard_normal((n, d), dtype=np.float32)
    z[: len(samples)] = samples[:n]
    return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), dtype=np.float32)


def world(
    sessions: Sessions, storage: Storage, encoder: Encoder, items: int, samples: int
) -> World:
    """Judge and keep some samples, and register what judged them."""
    policy = read_policy(POLICY)
    files = [f.read_bytes() for f in sorted(SAMPLES.glob("*.jpg"))[:samples]]
    outcomes = moderate([decode(f) for f in files], policy, encoder)
    for outcome, file in zip(outcomes, files, strict=True):
        storage.put(outcome.digest, file)
    with sessions.begin() as session:
        encoder_id = register_encoder(
            session, encoder.fingerprint, encoder.name, encoder.dim, encoder.details
        )
        policy_id = store_policy(session, policy)
        known = load_policy(session, policy_id)
    rare = add_client(sessions, RARE, "benchmark").id
    z = np.concatenate([o.vectors[:1] for o in outcomes if o.vectors is not None])
    vectors = vectors_like(z, items)
    return World(policy, known, policy_id, encoder_id, outcomes, vectors, rare)


def fill(engine: Engine, w: World) -> None:
    """A million of everything, by COPY."""
    rng = np.random.default_rng(1)
    n = len(w.vectors)
    numbers = range(1, n + 1)
    flags = w.flags()
    batches = [uuid.uuid4() for _ in range(-(-n // BATCH))]
    now = datetime.now(UTC)
    chosen = rng.integers(len(flags), size=n)  # whose explanation a flagged item carries
    ages = np.sort(rng.random(n))[::-1] * DAYS  # days
    severities = {c.name: list(Severity).index(c.severity) for c in w.policy.classes}

    def client(of_batch: int) -> int:
        return w.rare if of_batch == len(batches) // 2 else DEFAULT

    def batch(i: int) -> uuid.UUID:
        return batches[(i - 1) // BATCH]

    def at(i: int) -> datetime:
        return now - timedelta(days=float(ages[i - 1]))

    def flag(i: int) -> Explanation:
        return flags[int(chosen[i - 1])]

    def verdict(i: int) -> Verdict:
        if i % FLAGGED == 0:
            return Verdict.FLAGGED
        return Verdict.UNDETERMINED if i % UNDETERMINED == 0 else Verdict.CLEAR

    def item(i: int) -> tuple[Any, ...]:
        v = verdict(i)
        seen = v is not Verdict.UNDETERMINED
        e = flag(i)
        margin = e.margin if v is Verdict.FLAGGED else -5.0 - float(chosen[i - 1])
        return (
            i,
            batch(i),
            i,
            f"picture-{i}.jpg",
            v,
            None if seen else "the file could not be read",
            at(i),
            w.encoder_id if seen else None,
            w.known.class_ids[e.class_name] if seen else None,
            margin if seen else None,
            (e.probability if v is Verdict.FLAGGED else 0.001) if seen else None,
            client((i - 1) // BATCH),
        )

    def digest(i: int) -> bytes:
        if i <= len(w.outcomes):
            return bytes.fromhex(w.outcomes[i - 1].digest)
        return i.to_bytes(32, "big")

    flagged = range(FLAGGED, n + 1, FLAGGED)
    waiting = [i for i in flagged if i % (FLAGGED * WAITING)]
    decided = [i for i in flagged if not i % (FLAGGED * WAITING)]
    records = {id(e): Json(e.model_dump(mode="json")) for e in flags}
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        register_vector(driver)
        enum = EnumInfo.fetch(driver, "verdict")
        assert enum is not None
        register_enum(enum, driver, Verdict, mapping={v: v.value for v in Verdict})
        copy(
            driver,
            "images (id, digest, bytes)",
            "int8 bytea int8",
            ((i, digest(i), 1) for i in numbers),
        )
        copy(
            driver,
            "batches (id, policy_id, label, priority, submitted_at, total, announced_at, "
            "client_id)",
            "uuid int4 varchar int2 timestamptz int4 timestamptz int4",
            (
                (b, w.policy_id, f"batch {k}", 0, now, BATCH, now, client(k))
                for k, b in enumerate(batches)
            ),
        )
        copy(
            driver,
            "items (id, batch_id, image_id, source, verdict, reason, judged_at, encoder_id, "
            "class_id, margin, probability, client_id)",
            "int8 uuid int8 varchar verdict varchar timestamptz int4 int4 float8 float8 int4",
            (item(i) for i in numbers),
        )
        copy(
            driver,
            "embeddings (encoder_id, image_id, frame, vector, exact_vector)",
            "int4 int8 int4 halfvec vector",
            (
                (w.encoder_id, i, 0, HalfVector(z), Vector(z))
                for i, z in zip(numbers, w.vectors, strict=True)
            ),
        )
        copy(
            driver,
            "scores (encoder_id, class_id, image_id, margin, frame, exact)",
            "int4 int4 int8 float8 int4 bool",
            (
                (w.encoder_id, row[8], row[2], row[9], 0, True)
                for row in map(item, numbers)
                if row[8] is not None
            ),
        )
        copy(
            driver,
            "explanations (item_id, class_id, encoder_id, faithful, record)",
            "int8 int4 int4 bool json",
            (
                (i, w.known.class_ids[e.class_name], w.encoder_id, e.faithful, records[id(e)])
                for i in flagged
                for e in (flag(i),)
            ),
        )
        copy(
            driver,
            "review_cases (item_id, stage, sampled, severity, margin, class_name, policy_id, "
            "batch_id, image_id, opened_at, client_id)",
            "int8 varchar bool int2 float8 varchar int4 uuid int8 timestamptz int4",
            (
                (
                    i,
                    "first",
                    False,
                    severities[flag(i).class_name],
                    flag(i).margin + float(rng.random()),
                    flag(i).class_name,
                    w.policy_id,
                    batch(i),
                    i,
                    at(i),
                    client((i - 1) // BATCH),
                )
                for i in waiting
            ),
        )
        copy(
            driver,
            "review_outcomes (item_id, image_id, class_name, decision, sampled, at)",
            "int8 int8 varchar varchar bool timestamptz",
            (
                (i, i, flag(i).class_name, "confirmed" if i % 3 else "overturned", False, at(i))
                for i in decided
            ),
        )
        copy(
            driver,
            "labels (image_id, class_name, truth, source, chance, item_id, at)",
            "int8 varchar bool varchar float8 int8 timestamptz",
            ((i, flag(i).class_name, bool(i % 3), "flag", 1.0, i, at(i)) for i in decided),
        )
        copy(
            driver,
            "ledger (at, event, item_id, batch_id, commitment)",
            "timestamptz varchar int8 uuid bytea",
            ((at(i), "judged", i, batch(i), bytes(32)) for i in numbers),
        )
        copy(
            driver,
            "tallies (kind, at, class_name, amount)",
            "varchar timestamptz varchar float8",
            tallied(w, now),
        )
        driver.commit()
        with driver.cursor() as cursor:
            for table in ("images", "items"):
                cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {n})")
        driver.commit()


def tallied(w: World, now: datetime) -> Iterator[tuple[str, datetime, str, float]]:
    """What the service would have counted, put together by the hour for two days, else by day."""
    rng = np.random.default_rng(2)
    hours = [timedelta(hours=h) for h in range(48)] + [timedelta(days=d) for d in range(2, DAYS)]
    for back in hours:
        at = now - back
        yield "judged", at, "", float(rng.integers(5_000, 20_000))
        yield "undetermined", at, "", float(rng.integers(0, 40))
        for c in w.policy.classes:
            for kind in ("flagged", "confirmed", "overturned", "seconds"):
                yield kind, at, c.name, float(rng.integers(1, 500))


@contextmanager
def server(settings: Settings, log: Path) -> Iterator[str]:
    """The web process as an operator starts it; -> its address."""
    given = settings.model_dump(mode="json", exclude_none=True)
    environment = {f"FILTER_SERVICE_{k.upper()}": _text(v) for k, v in given.items()}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks", "serve"],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
    address = f"http://127.0.0.1:{settings.web_port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{address}/ready").status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            raise SystemExit(f"the server does not come up: {log.read_text()[-2000:]}")
        yield address
    finally:
        process.terminate()
        process.wait()


def _text(value: object) -> str:
    return "[]" if value == [] else str(value)


def signed_in(address: str, login: str, password: str) -> httpx.Client:
    client = httpx.Client(base_url=address, follow_redirects=True, timeout=60)
    fields = {"login": login, "password": password, "next": "/queue"}
    answer = client.post("/login", data=fields, headers={"Origin": address})
    assert "/login" not in str(answer.url), answer.text[:2000]
    return client


def measure(
    client: httpx.Client, name: str, paths: Sequence[str], forms: Sequence[dict[str, str]] = ()
) -> float:
    """Print how long a page takes, or the answer to a form; -> the 95th percentile in ms."""

    def ask(number: int) -> httpx.Response:
        if forms:
            return client.post(paths[number], data=forms[number])
        return client.get(paths[number])

    for number in range(3):
        while "refresh" in ask(number).headers:  # the model behind the search is loading
            time.sleep(1)
    took = []
    for number, path in enumerate(paths):
        began = time.perf_counter()
        answer = ask(number)
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == httpx.codes.OK, f"{path}: {answer.status_code}"
    late = float(np.quantile(took, 0.95))
    size = len(answer.content) / 1024
    print(
        f"{name:<28} median {np.median(took):6.1f} ms, 95 % within {late:6.1f} ms, "
        f"the longest {max(took):6.1f} ms ({len(took)} requests, {size:.0f} KB)",
        flush=True,
    )
    return late


def pages(client: httpx.Client, w: World, items: int) -> dict[str, list[str]]:
    """What is asked for, by name."""
    rng = np.random.default_rng(3)
    waiting = [i for i in range(FLAGGED, items + 1, FLAGGED) if i % (FLAGGED * WAITING)]
    classes = [c.name for c in w.policy.classes]
    words = ("a knife", "a red circle", "some fruit", "a clock", "a big animal")
    follow = ["/queue"]
    while len(follow) < ASKED and (
        found := re.search(r'href="(/queue\?[^"]*after=[^"]*)"', client.get(follow[-1]).text)
    ):
        follow.append(found.group(1).replace("&amp;", "&"))
    return {
        "queue": ["/queue"] * ASKED,
        "queue, one class": [f"/queue?class={classes[k % len(classes)]}" for k in range(ASKED)],
        "queue, page after page": follow,
        "item": [f"/items/{rng.choice(waiting)}" for _ in range(ASKED)],
        "search": [f"/search?q={words[k % len(words)]}" for k in range(ASKED)],
        "search, like an item": [f"/search?like={rng.choice(waiting)}" for _ in range(ASKED)],
        "overview": ["/overview"] * ASKED,
        "undetermined": ["/undetermined"] * ASKED,
        "queue, one client": ["/queue?client=default"] * ASKED,
        "queue, a rare client": [f"/queue?client={RARE}"] * ASKED,
        "search, a rare client": [
            f"/search?like={rng.choice(waiting)}&client={RARE}" for _ in range(ASKED)
        ],
        "undetermined, a rare client": [f"/undetermined?client={RARE}"] * ASKED,
    }


def slides(client: httpx.Client, w: World) -> dict[str, list[dict[str, str]]]:
    """Forms of the policy editor, each with a threshold to which somebody has moved a slider."""
    page = client.get(f"/policies/editor/form?from={w.policy.digest}").text
    token = re.search(r'name="csrf_token" value="([^"]*)"', page)
    assert token is not None
    form = PolicyForm.of(w.policy.model_dump(mode="json", exclude_none=True))
    fields = {"base": json.dumps(form.base), "csrf_token": token[1], **form.values}
    for c in form.classes:
        fields |= {c.prefix + name: value for name, value in c.values.items()}
        fields[f"{c.prefix}was"] = c.was
    moved = [
        fields | {"c0-threshold": f"{p:.6g}"} for p in np.linspace(0.05, 0.9995, ASKED).tolist()
    ]
    words = {"c0-prompts": f"{fields['c0-prompts']}\na slingshot"}
    return {
        "policy editor, slider": moved,
        "slider, for other words": [each | words for each in moved],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=240, help="sample images that are judged")
    parser.add_argument("--only", default="", help="pages whose names hold this")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    with temporary_folder() as folder:
        settings = Settings(data_dir=folder / "data", database_url=None, web_port=options.port)
        with services(settings) as found:
            upgrade(found.database_url)
            owner, engine = connect(found.database_url, role=None), connect(found.database_url)
            sessions, storage = sessions_of(engine), Storage(settings.images_at)
            with timed("samples judged"):
                w = world(
                    sessions, storage, load_encoder("bundled"), options.items, options.samples
                )
            with timed(f"{options.items:,} items stored"):
                fill(owner, w)
            if options.only in "search":  # nothing else walks through vectors
                with timed("indexed"), sessions.begin() as session:
                    index_grown(session)
            with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
            password = secrets.token_urlsafe(16)
            accounts.add_person(sessions, "anna", Profile(Role.ADMIN), password, "benchmark")
            located = settings.model_copy(
                update={"database_url": found.database_url, "broker_url": found.broker_url}
            )
            with server(located, folder / "web.log") as address:
                client = signed_in(address, "anna", password)
                late = {
                    k: measure(client, k, v)
                    for k, v in pages(client, w, options.items).items()
                    if options.only in k
                }
                slider = ["/policies/editor/effects?number=0&part=figures"] * ASKED
                late |= {
                    k: measure(client, k, slider, forms)
                    for k, forms in slides(client, w).items()
                    if options.only in k
                }
            slow = [name for name, ms in late.items() if ms > LIMIT]
            print(f"over {LIMIT:.0f} ms: {', '.join(slow) or 'none'}")
            engine.dispose()
            owner.dispose()


if __name__ == "__main__":
    main()
