"""A folder of bad files among good ones, from the command line to the verdicts."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from filter_service.demo import POLICY, SAMPLES
from filter_service.moderation.worker import Worker
from filter_service.settings import Settings
from tests.support.bad_files import make_bad_files
from tests.support.served import ROOT, environment

GOOD = ("000.jpg", "001.jpg", "002.jpg")


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=database_url, broker_url=broker_url, device="cpu"
    )


def command(settings: Settings, *arguments: str | Path) -> str:
    """What the command line prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tasks", *arguments],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_bad_file_is_clear_and_none_stops_the_batch(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    bad = make_bad_files(folder)
    assert len(bad) >= 30
    for name in GOOD:
        (folder / name).write_bytes((SAMPLES / name).read_bytes())

    batch = json.loads(command(settings, "submit", folder, "--policy", POLICY, "--json"))["batch"]
    with closing(Worker(settings)) as worker:
        worker.drain(stop=lambda: False, notify_workers=lambda: None)

    lines = command(settings, "items", "--batch", batch, "--limit", "1000", "--json").splitlines()
    rows = [json.loads(line) for line in lines]
    found = {Path(row["file"]).name: row for row in rows}
    files = {name for name in {*bad, *GOOD} if not (folder / name).is_dir()}
    assert set(found) == {os.fsencode(n).decode(errors="backslashreplace") for n in files}
    assert len(rows) == len(found)

    judged = [found.pop(name) for name in GOOD]
    assert {row["verdict"] for row in judged} <= {"clear", "flagged"}
    assert {row["verdict"] for row in found.values()} == {"undetermined"}
    assert all(row["reason"] and row["probability"] is None for row in found.values())

    status = json.loads(command(settings, "status", batch, "--json"))
    assert status["waiting"] == 0
    assert status["undetermined"] == len(found)
