"""Who may import what: the rules that keep each room small, read off the source itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for d in ("filter_service", "tasks") for p in (ROOT / d).rglob("*.py"))
TORCH_ROOMS = ("encoder/", "pipeline.py", "explain/", "demo/")
NAMELESS = {"utils", "helpers", "common", "manager", "base", "models"}
LIGHT = (
    "filter_service",
    "filter_service.cli",
    "filter_service.intake.submissions",
    "filter_service.ledger",
    "filter_service.db.tables",
    "filter_service.db.vectors",
    "filter_service.query_encoder",
    "filter_service.web.app",
    "tasks.work",
)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside a body."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room(path: Path) -> str:
    return path.relative_to(ROOT / "filter_service").as_posix()


PRODUCT = [p for p in SOURCES if p.is_relative_to(ROOT / "filter_service")]


@pytest.mark.parametrize("path", PRODUCT, ids=room)
def test_the_product_knows_no_celery(path: Path) -> None:
    heads = {name.split(".")[0] for name in imports(path)}
    assert not heads & {"celery", "kombu", "billiard", "tasks"}


@pytest.mark.parametrize("path", PRODUCT, ids=room)
def test_torch_stays_in_its_rooms(path: Path) -> None:
    heads = {name.split(".")[0] for name in imports(path)}
    # Searching asks for it inside the one body that makes a vector of an image.
    allowed = (*TORCH_ROOMS, "seeking.py", "looking.py")  # the latter as the pipeline does
    assert not heads & {"torch", "torchvision", "timm"} or room(path).startswith(allowed)


@pytest.mark.parametrize("path", PRODUCT, ids=room)
def test_open_clip_is_the_encoder_rooms_business(path: Path) -> None:
    heads = {name.split(".")[0] for name in imports(path)}
    assert "open_clip" not in heads or room(path).startswith(("encoder/", "demo/"))


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
