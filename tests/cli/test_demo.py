"""What the demo shows of its flags: the table in any terminal, the cards, the page of them."""

import json
import re
from contextlib import closing
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from rich.console import Console

from filter_service.cli.demo import Flag, _draw, _flags, _right, _table
from filter_service.db.session import Sessions
from filter_service.demo import POLICY, SAMPLES
from filter_service.images import digest
from filter_service.intake import item_lists, submissions
from filter_service.intake.submissions import Submission
from filter_service.moderation.worker import Worker
from filter_service.policy import read_policy
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.verdicts.explanation import CounterfactualText, Explanation
from tests.support.explanation_records import SQUASH, record
from tests.support.proofs import FAILED

FILES = sorted(SAMPLES.glob("*.jpg"))[:10]
WORDING = CounterfactualText(text="a [red] toy", replaces="a gun", degrees=20.0, margin=-1.0)


def a_flag(source: str = "7.jpg", image: str = "0" * 64, of: Explanation | None = None) -> Flag:
    return Flag(source, image, of or record(), SQUASH)


def printed(flags: list[Flag], width: int) -> str:
    console = Console(width=width, file=StringIO())
    with console.capture() as captured:
        console.print(_table(flags, {"0" * 64: "neighbour.jpg"}))
    return captured.get()


def kept(storage: Storage, *frames: PIL.Image.Image) -> str:
    """The digest of a stored picture, animated if there are several frames."""
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    storage.put(digest(file.getvalue()), file.getvalue())
    return digest(file.getvalue())


def plain(colour: str) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (40, 40), colour)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_shows_everything_in_any_terminal(width: int) -> None:
    long = record(class_name="tobacco-and-drugs", texts=(WORDING,))
    shown = printed([a_flag(), a_flag("018.jpg", of=long)], width)
    assert max(map(len, shown.splitlines())) <= width
    for fact in ("7.jpg", "weapons", "0.990", "0.900", "gun +8.0", "neighbour.jpg, 30°"):
        assert fact in shown
    assert "7-weapons.webp" in shown and "018-tobacco-and-drugs.webp" in shown
    assert "or worded" in shown and "[red]" in shown


def test_the_table_says_when_no_image_gets_the_other_answer() -> None:
    lonely = record(images=(), no_images="No stored image gets the other answer.")
    assert "No stored image gets the other answer." in printed([a_flag(of=lonely)], 140)


def test_the_table_says_when_a_map_failed() -> None:
    failed = record(proof=FAILED)
    assert "map failed" in printed([a_flag(of=failed)], 80)
    assert "map failed" not in printed([a_flag()], 80)


def test_a_folder_of_cards_with_a_page(storage: Storage, tmp_path: Path) -> None:
    image, folder = kept(storage, plain("red")), tmp_path / "cards"
    far = record(images=(record().images[0].model_copy(update={"digest": image}),))
    flags = [
        a_flag("a&b.gif", image, far.model_copy(update={"margin": 3.0})),
        a_flag("surer.gif", image, far.model_copy(update={"margin": 4.0, "images": ()})),
    ]
    _draw(storage, [a_flag("earlier.gif", image, far)], folder)
    _draw(storage, flags, folder)
    assert {f.name for f in folder.iterdir()} == {
        "a&b-weapons.webp",
        "surer-weapons.webp",
        "index.html",
    }
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'src="([^"]*)"', page) == ["surer-weapons.webp", "a&amp;b-weapons.webp"]
    assert "//" not in page  # nothing is fetched from elsewhere
    with PIL.Image.open(folder / "surer-weapons.webp") as drawn:
        assert drawn.width > 1000


def test_the_flagged_frame_is_drawn(storage: Storage, tmp_path: Path) -> None:
    image = kept(storage, plain("red"), plain("lime"))
    second = record(frame=1, images=())
    _draw(storage, [a_flag("moving.gif", image, second)], tmp_path)
    with PIL.Image.open(tmp_path / "moving-weapons.webp") as drawn:
        red, green, _ = np.asarray(drawn.convert("RGB"))[150:400, 60:300].mean(axis=(0, 1))
    assert green > 200 and red < 60


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url, device="cpu")


def test_what_a_worker_flagged_is_shown(
    settings: Settings, sessions: Sessions, tmp_path: Path
) -> None:
    storage, policy = Storage(settings.images_at), read_policy(POLICY)
    sent = [Submission(f.name, f.read_bytes()) for f in FILES]
    batch = submissions.accept(sessions, storage, lambda: None, sent, policy)
    with closing(Worker(settings)) as worker:
        worker.drain(stop=lambda: False, notify_workers=lambda: None)
    found, flags = item_lists.items(sessions, batch), _flags(sessions, batch)
    flagged = {item.source for item in found if item.verdict == Verdict.FLAGGED}
    assert flagged and {flag.source for flag in flags} == flagged
    _draw(storage, flags, tmp_path / "cards")
    assert {f.picture for f in flags} == {p.name for p in (tmp_path / "cards").glob("*.webp")}
    labels = map(json.loads, (SAMPLES / "labels.jsonl").read_text().splitlines())
    guilty = {row["file"] for row in labels if row["classes"]}
    assert _right(found) == sum((i.source in guilty) == (i.source in flagged) for i in found)
