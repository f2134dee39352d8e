"""The demo command: judges the sample images, and shows every flag as a row and a picture."""

import html
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import PIL.Image
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from sqlalchemy import select

from filter_service.cli.batches import watched
from filter_service.cli.context import Queue, lasting
from filter_service.cli.supervision import supervised
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, StoredEncoder, StoredExplanation, StoredImage
from filter_service.demo import POLICY, SAMPLES
from filter_service.images import decode, digest, read
from filter_service.images.views import View
from filter_service.intake import item_lists, submissions
from filter_service.intake.submissions import Submission
from filter_service.policy import read_policy
from filter_service.rendering.summary_card import card
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.verdicts.explanation import Explanation

OUTPUT = Path("demo-output")  # in the working folder; each run replaces its pictures
WORDS = 3  # shown of a prompt
LOUD = 0.05  # logits: words that say less are left out


@dataclass(frozen=True, slots=True)
class Flag:
    """One flagged sample and class, as stored."""

    source: str
    digest: str
    record: Explanation
    preprocessing: Mapping[str, object]

    @property
    def picture(self) -> str:
        """The file name of its card."""
        return f"{Path(self.source).stem}-{self.record.class_name}.webp"


def demo(context: typer.Context) -> None:
    """Judge the bundled sample images with a real worker, and show what was flagged."""
    queue: Queue = context.obj
    files = sorted(SAMPLES.glob("*.jpg"))
    policy = read_policy(POLICY)
    console = Console()
    with lasting(queue) as place:
        log = place.settings.data_dir / "demo.log"
        starts = {
            "worker": partial(queue.worker, place.settings, log),
            "schedule": partial(queue.schedule, place.settings, log),
        }
        with supervised(starts, log) as parts:
            sent = (Submission(f.name, read(f)) for f in files)
            batch = submissions.accept(
                place.sessions, place.storage, place.notify_workers, sent, policy, label="demo"
            )
            watched(place, batch, parts.look)
        flags = _flags(place.sessions, batch)
        names = {digest(f.read_bytes()): f.name for f in files}
        console.print(_table(flags, names))
        _draw(place.storage, flags, OUTPUT)
        found = item_lists.items(place.sessions, batch, limit=len(files))
    right = _right(found)
    console.print(f"{right} of {len(found)} verdicts right ({right / len(found):.1%})")
    console.print(f"Pictures of all {len(flags)} flags: {OUTPUT / 'index.html'}")


def _flags(sessions: Sessions, batch: uuid.UUID) -> list[Flag]:
    """Every explanation of a batch, the files in their order."""
    query = (
        select(Item.source, StoredImage.digest, StoredExplanation.record, StoredEncoder.details)
        .join(Item, StoredExplanation.item_id == Item.id)
        .join(StoredImage, Item.image_id == StoredImage.id)
        .join(StoredEncoder, StoredExplanation.encoder_id == StoredEncoder.id)
        .where(Item.batch_id == batch)
        .order_by(Item.id, StoredExplanation.class_id)
    )
    with sessions.begin() as session:
        return [
            Flag(source, digest, Explanation.model_validate(record), details["preprocessing"])
            for source, digest, record, details in session.execute(query)
        ]


def _table(flags: list[Flag], names: dict[str, str]) -> Table:
    """One row per flag, readable in 80 columns; digests are shown by the names of the samples."""
    table = Table(box=SIMPLE_HEAD, leading=1, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("file, class, picture", no_wrap=True)
    table.add_column("probability,\nthreshold", no_wrap=True)
    table.add_column("words,\nin logits", no_wrap=True)
    table.add_column("nearest\nwith the other answer")
    for flag in flags:
        r = flag.record
        flagged = Text.assemble((flag.source, "bold"), "\n", r.class_name, "\n", flag.picture)
        if not r.faithful:
            flagged.append("\n(its map failed the test)")
        table.add_row(
            flagged,
            Text(f"{r.probability:.3f}\n{r.threshold:.3f}"),
            Text("\n".join(_words(r))),
            Text("\n".join(_nearest(r, names))),  # not markup: wordings may hold brackets
        )
    return table


def _words(record: Explanation) -> Iterator[str]:
    """The words that say the most, of the prompt that carries the most."""
    words = sorted(record.words[0].words, key=lambda w: -w.shapley) if record.words else []
    for word in (w for w in words[:WORDS] if abs(w.shapley) >= LOUD):
        yield f"{word.word} {word.shapley:+.1f}"


def _nearest(record: Explanation, names: dict[str, str]) -> Iterator[str]:
    """The nearest image and the nearest wording, or the sentence that says there is none."""
    for image in record.images[:1]:
        yield f"{names.get(image.digest, image.digest[:8])}, {image.degrees:.0f}°"
    if record.no_images:
        yield record.no_images
    for text in record.texts[:1]:
        yield f"or worded “{text.text}”"


def _draw(storage: Storage, flags: list[Flag], folder: Path) -> None:
    """A card per flag, and a page with all of them; cards of an earlier run are removed."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.webp"):
        old.unlink()
    for flag in track(flags, "drawn "):
        near = flag.record.images[0].digest if flag.record.images else None
        drawn = card(
            _frame(storage, flag.digest, flag.record.seen),
            flag.record,
            flag.preprocessing,
            None if near is None else _frame(storage, near),
        )
        drawn.save(folder / flag.picture, quality=92)
    (folder / "index.html").write_text(_page(flags), encoding="utf-8")


def _frame(storage: Storage, digest: str, view: View | None = None) -> PIL.Image.Image:
    """A stored image's frame, the first one unless told."""
    image = decode(storage.get(digest))
    return (image.frames[0] if view is None else image.frame(view.frame, view.reading)).picture


def _page(flags: list[Flag]) -> str:
    surest = sorted(flags, key=lambda f: -f.record.margin)
    rows = (
        f"<figure><figcaption>{html.escape(f.source)}</figcaption>"
        f'<img loading="lazy" src="{html.escape(f.picture)}" alt="{html.escape(f.source)}, '
        f'flagged for {html.escape(f.record.class_name)}"></figure>'
        for f in surest
    )
    style = (
        "body{font:16px system-ui,sans-serif;margin:2rem auto;max-width:1180px;color:#1c1e22}"
        "figure{margin:2rem 0}img{width:100%;border:1px solid #ddd;border-radius:6px}"
        "figcaption{color:#666;margin-bottom:.4rem}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Flagged samples</title>'
        f"<style>{style}</style><h1>{len(flags)} flags, the surest first</h1>{''.join(rows)}</html>"
    )


def _right(found: list[Item]) -> int:
    """How many items got the verdict that their labels say."""
    lines = (SAMPLES / "labels.jsonl").read_text().splitlines()
    labels = {row["file"]: row for row in map(json.loads, lines)}
    expected = {
        name: Verdict.FLAGGED if row["classes"] else Verdict.CLEAR for name, row in labels.items()
    }
    return sum(item.verdict == expected[item.source] for item in found)
