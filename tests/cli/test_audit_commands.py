"""The auditor's commands, on a real database."""

import json
from base64 import b64encode
from collections.abc import Collection
from pathlib import Path

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from filter_service.cli import app
from filter_service.errors import BrokenLedger, FilterServiceError, InvalidRequest, UnknownItem
from filter_service.ledger import Entry, Event, append, proofs
from filter_service.ledger.checkpoints import parse
from filter_service.ledger.codec import Payload
from filter_service.ledger.notes import WITNESS, SigningKey, cosign
from tests.support.sealed_ledger import Ledger
from tests.support.served import environment

pytest_plugins = ["tests.support.ledger_fixtures"]


class Line:
    """The command line over a sealed ledger, in this process."""

    def __init__(self, ledger: Ledger, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = ledger.settings.model_copy(update={"broker_url": broker_url})
        for name, value in environment(settings).items():
            if name.startswith("FILTER_SERVICE_"):
                monkeypatch.setenv(name, value)

    def __call__(self, *words: str | Path) -> str:
        """What a command prints that succeeds."""
        result = self.result(*words)
        assert result.exit_code == 0, result.output
        return result.output

    def result(self, *words: str | Path) -> Result:
        return CliRunner().invoke(app, ["audit", *map(str, words)])

    def refused(self, *words: str | Path) -> FilterServiceError:
        """Why a command did nothing."""
        error = self.result(*words).exception
        assert isinstance(error, FilterServiceError), error
        return error


@pytest.fixture
def line(sealed: Ledger, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(sealed, broker_url, monkeypatch)


@pytest.fixture
def vkey(sealed: Ledger) -> str:
    """The first key."""
    return sealed.verify().keys[0]


def test_verify_says_that_all_is_whole(line: Line, vkey: str) -> None:
    said = line("verify", "--key", vkey)
    assert said.splitlines()[-1] == "Whole: everything is as it was sealed."
    assert "payloads erased, commitment intact" in said
    assert "taken from" not in said


def test_verify_says_where_its_keys_came_from(line: Line) -> None:
    assert "The keys were taken from the very thing that is checked" in line("verify")


def test_verify_fails_and_names_the_first_place(line: Line, sealed: Ledger) -> None:
    sealed.harm("UPDATE ledger SET item_id = 9 WHERE id IN (100, 101)")
    result = line.result("verify")
    assert result.exit_code == 1
    assert "Entry 100 (revealed, item 9) is not what was sealed at position" in result.output
    assert "BROKEN in 2 places" in result.output


def test_verify_tells_programs_in_json(line: Line, sealed: Ledger) -> None:
    assert json.loads(line("verify", "--json"))["whole"]
    sealed.harm("UPDATE ledger SET item_id = 9 WHERE id = 100")
    result = line.result("verify", "--json")
    assert (result.exit_code, json.loads(result.output)["broken"]) == (1, 1)


def test_keys_come_from_a_file(line: Line, vkey: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{vkey}\n\n")
    assert "taken from" not in line("verify", "--key-file", file)
    file.write_text("nonsense\n")
    assert "is not a key" in str(line.refused("verify", "--key-file", file))


def test_a_witness_that_saw_nothing_is_missed(line: Line) -> None:
    witness = SigningKey.new("witness.example", WITNESS).vkey
    result = line.result("verify", "--witness", witness)
    assert result.exit_code == 1
    assert "has co-signed none of the checkpoints" in result.output


def test_a_witness_is_heard(line: Line, sealed: Ledger) -> None:
    witness = SigningKey.new("witness.example", WITNESS)
    newest = sealed.folder / "checkpoint"
    newest.write_text(cosign(newest.read_text(), witness, 1_800_000_000))
    assert "co-signed up to 590 entries" in line("verify", "--witness", witness.vkey)


def test_an_export_is_verified_without_a_database(
    line: Line, vkey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ledger.jsonl"
    assert "593 entries are in" in line("export", file)
    monkeypatch.setenv("FILTER_SERVICE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert "Whole" in line("verify", "--export", file, "--key", vkey)
    file.write_bytes(file.read_bytes()[:-1])
    assert line.result("verify", "--export", file).exit_code == 1


def test_an_items_history_is_proven(line: Line, vkey: str, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    assert "are proven in" in line("prove", "3", "--out", file)
    said = line("check", file, "--key", vkey, "--key", line("key").splitlines()[-1])
    assert "of item 3 are in the tree of 590 entries" in said
    assert "3 more were not sealed" in said
    assert json.loads(CliRunner().invoke(app, ["audit", "prove", "5"]).stdout)["item"] == 5


def test_an_erased_item_is_proven_without_its_payloads(line: Line, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    line("prove", "1", "--out", file)
    said = line("check", file, *keys(line))
    assert "are without payload, which was erased or left out of this file" in said
    assert "Not proven: that these are all its entries" in said


@pytest.mark.parametrize("part", ["entry", "position", "proof", "payload"])
def test_a_changed_proof_is_refused(line: Line, tmp_path: Path, part: str) -> None:
    file = tmp_path / "proof.json"
    line("prove", "3", "--out", file)
    document = json.loads(file.read_text())
    one, other = document["entries"][:2]
    one[part] = other[part]
    file.write_text(json.dumps(document))
    assert isinstance(line.refused("check", file, *keys(line)), BrokenLedger)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("item", 4, "is of item 3 and not of 4"),
        ("format", "filter-service ledger proof 2", "its format is"),
        ("checkpoint", None, "Nothing was sealed when this was made"),
    ],
)
def test_what_a_document_says_of_itself_is_checked(
    line: Line, tmp_path: Path, field: str, value: object, said: str
) -> None:
    file = tmp_path / "proof.json"
    line("prove", "3", "--out", file)
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    assert said in str(line.refused("check", file, *keys(line)))


@pytest.mark.parametrize("part", ["entries", "waiting"])
def test_an_entry_is_told_once(line: Line, tmp_path: Path, part: str) -> None:
    file = tmp_path / "proof.json"
    line("prove", "3", "--out", file)
    document = json.loads(file.read_text())
    document[part].append(document["entries"][0])
    file.write_text(json.dumps(document))
    assert "more than once" in str(line.refused("check", file, *keys(line)))


def test_a_payload_can_be_read_one_way_only(line: Line, sealed: Ledger, tmp_path: Path) -> None:
    inner = {"actor": "person eve", "details": {}}
    with sealed.sessions.begin() as session:
        append(session, [Entry(Event.REVEALED, "person ada", 3, details={"of": inner})])
    sealed.seal()
    document = proofs.prove(sealed.sessions, 3)
    told = document["entries"][-1]["payload"]
    before, _, after = Payload.decode(told).text.rpartition('{"actor":')
    salt = told["salt"] + before.encode().hex()
    details = after.removeprefix('"person eve","details":').removesuffix("}")
    told.update(salt=salt, actor="person eve", details=details)
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(document))
    assert "is none" in str(line.refused("check", file, *keys(line)))


def test_proofs_are_of_the_tree_they_came_with(
    sealed: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    inclusion_of = proofs.inclusion_of

    def and_then_sealed(
        session: Session, entry_ids: Collection[int]
    ) -> dict[int, proofs.Inclusion]:
        found = inclusion_of(session, entry_ids)
        sealed.seal()
        return found

    monkeypatch.setattr(proofs, "inclusion_of", and_then_sealed)
    document = proofs.prove(sealed.sessions, 3)
    proven = proofs.check_proof(document, sealed.verify().keys)
    assert (proven.checkpoint.size, proven.waiting) == (590, 3)


def test_a_key_of_before_a_change_needs_the_newer(line: Line, vkey: str, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    line("prove", "3", "--out", file)
    said = "give the newer one, too: `filter-service audit verify` with yours names"
    assert said in str(line.refused("check", file, "--key", vkey))
    assert said in str(line.refused("consistency", "260", "590", "--key", vkey))


@pytest.mark.parametrize("size", ["9" * 19, "9" * 20, "9" * 5000])
def test_a_size_beyond_any_tree_is_refused(line: Line, size: str) -> None:
    assert "neither a size nor a file" in str(line.refused("consistency", size, "590"))
    with pytest.raises(BrokenLedger, match="is not a checkpoint"):
        parse(f"log\n{size}\n{b64encode(bytes(32)).decode()}\n")


def test_a_proof_needs_a_key_and_an_item(line: Line, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    line("prove", "3", "--out", file)
    assert "worth as much as the key" in str(line.refused("check", file))
    assert isinstance(line.refused("prove", "77"), UnknownItem)
    file.write_text("[]")
    assert "audit prove" in str(line.refused("check", file, *keys(line)))


def test_a_newer_tree_continues_an_older_one(line: Line, sealed: Ledger, tmp_path: Path) -> None:
    kept = tmp_path / "march.txt"
    kept.write_text((sealed.folder / "checkpoints" / "260").read_text())
    said = line("consistency", kept, "590", *keys(line))
    assert "The tree of 590 entries only added to the one of 260" in said
    assert "proof " in said


def test_a_rewritten_tree_does_not_continue(line: Line, sealed: Ledger, tmp_path: Path) -> None:
    kept = tmp_path / "march.txt"
    kept.write_text((sealed.folder / "checkpoints" / "260").read_text())
    sealed.harm("UPDATE ledger_tiles SET hashes = set_byte(hashes, 0, 7) WHERE level = 0")
    sealed.harm("UPDATE ledger_tiles SET hashes = set_byte(hashes, 0, 7) WHERE level = 1")
    assert "something of before was changed" in str(line.refused("consistency", kept, "590"))
    assert isinstance(line.refused("consistency", "261", "590"), InvalidRequest)
    assert isinstance(line.refused("consistency", "590", "260"), InvalidRequest)


def test_what_waits_is_sealed_and_published_now(line: Line, sealed: Ledger) -> None:
    assert "1 checkpoints were signed, 1 published" in line("seal")
    report = sealed.verify()
    assert (report.waiting, report.whole) == (0, True)


def test_another_key_takes_over(line: Line, sealed: Ledger, vkey: str) -> None:
    before = line("key").splitlines()
    line("rotate")
    line("seal")
    assert len(line("key").splitlines()) == len(before) + 1
    assert sealed.verify(vkey).whole  # who trusts the first trusts those that it handed over to


def test_inclusion_is_known_of_what_is_sealed(sealed: Ledger) -> None:
    waiting = sealed.ask("SELECT max(entry_id) FROM ledger_unsealed")
    with sealed.sessions() as session:
        found = proofs.inclusion_of(session, [1, 2, waiting])
    assert {entry: (i.position, i.size) for entry, i in found.items()} == {1: (0, 590), 2: (1, 590)}


def keys(line: Line) -> list[str]:
    """Every key, as options."""
    return [word for vkey in line("key").splitlines() for word in ("--key", vkey)]
