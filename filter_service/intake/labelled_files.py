"""Reads pictures whose truth is known: a folder per class, or JSON Lines with their classes."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filter_service.errors import InvalidRequest
from filter_service.policy.spelling import unknown
from filter_service.policy.strict import each_once

CLEAR = "clear"  # the folder of what shows nothing forbidden
KNOWN = ("source", "classes")


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A picture and the forbidden classes that it shows; none: it is clear."""

    path: Path
    classes: frozenset[str]


def read_labelled(place: Path, names: Collection[str]) -> list[LabelledFile]:
    """All pictures of a labelled folder or a JSON Lines file, in the order of their names.

    A folder holds one folder for each class, and `clear`; a picture of one class's folder counts as
    not showing the others. A line is {"source": PATH, "classes": [NAME, ...]}, its path relative to
    the file. `names` are the classes that there are. Raises InvalidRequest that says what is wrong
    where.
    """
    found = _of_folder(place, names) if place.is_dir() else _of_lines(place, names)
    files = sorted(found, key=lambda file: file.path)
    if not files:
        raise InvalidRequest(
            f"{place} holds no picture: give a folder with a folder for each class and "
            f"one called {CLEAR}, or a file of JSON Lines."
        )
    return files


def require_agreement(files: Iterable[tuple[str, LabelledFile]]) -> None:
    """InvalidRequest where the same bytes, by their digest, stand under different labels."""
    first: dict[str, LabelledFile] = {}
    for digest, file in files:
        other = first.setdefault(digest, file)
        if other.classes != file.classes:
            raise InvalidRequest(
                f"{other.path} and {file.path} are the same picture, once {_said(other)} and once "
                f"{_said(file)}: leave one of the two out."
            )


def _of_folder(folder: Path, names: Collection[str]) -> Iterator[LabelledFile]:
    loose = [p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    if loose:
        raise InvalidRequest(
            f"{folder / loose[0]} lies in no class's folder: move it to {CLEAR}, or to its class."
        )
    for inner in sorted(p for p in folder.iterdir() if p.is_dir()):
        _require_known(inner.name, names, str(inner))
        classes = frozenset() if inner.name == CLEAR else frozenset({inner.name})
        for path in inner.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                yield LabelledFile(path, classes)


def _of_lines(file: Path, names: Collection[str]) -> Iterator[LabelledFile]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{file} cannot be read ({error}): give a folder, or a file of JSON Lines."
        ) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _line(f"{file}:{number}", line, file.parent, names)


def _line(where: str, line: str, folder: Path, names: Collection[str]) -> LabelledFile:
    try:
        document = json.loads(line, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:  # the second: nested too deeply
        raise InvalidRequest(f"{where}: no JSON that can be read ({error}).") from error
    if not isinstance(document, dict) or not isinstance(document.get("source"), str):
        raise InvalidRequest(f'{where}: a line is {{"source": PATH, "classes": [NAME, ...]}}.')
    if strange := sorted(document.keys() - set(KNOWN)):
        raise InvalidRequest(f"{where}: {unknown(strange[0], KNOWN)}.")
    classes = document.get("classes")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise InvalidRequest(f"{where}: classes is a list of names, empty for a clear picture.")
    for name in classes:
        _require_known(name, names, where, clear=False)
    return LabelledFile(folder / document["source"], frozenset(classes))


def _require_known(name: str, names: Collection[str], where: str, clear: bool = True) -> None:
    known = [*names, CLEAR] if clear else list(names)
    if name not in known:
        raise InvalidRequest(f"{where}: {unknown(name, known)}.")


def _said(file: LabelledFile) -> str:
    return ", ".join(sorted(file.classes)) or CLEAR
