"""What import-linter cannot see of the rooms: who reads the environment, what starts light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from filter_service.cli.command_table import COMMANDS

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for d in ("filter_service", "tasks") for p in (ROOT / d).rglob("*.py"))
NAMELESS = {"utils", "helpers", "common", "manager", "base", "models"}
LIGHT = (
    "filter_service",
    "filter_service.cli",
    "filter_service.intake.submissions",
    "filter_service.ledger",
    "filter_service.db.tables",
    "filter_service.db.vectors",
    "filter_service.db.query_encoder",
    "filter_service.web.app",
    "tasks.work",
)
LATE = (  # what may be imported inside a body, so that a process can do without it
    "celery",
    "kombu",
    "tasks.celery",
    "sklearn",  # pyarrow, as the next
    "filter_service.audit.exports.parquet",
    "filter_service.audit.replay.replay",  # torch, as all that follow
    "filter_service.audit.replay.replay_output",
    "filter_service.encoder",
    "filter_service.explain.relevance",
    "filter_service.explain.study",
    "filter_service.pipeline",
)


def room(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removeprefix("filter_service/")


PRODUCT = [p for p in SOURCES if p.is_relative_to(ROOT / "filter_service")]


@pytest.mark.parametrize("path", PRODUCT, ids=room)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    read = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert not read & {"os.environ", "os.getenv"} or room(path) == "settings.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_file_has_a_name_that_says_something(path: Path) -> None:
    assert path.stem not in NAMELESS


@pytest.mark.parametrize("module", LIGHT)
def test_what_starts_often_loads_no_model(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules or 'open_clip' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_no_command_loads_a_model_before_it_runs() -> None:
    modules = sorted({f"filter_service.cli.{path.split('.')[0]}" for path in COMMANDS.values()})
    loaded = "{'torch', 'open_clip', 'celery', 'pyarrow'} & set(sys.modules)"
    code = f"import sys, {', '.join(modules)}; print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def imports_in_bodies() -> Iterator[tuple[str, str]]:
    """Each file with each module that it imports inside a function."""
    for path in SOURCES:
        bodies = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, FUNCTIONS))
        inside = {node for body in bodies for node in ast.walk(body)}
        for node in inside:
            if isinstance(node, ast.Import):
                yield from ((room(path), alias.name) for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                yield from ((room(path), f"{node.module}.{alias.name}") for alias in node.names)


def test_imports_stand_at_the_top_unless_they_start_a_model_or_a_queue() -> None:
    found = list(imports_in_bodies())
    allowed = tuple(f"{name}." for name in LATE)
    assert [pair for pair in found if not f"{pair[1]}.".startswith(allowed)] == []
    assert len(found) <= 60


WEB = [p for p in PRODUCT if p.is_relative_to(ROOT / "filter_service" / "web")]
QUERYING = {"execute", "scalar", "scalars", "get_one", "stream_scalars"}


@pytest.mark.parametrize("path", WEB, ids=room)
def test_pages_and_routes_ask_a_room_and_run_no_query_of_their_own(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")
        for alias in node.names
    }
    asked = {ast.unparse(n) for n in nodes if isinstance(n, ast.Attribute) and n.attr in QUERYING}
    assert imported <= {"Session", "DataError", "TimeoutError"}
    assert not asked and "session.get(" not in path.read_text()


def test_no_test_imports_from_a_file_of_tests() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    found = {
        path.relative_to(ROOT).as_posix()
        for path in tests
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and ".test_" in (node.module or "")
    }
    assert found == set()


def test_help_is_shown_before_settings_are_loaded() -> None:
    code = "import sys, filter_service.cli; print({'pydantic', 'sqlalchemy'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
