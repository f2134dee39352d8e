"""Benchmarks the memory of exporting a million rows, and the time of a transparency report.

    python -m benchmarks.exports                     # 1,000,000 items: some minutes, 2 GB
    python -m benchmarks.exports --items 100000

The rows are made by the database itself. One item in ten is flagged, most of those were reviewed,
and one clear item in a hundred was drawn and reviewed, too. Each export is the command as an
operator gives it, in a process of its own, whose largest resident set is measured; the file's rows
are counted afterwards.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen

from sqlalchemy import Engine, text

from benchmarks.folders import temporary_folder
from filter_service.db.policies import store_policy
from filter_service.db.schema import upgrade
from filter_service.db.session import connect, sessions_of
from filter_service.local import services
from filter_service.policy import ForbiddenClass, Policy
from filter_service.settings import Settings

LIMIT = 200.0  # MB
POLICY = Policy(
    name="benchmark",
    neutral=("a photo",),
    classes=tuple(
        ForbiddenClass(name=name, prompts=(f"a {name}",), threshold=0.5)
        for name in ("gun", "knife", "pill", "dice")
    ),
)
FILL = (
    "SELECT register_encoder(decode(repeat('ab', 32), 'hex'), 'simple', 4, '{}')",
    """INSERT INTO batches (id, policy_id, label, priority, submitted_at, total)
    SELECT gen_random_uuid(), (SELECT id FROM policies), 'batch ' || n, 0,
        now() - interval '30 days' * (1 - n / ceil(:items / 5000.0)), 5000
    FROM generate_series(1, ceil(:items / 5000.0)::int) n""",
    """INSERT INTO images (digest, bytes)
    SELECT sha256(n::text::bytea), 100000 + n FROM generate_series(1, :items) n""",
    """INSERT INTO items (batch_id, image_id, source, verdict, judged_at, encoder_id, class_id,
        margin, probability)
    SELECT b.id, n, 'uploads/2026/' || md5(n::text) || '.jpg',
        (CASE WHEN n % 10 = 0 THEN 'flagged' ELSE 'clear' END)::verdict,
        b.submitted_at + interval '1 second' * (10 + n % 977), (SELECT min(id) FROM encoders),
        (SELECT min(id) FROM policy_classes) + n % 4, n % 100 / 10.0 - 9,
        1 / (1 + exp(9 - n % 100 / 10.0))
    FROM generate_series(1, :items) n
    JOIN (SELECT id, submitted_at, row_number() OVER (ORDER BY submitted_at) AS k FROM batches) b
        ON b.k = (n - 1) / 5000 + 1 ORDER BY n""",
    """INSERT INTO people (login, name, role) VALUES ('anna', '', 'moderator')""",
    """INSERT INTO review_rules (kind, share, created_by, created_at)
    VALUES ('clear_sample', 0.01, 'person anna', '2000-01-01')""",
    """INSERT INTO reviews (item_id, stage, person_id, decision, seconds, revealed, decided_at,
        effective_at, settled_at)
    SELECT id, 'first', 1, CASE WHEN id % 7 = 0 THEN 'overturned' ELSE 'confirmed' END,
        5 + id % 60, true, judged_at + interval '1 hour', now(), now()
    FROM items WHERE (verdict = 'flagged' AND id % 50 <> 0) OR (verdict = 'clear' AND id % 101 = 0)
    """,
    """INSERT INTO review_outcomes (item_id, image_id, class_name, decision, sampled, review_id, at)
    SELECT r.item_id, i.image_id, c.name, r.decision, i.verdict = 'clear', r.id, r.decided_at
    FROM reviews r JOIN items i ON i.id = r.item_id JOIN policy_classes c ON c.id = i.class_id""",
    """INSERT INTO appeals (id, item_id, statement, opened_by, opened_at, closed_at, upheld)
    SELECT gen_random_uuid(), item_id, 'No.', 'key shop', at + interval '1 day',
        at + interval '2 days', item_id % 3 = 0
    FROM review_outcomes WHERE NOT sampled AND item_id % 20 = 0""",
)


def fill(owner: Engine, items: int) -> None:
    """Everything a row has, for so many items."""
    with sessions_of(owner).begin() as session:
        store_policy(session, POLICY)
    with owner.begin() as connection:
        for statement in FILL:
            connection.execute(text(statement), {"items": items})
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def measured(settings: Settings, *command: str) -> tuple[float, float]:
    """Run a command of ours; -> seconds, and MB that it had in memory at most."""
    addresses = {
        "FILTER_SERVICE_DATA_DIR": str(settings.data_dir),
        "FILTER_SERVICE_DATABASE_URL": str(settings.database_url or ""),
        "FILTER_SERVICE_BROKER_URL": str(settings.broker_url or ""),
    }
    began = time.perf_counter()
    process = Popen(
        [sys.executable, "-m", "tasks", *command], env={**os.environ, **addresses}, stdout=DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{' '.join(command)} ended with {status}"
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def exported(settings: Settings, folder: Path, form: str) -> float:
    """Print how one format does; -> MB."""
    file = folder / f"items.{form}"
    seconds, most = measured(settings, "export", "--format", form, "--out", str(file))
    rows = _rows(file)
    print(
        f"{form:<8} {rows:,} rows in {seconds:5.1f} s, {rows / seconds:6,.0f} a second, "
        f"{file.stat().st_size / 2**20:5.0f} MB on disk, {most:4.0f} MB in memory at most",
        flush=True,
    )
    file.unlink()
    return most


def _rows(file: Path) -> int:
    if file.suffix == ".parquet":
        from pyarrow import parquet  # the process that starts the others stays small

        return int(parquet.ParquetFile(file).metadata.num_rows)
    with file.open("rb") as lines:
        return sum(1 for _ in lines) - (file.suffix == ".csv")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    with temporary_folder() as folder:
        settings = Settings(data_dir=folder / "data", database_url=None, broker_url=None)
        with services(settings) as found:
            upgrade(found.database_url)
            owner = connect(found.database_url, role=None)
            began = time.perf_counter()
            fill(owner, options.items)
            owner.dispose()
            print(f"{options.items:,} items stored in {time.perf_counter() - began:.0f} s")
            located = settings.model_copy(
                update={"database_url": found.database_url, "broker_url": found.broker_url}
            )
            most = [exported(located, folder, f) for f in ("jsonl", "csv", "parquet")]
            over = [f"{m:.0f} MB" for m in most if m > LIMIT]
            print(f"over {LIMIT:.0f} MB: {', '.join(over) or 'none'}")
            seconds, most_figures = measured(located, "figures", "--from", "2020-01-01")
            print(f"figures of all of it in {seconds:.1f} s, {most_figures:.0f} MB in memory")


if __name__ == "__main__":
    main()
