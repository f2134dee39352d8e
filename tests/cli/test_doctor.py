"""The doctor names what is wrong, part by part, and never falls ill itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from filter_service.cli import app
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.rollout.drift_alarms import alarms
from filter_service.rollout.drift_watch import watch
from filter_service.settings import Settings
from tasks.__main__ import CeleryQueue
from tests.support.judged_stream import judge_stream
from tests.support.margin_worlds import stream
from tests.support.review_cases import POLICY
from tests.support.served import ROOT, environment

Findings = dict[str, tuple[str, str]]  # of every part its state and what is said of it
Examined = Callable[..., tuple[int, Findings]]


def findings(printed: str) -> Findings:
    return {f["part"]: (f["state"], f["said"]) for f in json.loads(printed)}


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Examined:
    """What the doctor finds of some settings, in this process; with its exit code."""

    def examine(settings: Settings, **variables: str) -> tuple[int, Findings]:
        for name, value in {**environment(settings), **variables}.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, ["doctor", "--json"], obj=CeleryQueue())
        return result.exit_code, findings(result.stdout)

    return examine


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=database_url, broker_url=broker_url, device="cpu"
    )


def test_a_sound_set_up_is_called_so(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "doctor", "--json"],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    found = findings(done.stdout)
    states = {part: state for part, (state, _) in found.items()}
    assert states.pop("broker") == "doubtful"  # no worker runs
    assert set(states.values()) == {"ok"}
    parts = {"packages", "settings", "data folder", "images", "model", "database", "drift"}
    assert set(states) == parts
    assert "pgvector" in found["database"][1]
    assert "float32" in found["model"][1] or "bfloat16" in found["model"][1]


def test_every_fault_is_named_with_its_mending(
    examined: Examined, settings: Settings, empty_database_url: str
) -> None:
    broken = settings.model_copy(
        update={
            "database_url": empty_database_url,
            "broker_url": "redis://127.0.0.1:9/0",
            "model": "ViT-B-33",
            "storage_url": "nowhere://images",
        }
    )
    code, found = examined(broken)
    assert code == 1
    assert found["database"] == ("wrong", found["database"][1])
    assert "filter-service db upgrade" in found["database"][1]
    assert found["broker"][0] == "wrong" and "FILTER_SERVICE_BROKER_URL" in found["broker"][1]
    assert found["model"][0] == "wrong" and "ViT-B-32" in found["model"][1]
    assert found["images"][0] == "wrong" and "FILTER_SERVICE_STORAGE_URL" in found["images"][1]
    assert found["packages"][0] == "ok"


def test_a_database_that_does_not_answer_is_wrong(examined: Examined, settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://127.0.0.1:9/none"})
    code, found = examined(away)
    assert code == 1 and found["database"][0] == "wrong"


def test_settings_that_cannot_be_read_end_the_examination(
    examined: Examined, settings: Settings
) -> None:
    code, found = examined(settings, FILTER_SERVICE_BATCH_SIZE="many")
    assert code == 1
    assert found["settings"][0] == "wrong" and "FILTER_SERVICE_BATCH_SIZE" in found["settings"][1]
    assert "database" not in found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_that_is_closed_is_wrong(
    examined: Examined, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    closed = settings.model_copy(update={"data_dir": tmp_path / "closed" / "data"})
    assert examined(closed)[1]["data folder"][0] == "wrong"


def test_a_class_that_has_drifted_is_doubtful(
    examined: Examined, settings: Settings, sessions: Sessions
) -> None:
    rng = np.random.default_rng(7)
    for margins in (stream(rng, 1_500)[0], stream(rng, 1_000)[0] + 1.5):
        with sessions.begin() as session:
            of = store_policy(session, POLICY), "gun"
            encoder = register_encoder(session, "ab" * 32, "simple", 4, {})
            judge_stream(session, of, encoder, margins.tolist())
        watch(sessions)
    _, found = examined(settings)
    (alarm,) = alarms(sessions)
    state, said = found["drift"]
    assert state == "doubtful" and alarm.sentence in said and "page Accuracy" in said
