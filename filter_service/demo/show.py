"""The demo: the sample images through the whole service, and a table of what was flagged."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from filter_service import submissions
from filter_service.cli.place import Queue, Workplace, ended, workplace
from filter_service.cli.queueing import watched
from filter_service.db.tables import Item, StoredExplanation
from filter_service.explain.record import Explanation
from filter_service.images import read
from filter_service.policy import read_policy
from filter_service.submissions import Submission
from filter_service.verdicts import Verdict

if TYPE_CHECKING:
    import uuid

HERE = Path(__file__).parent


def show(queue: Queue) -> None:
    """Submit, wait with a progress bar, print; what was started is stopped."""
    files = sorted((HERE / "samples").glob("*.jpg"))
    policy = read_policy(HERE / "policy.yaml")
    with workplace(queue) as place:
        log = place.settings.data_dir / "demo.log"
        processes = [queue.worker(place.settings, log), queue.schedule(place.settings, log)]
        with ended(processes):
            sent = (Submission(f.name, read(f)) for f in files)
            batch = submissions.accept(
                place.sessions, place.storage, place.knock, sent, policy, label="demo"
            )
            watched(place, batch)
        _print(place, batch)


def _print(place: Workplace, batch: "uuid.UUID") -> None:
    found = submissions.items(place.sessions, batch, limit=1000)
    names = _file_names(place)
    table = Table("file", "class", "probability", "threshold", "top words", "nearest clear image")
    with place.sessions.begin() as session:
        query = select(StoredExplanation.item_id, StoredExplanation.record)
        query = query.join(Item).where(Item.batch_id == batch).order_by(Item.id)
        source = {item.id: item.source for item in found}
        for item_id, record in session.execute(query):
            table.add_row(source[item_id], *_cells(Explanation.model_validate(record), names))
    console = Console()
    console.print(table)
    right = _right(found)
    console.print(f"{right} of {len(found)} verdicts right ({right / len(found):.1%})")


def _cells(record: Explanation, names: dict[str, str]) -> tuple[str, ...]:
    words = sorted(
        (w for p in record.words for w in p.words), key=lambda w: w.shapley, reverse=True
    )
    near = record.images[0] if record.images else None
    nearest = f"{names.get(near.digest, near.digest[:8])}, {near.degrees:.0f}°" if near else ""
    return (
        record.class_name,
        f"{record.probability:.3f}",
        f"{record.threshold:.3f}",
        ", ".join(f"{w.word} {w.shapley:+.1f}" for w in words[:3]),
        nearest or record.no_images or "",
    )


def _file_names(place: Workplace) -> dict[str, str]:
    """Digest to file name of every sample."""
    from filter_service.images import digest

    return {digest(f.read_bytes()): f.name for f in (HERE / "samples").glob("*.jpg")}


def _right(found: list[Item]) -> int:
    """How many items got the verdict that their labels say."""
    lines = (HERE / "samples" / "labels.jsonl").read_text().splitlines()
    labels = {row["file"]: row for row in map(json.loads, lines)}
    expected = {
        name: Verdict.FLAGGED if row["classes"] else Verdict.CLEAR for name, row in labels.items()
    }
    return sum(item.verdict == expected[item.source] for item in found)
