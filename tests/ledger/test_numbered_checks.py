"""What a verification checks is numbered: in the code, in its report and in the documentation."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from filter_service.canonical import canonical
from filter_service.cli import app
from filter_service.ledger import verification
from filter_service.ledger.merkle import leaf_hash
from filter_service.ledger.verification import VerificationReport, verify_export
from filter_service.ledger.verification.checks import CHECKS, IN_DATABASES, IN_EXPORTS
from tests.support.sealed_ledger import Ledger

pytest_plugins = ["tests.support.ledger_fixtures"]

TESTS = Path(__file__).parents[1]
BEFORE = TESTS / "data" / "before_redesign"
DOCUMENT = TESTS.parent / "docs" / "audit.md"
NAMING = ("self._faults.add", "self._name")


def numbers_in_code() -> Iterator[int]:
    """Of every place where a verification names what is wrong."""
    for path in Path(verification.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in NAMING:
                number = ast.unparse(node.args[0])
                if number.isdecimal():
                    yield int(number)


def test_every_number_stands_where_it_is_checked() -> None:
    assert set(numbers_in_code()) == CHECKS.keys()


def test_the_documentation_lists_the_checks() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \| (yes)? ?\| (yes)? ?\|$", DOCUMENT.read_text(), re.M)
    assert [(int(number), sentence) for number, sentence, *_ in rows] == list(CHECKS.items())
    assert {int(number) for number, _, here, _ in rows if here} == IN_DATABASES
    assert {int(number) for number, _, _, here in rows if here} == IN_EXPORTS


def broken(report: VerificationReport) -> set[int]:
    """The checks that do not hold; every fault is of one of them."""
    assert sum(check.broken or 0 for check in report.checks) == report.broken > 0
    assert {fault for check in report.checks for fault in check.faults} == set(report.faults)
    return {check.number for check in report.checks if check.broken}


def not_made(report: VerificationReport) -> set[int]:
    return {check.number for check in report.checks if check.broken is None}


ENTRY = 9  # a line


def moved(lines: list[bytes]) -> None:
    lines[ENTRY], lines[ENTRY + 1] = lines[ENTRY + 1], lines[ENTRY]


def said_otherwise(lines: list[bytes]) -> None:
    told = json.loads(lines[ENTRY])
    told["payload"]["actor"] = "eve"
    lines[ENTRY] = f"{canonical(told)}\n".encode()


def kept_silent(lines: list[bytes]) -> None:
    told = json.loads(lines[ENTRY])
    told["payload"] = None
    lines[ENTRY] = f"{canonical(told)}\n".encode()


def resealed(lines: list[bytes]) -> None:
    told = json.loads(lines[ENTRY])
    told["entry"]["item"] = 77
    told["hash"] = leaf_hash(canonical(told["entry"]).encode()).hex()
    lines[ENTRY] = f"{canonical(told)}\n".encode()


def signed_otherwise(lines: list[bytes]) -> None:
    there = next(n for n, line in enumerate(lines) if line.startswith(b'{"checkpoint"'))
    note = json.loads(lines[there])["checkpoint"].replace("filter-service.local", "log.example")
    lines[there] = f"{canonical({'checkpoint': note})}\n".encode()


def promised_more(lines: list[bytes]) -> None:
    header = json.loads(lines[0])
    lines[0] = f"{canonical({**header, 'size': header['size'] + 1})}\n".encode()


def cut_off(lines: list[bytes]) -> None:
    del lines[-1]


@pytest.mark.parametrize(
    ("harm", "number"),
    [
        (moved, 1),
        (said_otherwise, 2),
        (kept_silent, 3),
        (resealed, 5),
        (signed_otherwise, 6),
        (promised_more, 7),
        (cut_off, 15),
    ],
)
def test_a_harmed_export_fails_by_number(tmp_path: Path, harm: object, number: int) -> None:
    lines = (BEFORE / "ledger.export").read_bytes().splitlines(keepends=True)
    assert callable(harm)
    harm(lines)
    export = tmp_path / "ledger.export"
    export.write_bytes(b"".join(lines))
    assert broken(verify_export(export)) == {number, 15}  # the digest at the end is another, too


def test_what_was_not_checked_is_not_said_to_hold(tmp_path: Path) -> None:
    whole = verify_export(BEFORE / "ledger.export")
    assert not_made(whole) == CHECKS.keys() - IN_EXPORTS | {9, 10}
    unreadable = tmp_path / "ledger.export"
    unreadable.write_bytes((BEFORE / "ledger.export").read_bytes()[:3_000])
    assert not_made(verify_export(unreadable)) == not_made(whole) | {5, 6, 7}


def test_the_report_names_the_numbers(tmp_path: Path) -> None:
    lines = (BEFORE / "ledger.export").read_bytes().splitlines(keepends=True)
    said_otherwise(lines)
    export = tmp_path / "ledger.export"
    export.write_bytes(b"".join(lines))
    said = CliRunner().invoke(app, ["audit", "verify", "--export", str(export)]).stdout
    assert f"check  1  holds       {CHECKS[1]}" in said
    assert f"check  2  1 BROKEN    {CHECKS[2]}" in said
    assert f"check  8  not made    {CHECKS[8]}" in said
    assert f"Check 2: Line {ENTRY + 1}: the payload of entry" in said


@pytest.mark.parametrize(
    ("harm", "number"),
    [
        ("DELETE FROM ledger_tiles WHERE level = 1", 4),
        (
            "UPDATE ledger_checkpoints SET root = decode(repeat('01', 32), 'hex') WHERE size = 260",
            5,
        ),
        ("DELETE FROM ledger_checkpoints WHERE size = 260", 8),
        ("DELETE FROM ledger_unsealed", 11),
        ("UPDATE explanations SET faithful = NOT faithful WHERE item_id = 3", 12),
        ("DELETE FROM policies", 14),
    ],
)
def test_a_harmed_database_fails_by_number(sealed: Ledger, harm: str, number: int) -> None:
    sealed.harm(harm)
    assert broken(sealed.verify()) == {number}
