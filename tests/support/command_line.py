"""Fixtures that run the command line on a real database."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from filter_service.cli import app
from filter_service.demo import SAMPLES
from filter_service.moderation.worker import Worker
from filter_service.settings import Settings
from tasks.__main__ import CeleryQueue
from tests.support.served import environment

LABELS = [json.loads(line) for line in (SAMPLES / "labels.jsonl").read_text().splitlines()]


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=database_url, broker_url=broker_url, device="cpu"
    )


class Line:
    """The command line with these settings, in this process."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = settings
        for name, value in environment(settings).items():
            if name.startswith("FILTER_SERVICE_"):
                monkeypatch.setenv(name, value)

    def __call__(self, *words: str | Path) -> str:
        """What a command prints that succeeds."""
        result = self.result(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def result(self, *words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(w) for w in words], obj=CeleryQueue())

    def rows(self, *words: str | Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*words, "--json").splitlines()]

    def judge(self) -> None:
        """What a worker would do now."""
        with closing(Worker(self.settings)) as worker:
            worker.drain(stop=lambda: False, notify_workers=lambda: None)


@pytest.fixture
def line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(settings, monkeypatch)
