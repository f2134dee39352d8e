"""What the commands of the platform answer to what is wrong, and what they name."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner, Result

from filter_service.cli import app
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch
from filter_service.demo import POLICY, SAMPLES
from filter_service.errors import InvalidPolicy
from filter_service.settings import Settings
from tests.support.command_line import LABELS, Line

ONE = SAMPLES / "000.jpg"
Refused = Callable[..., str]


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=database_url, broker_url=broker_url, device="cpu"
    )


@pytest.fixture
def line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(settings, monkeypatch)


def refused(result: Result) -> str:
    """What is said to whoever gave a bad value."""
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.replace("│", " ").split())


def batches(sessions: Sessions) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(Batch)) or 0


def test_nothing_to_submit_makes_no_batch(line: Line, sessions: Sessions, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nosuch.png"):
        said = refused(line.result("submit", path, "--policy", POLICY))
        assert "Nothing was submitted" in said
    assert batches(sessions) == 0


def test_what_is_missing_beside_a_file_is_named_and_undetermined(
    line: Line, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    gone = tmp_path / "nosuch.png"
    result = line.result("submit", ONE, gone, tmp_path / "empty", "--policy", POLICY, "--json")
    assert result.exit_code == 0
    for path in (gone, tmp_path / "empty"):
        assert "there is no file" in result.stderr and str(path) in result.stderr
    line.judge()
    items = {Path(i["file"]).name: i for i in line.rows("items")}
    assert items[gone.name]["verdict"] == "undetermined" and items[ONE.name]["verdict"]


def test_classify_goes_on_after_a_file_that_cannot_be_read(line: Line, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    result = line.result("classify", broken, ONE, "--labels", "a dog, a cat,a dog", "--json")
    assert result.exit_code == 1 and str(broken) in result.stderr
    (row,) = map(json.loads, result.stdout.splitlines())
    assert row["file"] == str(ONE)
    assert set(row["labels"]) == {"a dog", "a cat"}  # one that is given twice counts once
    assert sum(row["labels"].values()) == pytest.approx(1)


@pytest.mark.parametrize("labels", ["", " , ,"])
def test_no_label_is_refused(labels: str, line: Line) -> None:
    assert "no label" in refused(line.result("classify", ONE, "--labels", labels))


@pytest.mark.parametrize("what", ["nosuch.png", "./pictures/dog", "photo.heic", "", "  "])
def test_what_is_neither_words_nor_a_file_is_not_searched(what: str, line: Line) -> None:
    said = refused(line.result("search", what))
    assert "looks like a file" in said if what.strip() else "nothing to look for" in said


@pytest.mark.parametrize("number", ["0", "-1", "1" + "0" * 22])
def test_a_number_that_no_item_has_is_refused(number: str, line: Line) -> None:
    for words in (("explain", "--", number), ("audit", "prove", "--", number)):
        refused(line.result(*words))
    for option in ("--limit", "--after"):
        if (option, number) != ("--after", "0"):
            refused(line.result("items", f"{option}={number}"))


def moving() -> bytes:
    """Twelve frames that a model sees nearly alike."""
    frames = [PIL.Image.open(ONE).convert("RGB")]
    frames += [frames[0].rotate(n, fillcolor=(255, 255, 255)) for n in range(1, 12)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


def test_a_search_gives_each_image_once_with_its_frame_and_items(
    line: Line, tmp_path: Path
) -> None:
    (tmp_path / "moving.gif").write_bytes(moving())
    files = [SAMPLES / row["file"] for row in LABELS[1:4]]
    line("submit", tmp_path / "moving.gif", *files, "--policy", POLICY)
    line.judge()
    items = {i["item"]: Path(i["file"]).name for i in line.rows("items")}
    hits = line.rows("search", ONE, "--limit", "3")
    assert len(hits) == 3 and len({h["digest"] for h in hits}) == 3
    assert items[hits[0]["items"][0]] == "moving.gif"
    assert [h["similarity"] for h in hits] == sorted((h["similarity"] for h in hits), reverse=True)
    assert {"digest", "frame", "view", "similarity", "items"} == set(hits[0])
    printed = line("search", ONE, "--limit", "1")
    assert f"items {hits[0]['items'][0]}" in printed


def test_items_say_for_which_class_and_a_clear_one_says_why(line: Line) -> None:
    clear = next(row for row in LABELS if not row["classes"])
    gambling = next(row for row in LABELS if row["classes"] == ["gambling"])
    line("submit", *(SAMPLES / r["file"] for r in (clear, gambling)), "--policy", POLICY)
    line.judge()
    first, second = line.rows("items")
    assert (first["verdict"], second["verdict"]) == ("clear", "flagged")
    assert second["class"] == "gambling"
    told = line("explain", str(first["item"]))
    assert "every class is under its threshold" in told
    for name in ("weapons", "tobacco-and-drugs", "alcohol", "gambling"):
        assert f"{name}: margin" in told
    assert f"`filter-service explain {first['item']} --all" in told


def test_an_undetermined_item_says_why_and_what_to_do(line: Line, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    batch = line.rows("submit", tmp_path / "broken.jpg", "--policy", POLICY)[0]["batch"]
    line.judge()
    (item,) = line.rows("items")
    told = line("explain", str(item["item"]))
    assert item["reason"] in told and f"`filter-service retry {batch}`" in told


def test_a_class_that_says_what_is_ordinary_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "name: same\nneutral: [a knife, a dog]\nclasses:\n"
        "  - {name: blades, prompts: [A knife], threshold: 0.5}\n"
    )
    result = CliRunner().invoke(app, ["policy", "check", str(file)])
    assert isinstance(result.exception, InvalidPolicy) and "blades" in str(result.exception)
