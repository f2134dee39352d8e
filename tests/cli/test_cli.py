"""The command line, command by command, on a real database and broker."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from filter_service.cli import app, run
from filter_service.demo import POLICY, SAMPLES
from filter_service.errors import AnotherEncoder
from filter_service.settings import Settings
from tasks.__main__ import CeleryQueue
from tests.support.command_line import LABELS, Line, line, settings
from tests.support.commands import Command, registered
from tests.support.served import ROOT, environment

__all__ = ["line", "settings"]  # fixtures

Said = Callable[..., tuple[int, str]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """The whole command line in this process: exit code and standard error."""
    monkeypatch.chdir(ROOT)

    def run_with(*words: str | Path, **variables: str) -> tuple[int, str]:
        for name, value in {**environment(Settings(_env_file=None)), **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["filter-service", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            run(CeleryQueue())
        return int(ended.value.code or 0), " ".join(capsys.readouterr().err.split())

    return run_with


COMMANDS = list(registered())


def test_commands_of_groups_are_among_those_that_are_asked() -> None:
    paths = {command.path for command in COMMANDS}
    assert {("submit",), ("policy", "check"), ("audit", "verify")} <= paths


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c.path))
def test_every_command_explains_itself(command: Command) -> None:
    result = CliRunner().invoke(app, [*command.path, "--help"])
    assert result.exit_code == 0
    assert len(result.stdout.split("Usage:")[1].strip().splitlines()) > 3


def test_help_loads_no_model() -> None:
    code = (
        "import sys\nfrom filter_service.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'open_clip', 'sqlalchemy', 'celery'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("submit", "x.jpg", "--policy", "none.yaml"), "none.yaml: cannot be read"),
        (("policy", "check", "none.yaml"), "none.yaml: cannot be read"),
        (("policy", "check", "README.md"), "README.md:"),
        (("classify", "none.jpg", "--labels", "a,b"), "none.jpg"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_in_a_sentence(
    said: Said, words: tuple[str, ...], sentence: str
) -> None:
    code, error = said(*words)
    assert code == 1
    assert error.startswith("Error: ") and sentence in error


def test_a_process_says_it_too_and_nothing_else() -> None:
    command = [sys.executable, "-m", "tasks", "policy", "check", "none.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: none.yaml: cannot be read")
    assert "Traceback" not in done.stderr


def test_a_model_that_nobody_knows_gets_the_nearest_names(said: Said) -> None:
    sample = SAMPLES / "000.jpg"
    code, error = said("classify", sample, "--labels", "a,b", FILTER_SERVICE_MODEL="ViT-B-33")
    assert code == 1 and "ViT-B-32" in error


@pytest.mark.parametrize(
    "words",
    [
        ("status", "no-uuid"),
        ("items", "--verdict", "bad"),
        ("items", "--batch", "7"),
        ("explain", "first"),
        ("submit", "x.jpg"),
    ],
    ids=" ".join,
)
def test_a_word_that_cannot_be_right_is_refused(words: tuple[str, ...], line: Line) -> None:
    assert line.result(*words).exit_code == 2


def test_what_does_not_exist_is_named(line: Line) -> None:
    unknown = str(uuid.uuid4())
    for words in (("status", unknown), ("cancel", unknown), ("retry", unknown)):
        assert unknown in str(line.result(*words).exception)
    assert "no item 12345" in str(line.result("explain", "12345").exception)


def test_a_sound_policy_is_called_so(line: Line) -> None:
    assert "4 classes" in line("policy", "check", POLICY)
    assert json.loads(line("policy", "schema"))["title"] == "filter_service policy"


def test_classify_finds_the_right_label(line: Line) -> None:
    alone = [row for row in LABELS if len(row["kinds"]) == 1][:8]
    kinds = sorted({row["kinds"][0] for row in alone})
    files = [SAMPLES / row["file"] for row in alone]
    found = line.rows("classify", *files, "--labels", ",".join(kinds))
    best = [max(row["labels"], key=row["labels"].__getitem__) for row in found]
    right = [b == row["kinds"][0] for b, row in zip(best, alone, strict=True)]
    assert sum(right) >= 7
    assert all(abs(sum(row["labels"].values()) - 1) < 1e-6 for row in found)


def test_from_files_to_explanations(line: Line) -> None:
    """submit, status, items, explain, search: what a platform does in a day."""
    files = [SAMPLES / row["file"] for row in LABELS[:24]]
    batch = line.rows("submit", *files, "--policy", POLICY, "--label", "mine")[0]["batch"]
    assert line.rows("status", batch)[0]["waiting"] == len(files)
    line.judge()
    status = line.rows("status", batch)[0]
    assert status["waiting"] == 0 and status["total"] == len(files)
    assert "0 waiting" in line("status", batch, "--watch")

    items = line.rows("items", "--batch", batch)
    assert [Path(i["file"]).name for i in items] == [f.name for f in files]
    first = line.rows("items", "--batch", batch, "--limit", "5")
    rest = line.rows("items", "--batch", batch, "--after", str(first[-1]["item"]))
    assert [*first, *rest] == items
    flagged = line.rows("items", "--batch", batch, "--verdict", "flagged")
    assert flagged and len(flagged) == status["flagged"]
    assert "flagged" in line("items", "--batch", batch)

    for item in flagged:
        records = json.loads(line("explain", str(item["item"]), "--json"))
        assert records and all(r["provenance"]["policy"] == "demo" for r in records)
    printed = line("explain", str(flagged[0]["item"]))
    assert "words:" in printed and "removing the marked tenth" in printed

    (nearest,) = line.rows("search", files[3], "--limit", "1")
    assert nearest["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert len(line.rows("search", "a dog", "--limit", "3")) == 3


@pytest.fixture
def flagged(line: Line) -> str:
    """The number of an item that was flagged for gambling."""
    gambling = next(row for row in LABELS if row["classes"] == ["gambling"])
    line("submit", SAMPLES / gambling["file"], "--policy", POLICY)
    line.judge()
    (item,) = line.rows("items", "--verdict", "flagged")
    return str(item["item"])


def test_an_item_is_explained_by_the_policy_that_judged_it(
    line: Line, flagged: str, tmp_path: Path
) -> None:
    (record,) = json.loads(line("explain", flagged, "--json"))
    audit = json.loads(line("explain", flagged, "--method", "last-four", "--json"))
    assert [m["name"] for m in audit["maps"]] == ["last-four"]
    assert audit["record"]["margin"] == pytest.approx(record["margin"], abs=1e-4)
    assert audit["record"]["provenance"] == record["provenance"]
    out = tmp_path / "report.html"
    line("explain", flagged, "--out", out, "--class", "weapons")
    assert "weapons: not flagged" in out.read_text()
    for words in (("--class", "dogs"), ("--prompt", "a dog")):
        assert line.result("explain", flagged, *words).exit_code == 2


def test_another_encoder_explains_nothing_of_this_one(
    line: Line, flagged: str, owner: Engine
) -> None:
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE encoders SET fingerprint = decode(repeat('ab', 32), 'hex')")
        )
    refused = line.result("explain", flagged, "--all")
    assert isinstance(refused.exception, AnotherEncoder)
    assert "abababababab" in str(refused.exception)
    assert "FILTER_SERVICE_MODEL" in str(refused.exception)
    assert "gambling" in line("explain", flagged)  # the record is told all the same


def test_what_was_not_judged_is_not_explained(line: Line, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes((SAMPLES / "000.jpg").read_bytes()[:500])
    line("submit", tmp_path / "broken.jpg", "--policy", POLICY)
    line.judge()
    (item,) = line.rows("items")
    assert "has not been judged" in str(
        line.result("explain", str(item["item"]), "--all").exception
    )


def test_a_cancelled_batch_is_not_judged(line: Line) -> None:
    files = [SAMPLES / row["file"] for row in LABELS[:5]]
    batch = line.rows("submit", *files, "--policy", POLICY)[0]["batch"]
    assert line("cancel", batch).startswith("5 ")
    line.judge()
    assert {row["verdict"] for row in line.rows("items", "--batch", batch)} == {None}


def test_undetermined_items_are_tried_again(line: Line, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes((SAMPLES / "000.jpg").read_bytes()[:500])
    batch = line.rows("submit", tmp_path / "broken.jpg", "--policy", POLICY)[0]["batch"]
    line.judge()
    assert line("retry", batch).startswith("1 ")
    assert line.rows("status", batch)[0]["waiting"] == 1
    line.judge()
    assert line.rows("status", batch)[0]["undetermined"] == 1
