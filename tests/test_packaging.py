"""The wheel: everything that a run needs travels in it, and it works away from the sources."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from filter_service.db import schema

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--quiet", "--disable-pip-version-check", "--wheel-dir", out, ROOT],
        check=True,
        capture_output=True,
    )
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put on the path, far from the sources."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "tasks", *arguments],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_everything_that_a_run_needs_is_inside(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [
        path.relative_to(ROOT).as_posix()
        for folder in ("filter_service", "tasks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    migrations = [
        f"filter_service/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "migrations").rglob("*.py")
    ]
    assert {*data, *migrations} <= names
    assert any(n.endswith("open_clip_model.safetensors") for n in names)
    assert any(n.endswith("photographs.yaml") for n in names)


def test_nothing_else_is_inside(wheel: Path) -> None:
    heads = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {h for h in heads if not h.endswith(".dist-info")} == {"filter_service", "tasks"}


def test_the_wheel_is_small_enough_to_carry(wheel: Path) -> None:
    assert wheel.stat().st_size < 30 * 2**20  # model 13 MB, samples and sprites 11 MB


def test_the_installed_service_migrates_a_database(
    installed: Path, empty_database_url: str, tmp_path: Path
) -> None:
    done = run(
        installed,
        "db",
        "upgrade",
        FILTER_SERVICE_DATABASE_URL=empty_database_url,
        FILTER_SERVICE_BROKER_URL="redis://127.0.0.1:9/0",
        FILTER_SERVICE_DATA_DIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    engine = create_engine(empty_database_url)
    with engine.connect() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    engine.dispose()
    assert version == schema.head()


def test_the_command_that_runs_is_the_installed_one(installed: Path) -> None:
    code = "import filter_service, tasks; print(filter_service.__file__, tasks.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(installed)) for path in done.stdout.split())
