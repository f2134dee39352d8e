"""Names: a class is a noun, no class name and no file name means two things."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent / "filter_service"
FILES = sorted(p for p in ROOT.rglob("*.py") if p.stem != "__init__")

SUBJECTS = {  # what several rooms have a file about: the same thing, as each of them sees it
    "accounts": "people who work here, and keys",
    "appeals": "complaints about decisions",
    "batches": "what platforms submit in one go",
    "explanations": "those that are stored",
    "exports": "rows of items as files",
    "ledger": "the append-only record",
    "policies": "versions of policies",
    "queue": "cases that wait",
    "replay": "computing again what is on record",
    "reports": "pictures that somebody says are forbidden",
    "restricted": "classes that are locked away",
    "retention": "how long what is kept",
    "review_rules": "which decisions are looked at twice, and which clear items are drawn",
    "routes": "the addresses of one part of the web",
    "search": "stored images near to something",
    "statements": "statements of reasons",
    "webhooks": "what platforms are told",
}
PARTICIPLES = re.compile(
    r"[A-Z][a-z]+ed|Told|Kept|Sought|Shown|Seen|Given|Known|Sent|Found|Drawn|Held|Due|Lost|Set|Read|"
    r"Written|Taken|Gone|Met|Put|Built|Made|Done|Left|Meant|Thrown|Chosen|Broken|Hidden|Said|Unjudged"
)


def classes() -> dict[str, list[str]]:
    """Where each public class is defined."""
    found = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path.relative_to(ROOT).as_posix())
    return found


def test_no_class_name_means_two_things() -> None:
    assert {name: where for name, where in classes().items() if len(where) > 1} == {}


def test_no_class_is_a_bare_participle() -> None:
    assert [name for name in classes() if PARTICIPLES.fullmatch(name)] == []


def test_no_file_name_means_two_things() -> None:
    found = defaultdict(list)
    for path in FILES:
        found[path.stem].append(path.relative_to(ROOT).as_posix())
    several = {name for name, where in found.items() if len(where) > 1}
    assert several == set(SUBJECTS), {name: found[name] for name in several ^ set(SUBJECTS)}


def test_at_most_thirty_rooms() -> None:
    rooms = {p.relative_to(ROOT).parts[0] for p in FILES} - {"__init__.py"}
    assert len(rooms) <= 30, sorted(rooms)
