"""An export says the same as the database, and no byte of it can be another."""

import json
import random
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from filter_service import ledger
from filter_service.canonical import canonical
from filter_service.cli import app
from filter_service.db.session import Sessions
from filter_service.ledger import Entry, Event
from filter_service.ledger.codec import Payload
from filter_service.ledger.export import write_export
from filter_service.ledger.verification import verify_export
from filter_service.local import Services
from tests.conftest import named
from tests.support.sealed_ledger import CHUNK, SEALED, Ledger, opened

pytest_plugins = ["tests.support.ledger_fixtures"]

CHANGES = 1_000


@pytest.fixture(scope="session")
def exported(sealed_folder: Path, servers: Services) -> bytes:
    """The export of the sealed ledger, made once."""
    with opened(named(servers.database_url, SEALED), sealed_folder) as ledger:
        return written(ledger.sessions)


@pytest.fixture
def export(exported: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(exported)
    return path


def written(sessions: Sessions) -> bytes:
    """An export, in memory."""
    file = BytesIO()
    write_export(sessions, file)
    return file.getvalue()


def faults(path: Path, data: bytes) -> str:
    """What is found in a file of these bytes, which is something."""
    path.write_bytes(data)
    report = verify_export(path)
    assert not report.whole
    return "\n".join(report.faults)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def signed_off(lines: list[bytes]) -> bytes:
    """Lines with the digest that belongs to them, as somebody would who knows the format."""
    data = b"".join(lines)
    return data + f"{canonical({'sha256': sha256(data).hexdigest()})}\n".encode()


def changed(lines: list[bytes], number: int, **fields: object) -> bytes:
    """Fields of an entry changed in a line, and the digest at the end made to fit."""
    told = json.loads(lines[number])
    told["entry"].update(fields)
    return signed_off([*lines[:number], f"{canonical(told)}\n".encode(), *lines[number + 1 : -1]])


def test_an_export_says_what_the_database_says(sealed: Ledger, export: Path) -> None:
    there, here = sealed.verify(), verify_export(export)
    assert here.whole
    for said in ("entries", "waiting", "erased", "checkpoints", "keys"):
        assert getattr(here, said) == getattr(there, said) != 0


def test_every_changed_byte_is_found(database_url: str, tmp_path: Path) -> None:
    with opened(database_url, tmp_path) as small:
        small.happen(4)
        small.seal()
        small.rotate()
        small.happen(4)
        small.seal()
        small.happen(1)
        data = written(small.sessions)
    export, chance, missed = tmp_path / "ledger.jsonl", random.Random(5), []
    for _ in range(CHANGES):
        place = chance.randrange(len(data))
        other = bytes([data[place] ^ chance.randrange(1, 256)])
        export.write_bytes(data[:place] + other + data[place + 1 :])
        if verify_export(export).whole:
            missed.append((place, other))
    assert missed == []
    export.write_bytes(data)
    assert verify_export(export).whole


def test_the_line_of_a_changed_byte_is_named(export: Path) -> None:
    lines = lines_of(export)
    lines[100] = lines[100].replace(b"revealed", b"revealee", 1)
    first = faults(export, b"".join(lines)).splitlines()[0]
    assert first.startswith("Line 101: entry")
    assert "(revealee, item 3) is not what was sealed" in first


@pytest.mark.parametrize("end", [b"\n", b" ", b"{}\n", b"\0"])
def test_nothing_follows_the_digest(export: Path, end: bytes) -> None:
    assert "it was changed" in faults(export, export.read_bytes() + end)


def test_a_second_digest_is_not_believed(export: Path) -> None:
    assert "nothing follows the digest" in faults(export, signed_off(lines_of(export)))


def test_only_the_digest_binds_what_is_not_sealed(export: Path) -> None:
    lines = lines_of(export)
    lines[-2] = lines[-2].replace(b'"item":3', b'"item":4')
    assert "the digest is not that of the lines" in faults(export, b"".join(lines))


def test_there_is_one_way_to_write_a_line(export: Path) -> None:
    lines = lines_of(export)
    lines[100] = lines[100].replace(b":", b": ", 1)
    said = faults(export, signed_off(lines[:-1]))
    assert "another form than canonical JSON" in said


def test_a_file_that_was_cut_off_is_named(export: Path) -> None:
    lines = lines_of(export)
    for count in (0, 1, 50, len(lines) - 1):
        assert "the file was cut off" in faults(export, b"".join(lines[:count]))
    assert not verify_export(export).whole


def test_a_deleted_line_is_named(export: Path) -> None:
    lines = lines_of(export)
    said = faults(export, signed_off([*lines[:100], *lines[101:-1]]))
    assert "is at position 100 where 99 was to come" in said


def test_swapped_lines_are_named(export: Path) -> None:
    lines = lines_of(export)
    lines[100], lines[101] = lines[101], lines[100]
    assert "is at position 100 where 99 was to come" in faults(export, signed_off(lines[:-1]))


def test_a_shorter_ledger_needs_another_header(export: Path) -> None:
    lines = lines_of(export)
    end = next(n for n, line in enumerate(lines) if line.startswith(b'{"checkpoint"'))
    said = faults(export, signed_off(lines[: end + 1]))
    assert f"{CHUNK} are here, and the last checkpoint is over {CHUNK}" in said


def test_an_entry_changed_with_its_hash_breaks_the_root(export: Path) -> None:
    lines = lines_of(export)
    told = json.loads(lines[100])
    told["entry"]["item"] = 77
    told["hash"] = sha256(b"\0" + canonical(told["entry"]).encode()).hexdigest()
    lines[100] = f"{canonical(told)}\n".encode()
    said = faults(export, signed_off(lines[:-1]))
    assert f"what is at the positions 0 to {CHUNK - 1} is not what this checkpoint" in said


@pytest.mark.parametrize("field", ["at", "batch", "commitment", "event", "id", "item"])
def test_every_field_of_an_entry_is_bound(export: Path, field: str) -> None:
    assert "Line 101:" in faults(export, changed(lines_of(export), 100, **{field: "x"}))


@pytest.mark.parametrize("part", ["actor", "details", "salt"])
def test_every_part_of_a_payload_is_bound(export: Path, part: str) -> None:
    lines = lines_of(export)
    told = json.loads(lines[100])
    told["payload"][part] = "00"
    lines[100] = f"{canonical(told)}\n".encode()
    assert "is not what it committed to" in faults(export, signed_off(lines[:-1]))


def test_a_payload_is_missing_only_if_erased(export: Path) -> None:
    lines = lines_of(export)
    told = json.loads(lines[100])
    told["payload"] = None
    lines[100] = f"{canonical(told)}\n".encode()
    assert "no entry says that its item was erased" in faults(export, signed_off(lines[:-1]))


def test_an_erasure_that_waits_proves_nothing(sealed: Ledger, export: Path) -> None:
    erased = verify_export(export).erased
    with sealed.sessions.begin() as session:
        ledger.append(session, [Entry(Event.ERASED, "eve", 5)])
    gone = "SELECT id FROM ledger WHERE item_id = 5 AND event <> 'erased'"
    sealed.harm(f"DELETE FROM ledger_payloads WHERE entry_id IN ({gone})")
    export.write_bytes(written(sealed.sessions))
    report = verify_export(export)
    assert report.erased == erased
    assert f"NOT PROVEN: {report.unproven} payloads" in report.warnings[0]
    sealed.seal()
    export.write_bytes(written(sealed.sessions))
    after = verify_export(export)
    assert (after.erased, after.unproven) == (erased + report.unproven, 0)
    assert (after.whole, after.warnings) == (True, ())


def place_of(lines: list[bytes], text: bytes) -> int:
    """The first line with a text."""
    return next(number for number, line in enumerate(lines) if text in line)


def test_who_erased_is_never_erased(export: Path) -> None:
    lines = lines_of(export)
    there = place_of(lines, b'"event":"erased"')
    told = json.loads(lines[there])
    told["payload"] = None
    lines[there] = f"{canonical(told)}\n".encode()
    assert f"Line {there + 1}: the payload of" in faults(export, signed_off(lines[:-1]))


def test_an_erasure_beyond_reckoning_is_named(export: Path) -> None:
    lines = lines_of(export)
    there = place_of(lines, b'"event":"erased"')
    said = faults(export, changed(lines, there, at="9999-12-31T23:59:59.999999Z"))
    assert said.startswith(f"Line {there + 1}: entry")
    assert "is not what was sealed" in said


def test_salt_of_another_length_is_named(export: Path) -> None:
    lines = lines_of(export)
    told = json.loads(lines[-2])
    told["payload"]["salt"] = "00" * 33
    told["entry"]["commitment"] = Payload.decode(told["payload"]).commitment.hex()
    lines[-2] = f"{canonical(told)}\n".encode()
    assert "is not what it committed to" in faults(export, signed_off(lines[:-1]))


def test_a_kept_checkpoint_tells_of_a_shorter_export(sealed: Ledger, export: Path) -> None:
    def verified(checkpoint: str) -> str:
        kept = str(sealed.folder / checkpoint)
        words = ["audit", "verify", "--export", str(export), "--checkpoint", kept]
        return CliRunner().invoke(app, words).stdout

    lines = lines_of(export)
    *_, end, _ = (n for n, line in enumerate(lines) if line.startswith(b'{"checkpoint"'))
    size = json.loads(lines[end - 1])["position"] + 1
    for checkpoint in ("checkpoint", f"checkpoints/{size}"):
        assert "Whole" in (said := verified(checkpoint))
        assert "of those that you kept, the same here" in said
    head = lines[0].replace(b'"size":590', f'"size":{size}'.encode())
    export.write_bytes(signed_off([head, *lines[1 : end + 1]]))
    assert "Whole" in verified(f"checkpoints/{size}")
    assert f"is of size 590, but {size} entries are sealed here" in verified("checkpoint")
    kept = sealed.folder / "checkpoint"
    kept.write_text(kept.read_text().replace("\n590\n", f"\n{size}\n"))
    assert "has another root than the checkpoint in" in verified("checkpoint")


def test_another_key_is_not_believed(export: Path) -> None:
    known = verify_export(export).keys
    assert verify_export(export, known[:1]).whole  # the first hands over to the second
    assert not verify_export(export, known[1:]).whole
