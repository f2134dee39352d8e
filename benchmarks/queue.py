"""Benchmarks the queue: accepting, claiming and recording with a model that does nothing.

    python -m benchmarks.queue                                    # core-milliseconds an item
    python -m benchmarks.queue --before ../checkout-of-another-commit --kept 1000000
    python -m benchmarks.queue --held 200000                      # beside an open transaction
    python -m benchmarks.queue --profile

Each build works in a process and on a database of its own, and the builds take turns. What counts
is core time: user and system time of the process and of all of Postgres, per item, which other work
on the machine changes little. Of the rounds the median is given.

With `--kept` so many judged items lie in the database already. With `--held` a transaction that
reads is open while so many more items pass, so that nothing that they leave behind is cleaned up.
"""

import argparse
import contextlib
import cProfile
import json
import os
import pstats
import resource
import statistics
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import Engine, event, text

from benchmarks.folders import temporary_folder
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.images.views import Extent, View
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.local import services
from filter_service.local.data_folder import DataFolder
from filter_service.moderation import WorkerContext, drain
from filter_service.policy import ForbiddenClass, Policy
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Outcome, Verdict, score

DIM = 512
CLASSES = 3
POLICY = Policy(
    name="benchmark",
    neutral=("a wall",),
    classes=tuple(
        ForbiddenClass(name=f"class-{c}", prompts=("a thing",), threshold=0.5)
        for c in range(CLASSES)
    ),
)

_KEPT = """
    INSERT INTO batches (id, policy_id, label, priority, total)
        VALUES (:batch, :policy, 'kept', 0, :n);
    INSERT INTO images (digest, bytes, width, height, shown_time)
        SELECT sha256(i::text::bytea), 1000, 500, 375, 1 FROM generate_series(1, :n) AS i;
    INSERT INTO items (batch_id, image_id, source, verdict, judged_at, encoder_id, class_id,
                       margin, probability)
        SELECT :batch, id, id::text, 'clear', now(), :encoder, :class_id, -4, .02 FROM images;
    INSERT INTO embeddings (encoder_id, image_id, frame, view, vector)
        SELECT :encoder, id, 0, '', :vector ::halfvec FROM images;
    INSERT INTO scores (encoder_id, class_id, image_id, margin, frame, view, exact)
        SELECT :encoder, c, id, -4 - random(), 0, '', true
        FROM images, generate_series(:class_id, :class_id + :classes - 1) AS c;
    INSERT INTO ledger (event, item_id, batch_id, commitment)
        SELECT e, id, :batch, sha256((e || id)::bytea)
        FROM items, unnest('{submitted,judged}'::varchar[]) AS e;
    INSERT INTO ledger_payloads (entry_id, salt, actor, details)
        SELECT id, commitment, 'worker', json_build_object('verdict', 'clear', 'margin', -4)
        FROM ledger WHERE batch_id = :batch
"""


class NullClassifier:
    """Looks at nothing and finds everything clear, with all that a model has to say of it."""

    def __init__(self) -> None:
        noise = np.random.default_rng(0).normal(size=(256, 1, DIM)).astype(np.float32)
        self.vectors = noise / np.linalg.norm(noise, axis=-1, keepdims=True)

    def prepare(self, digest: str, *_: object) -> str:
        return digest

    def moderate(self, subjects: Sequence[str], policy: Policy) -> list[Outcome]:
        margins = np.full((1, CLASSES), -4.0)
        scores = score(margins, [View()], [True], policy)
        return [
            Outcome(
                digest=digest,
                verdict=Verdict.CLEAR,
                scores=scores,
                vectors=self.vectors[int(digest[:2], 16)],
                views=(View(),),
                exact=(True,),
                pdq=f"{int(digest, 16):0256b}",
                extent=Extent(500, 375, 1.0),
            )
            for digest in subjects
        ]


def files(number: int) -> list[Submission]:
    """Small files, no two alike."""
    return [Submission(str(i), uuid.uuid4().bytes * 64) for i in range(number)]


@dataclass
class Build:
    """The build that this process imports, at work on a database of its own."""

    engine: Engine
    sessions: Sessions
    desk: WorkerContext[str]
    postgres: psutil.Process

    def round(self, items: int) -> dict[str, float]:
        """Core-milliseconds an item of accepting, and of claiming and recording."""
        sent = files(items)
        accepted = self.cost(lambda: self.accept(sent), items)
        recorded = self.cost(lambda: drain(self.desk), items)
        return {"accept": accepted[0], "claim and record": recorded[0]} | {
            "of Postgres": accepted[1] + recorded[1]
        }

    def accept(self, sent: Sequence[Submission]) -> None:
        submissions.accept(self.sessions, self.desk.storage, lambda: None, sent, POLICY)

    def cost(self, do: Callable[[], object], items: int) -> tuple[float, float]:
        """Core-milliseconds an item of this process and Postgres together, and of Postgres."""
        own, other = _own_seconds(), _seconds(self.postgres)
        do()
        own, other = _own_seconds() - own, _seconds(self.postgres) - other
        return (own + other) * 1000 / items, other * 1000 / items

    def keep(self, items: int) -> None:
        """Let so many judged items be there."""
        vector = "[" + ",".join(f"{x:.4f}" for x in NullClassifier().vectors[0, 0]) + "]"
        owner = connect(self.engine.url.render_as_string(hide_password=False), role=None)
        with sessions_of(owner).begin() as session:
            values: dict[str, Any] = {"policy": store_policy(session, POLICY), "n": items}
            class_id = session.scalar(text("SELECT min(id) FROM policy_classes"))
            values |= {"batch": uuid.uuid4(), "encoder": self.desk.encoder_id, "vector": vector}
            values |= {"class_id": class_id, "classes": CLASSES}
            for statement in _KEPT.split(";"):
                names = {n: v for n, v in values.items() if f":{n}" in statement}
                session.execute(text(statement), names)
        with owner.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        owner.dispose()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A transaction that began to read, and does not end."""
        with self.engine.connect() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ")
            connection.execute(text("SELECT count(*) FROM queue"))
            yield

    def profile(self, items: int) -> None:
        """Print where the time goes, by function and by statement."""
        statements = _Statements()
        statements.listen(self.engine)
        sent = files(items)
        for what, do in (
            ("accept", lambda: self.accept(sent)),
            ("claim and record", lambda: drain(self.desk)),
        ):
            with cProfile.Profile(time.thread_time) as functions:
                do()
            print(f"\n{what}: statements, by core time of Postgres", file=sys.stderr)
            statements.print(items)
            pstats.Stats(functions, stream=sys.stderr).sort_stats("tottime").print_stats(40)


@dataclass
class _Statements:
    """How often a statement ran, and for how long Postgres worked on it."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def listen(self, engine: Engine) -> None:
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)

    def print(self, items: int) -> None:
        for words, took in sorted(self.seconds.items(), key=lambda s: -sum(s[1])):
            each = sum(took) * 1000 / items
            print(f"{len(took):6} times {each:7.3f} ms an item  {words}", file=sys.stderr)
        self.seconds.clear()

    def _before(self, connection: Any, *_: object) -> None:  # noqa: ANN401
        connection.info["began"] = self._seconds(connection)

    def _after(self, connection: Any, _: object, statement: str, *rest: object) -> None:  # noqa: ANN401
        words = " ".join(statement.split())[:100]
        self.seconds[words].append(self._seconds(connection) - connection.info["began"])

    def _seconds(self, connection: Any) -> float:  # noqa: ANN401
        backend = connection.connection.driver_connection.info.backend_pid
        return int(Path(f"/proc/{backend}/schedstat").read_text().split()[0]) / 1e9


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _seconds(server: psutil.Process) -> float:
    """Of a server and all its processes, also of those that have ended."""
    times = server.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return total


@contextlib.contextmanager
def build() -> Iterator[Build]:
    with temporary_folder() as folder:
        given = Settings(data_dir=folder, database_url=None, broker_url="redis://unused")
        with services(given) as found:
            upgrade(found.database_url)
            engine = connect(found.database_url)
            sessions = sessions_of(engine)
            with sessions.begin() as session:
                encoder = register_encoder(session, "ab" * 32, "null", DIM, {})
            storage = Storage((folder / "images").as_uri())
            desk = WorkerContext(sessions, storage, NullClassifier(), encoder)
            pid = DataFolder.of(given).home / "postgres" / "postmaster.pid"
            server = psutil.Process(int(pid.read_text().splitlines()[0]))
            yield Build(engine, sessions, desk, server)
            engine.dispose()


def serve() -> None:
    """Answer a parent process that wants rounds of this build."""
    with build() as here, contextlib.ExitStack() as stack:
        for line in sys.stdin:
            what, number = line.split()
            if what == "hold":
                stack.enter_context(here.held())
            elif what == "keep":
                here.keep(int(number))
            elif what == "profile":
                here.profile(int(number))
            print(json.dumps(here.round(int(number)) if what == "round" else {}), flush=True)


@dataclass(frozen=True)
class Side:
    """A process that serves one build."""

    process: "subprocess.Popen[str]"

    def ask(self, what: str, number: int = 0) -> dict[str, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{what} {number}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())  # type: ignore[no-any-return]

    def rounds(self, items: int, number: int) -> Iterator[dict[str, float]]:
        for _ in range(number):
            yield self.ask("round", items)


@contextlib.contextmanager
def side(checkout: Path) -> Iterator[Side]:
    """This script, in a process that imports everything else from a checkout."""
    command = [sys.executable, "-P", __file__, "--serve"]  # -P: its folder has a `queue`, too
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=checkout, env=environment, **pipes) as process:
        yield Side(process)
        assert process.stdin
        process.stdin.close()


def compared(sides: Sequence[Side], items: int, rounds: int) -> list[dict[str, float]]:
    """Medians of each build, which take turns."""
    found = [list(turn) for turn in zip(*(s.rounds(items, rounds) for s in sides), strict=True)]
    return [_medians([turn[i] for turn in found]) for i in range(len(sides))]


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def told(what: str, costs: Sequence[dict[str, float]]) -> None:
    """Print a line for each part, and how many times as quick this build is."""
    print(f"{what}, core-milliseconds an item")
    sums = [c | {"all": c["accept"] + c["claim and record"]} for c in costs]
    for part in sums[0]:
        numbers = "".join(f"{c[part]:8.3f}" for c in sums)
        ratio = f"   {sums[0][part] / sums[-1][part]:.2f} times" if len(sums) > 1 else ""
        print(f"  {part:18}{numbers}{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="checkout of a build to compare with")
    parser.add_argument("--items", type=int, default=2_000, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kept", type=int, default=0, help="judged items that are there already")
    parser.add_argument("--held", type=int, default=0, help="items beside an open transaction")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve()
        return
    checkouts = [asked.before.resolve()] if asked.before else []
    checkouts.append(Path(__file__).parents[1])
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(side(checkout)) for checkout in checkouts]
        for each in sides:
            each.ask("round", asked.items)  # warm
            if asked.kept:
                each.ask("keep", asked.kept)
            if asked.profile:
                each.ask("profile", asked.items)
        told(f"{asked.kept:,} kept", compared(sides, asked.items, asked.rounds))
        if asked.held:
            for each in sides:
                each.ask("hold")
                each.ask("round", asked.held)
            told(f"transaction held for {asked.held:,}", compared(sides, asked.items, asked.rounds))


if __name__ == "__main__":
    main()
