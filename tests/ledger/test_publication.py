"""What is published: anybody can check it, nothing of it is taken back, and no fork gets out."""

import json
import time
from base64 import b64decode
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import fsspec
import pytest
from sqlalchemy import Engine, func, select, text

from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import StoredCheckpoint
from filter_service.errors import BrokenLedger, InvalidSettings, StorageUnavailable
from filter_service.ledger.checkpoints import Checkpoint
from filter_service.ledger.merkle import EMPTY
from filter_service.ledger.notes import WITNESS, SigningKey, cosign, open_note
from filter_service.ledger.publication import publish, seal_and_publish, seal_next
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import LedgerSigner, rotate, signer_of
from filter_service.settings import Settings
from tests.support.ledger_entries import append, root_over, sealed_leaves

PATIENCE = 60.0  # seconds
LOCK = "SELECT pg_advisory_xact_lock(hashtext('filter_service.ledger.publishing'))"


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, database_url=database_url, ledger_name="log.example/test")


@pytest.fixture
def signer(sessions: Sessions, settings: Settings) -> LedgerSigner:
    return signer_of(sessions, settings)


@pytest.fixture
def log(settings: Settings) -> Path:
    return Path(settings.ledger_at)


def sealed(sessions: Sessions, signer: LedgerSigner, *numbers: int) -> None:
    """A checkpoint for each number of new entries."""
    for number in numbers:
        append(sessions, number)
        seal(sessions, signer)


def tile_path(folder: str, index: int, width: int) -> str:
    """As the specification writes it: 1234067 is x001/x234/067."""
    thousands, last = divmod(index, 1000)
    parts = [f"{last:03d}"]
    while thousands:
        thousands, part = divmod(thousands, 1000)
        parts.insert(0, f"x{part:03d}")
    return f"tile/{folder}/{'/'.join(parts)}" + ("" if width == 256 else f".p/{width}")


def read_log(log: Path, note: str) -> tuple[int, list[bytes]]:
    """Check a published tree with nothing but its files: -> size, entries."""
    _, size_line, root_line = note.split("\n")[:3]
    size, entries = int(size_line), []
    for start in range(0, size, 256):
        width = min(256, size - start)
        bundle = (log / tile_path("entries", start // 256, width)).read_bytes()
        while bundle:
            length = int.from_bytes(bundle[:2])
            entries.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
        hashes = b"".join(sha256(b"\0" + entry).digest() for entry in entries[start:])
        assert (log / tile_path("0", start // 256, width)).read_bytes() == hashes
    for start in range(0, size // 256, 256):
        width = min(256, size // 256 - start)
        above = (root_over(entries[n * 256 :][:256]) for n in range(start, start + width))
        assert (log / tile_path("1", start // 256, width)).read_bytes() == b"".join(above)
    assert len(entries) == size
    assert root_over(entries) == b64decode(root_line)
    return size, entries


def change(owner: Engine, *statements: str) -> None:
    """What only somebody can do who may switch triggers off."""
    with owner.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))


def start_anew(owner: Engine) -> None:
    """Everything that was sealed waits again, as if nothing had been."""
    change(
        owner,
        "DELETE FROM ledger_checkpoints",
        "DELETE FROM ledger_tiles",
        "INSERT INTO ledger_unsealed SELECT entry_id FROM ledger_sealed",
        "DELETE FROM ledger_sealed",
    )


def unpublished(sessions: Sessions) -> int:
    waiting = select(func.count()).where(StoredCheckpoint.published_at.is_(None))
    with sessions.begin() as session:
        return session.scalar(waiting) or 0


@pytest.mark.parametrize("numbers", [(1,), (254,), (255,), (256,), (600, 1), (3, 250, 300, 700)])
def test_a_published_log_can_be_checked_by_its_files(
    sessions: Sessions, signer: LedgerSigner, log: Path, numbers: tuple[int, ...]
) -> None:
    sealed(sessions, signer, *numbers)
    assert publish(sessions, str(log)) == len(numbers)
    note = (log / "checkpoint").read_text()
    assert read_log(log, note) == (sum(numbers) + 1, sealed_leaves(sessions))
    assert open_note(note, [signer.vkey]).text.startswith("log.example/test\n")
    assert unpublished(sessions) == 0


def test_entries_say_what_happened_and_not_to_whom(
    sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    sealed(sessions, signer, 2)
    publish(sessions, str(log))
    entries = [json.loads(data) for data in read_log(log, (log / "checkpoint").read_text())[1]]
    assert [e["event"] for e in entries] == ["signer added", "judged", "judged"]
    assert {*entries[0]} == {"at", "batch", "commitment", "event", "id", "item"}


def test_every_checkpoint_is_kept_for_good(
    sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    for number in (3, 300, 5):
        sealed(sessions, signer, number)
        publish(sessions, str(log))
    kept = {int(file.name): file.read_text() for file in (log / "checkpoints").iterdir()}
    assert sorted(kept) == [4, 304, 309]
    assert kept[309] == (log / "checkpoint").read_text()


def test_tiles_that_are_full_have_no_narrower_ones(
    sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    for _ in range(6):
        sealed(sessions, signer, 99)
        publish(sessions, str(log))
    partial = sorted(str(f.relative_to(log)) for f in log.glob("tile/**/*.p/*"))
    assert partial == [
        "tile/0/002.p/83",
        "tile/1/000.p/1",
        "tile/1/000.p/2",
        "tile/entries/002.p/83",
    ]


def test_publishing_again_writes_nothing(
    sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    sealed(sessions, signer, 300)
    publish(sessions, str(log))
    before = {file: file.stat().st_mtime_ns for file in log.rglob("*")}
    assert publish(sessions, str(log)) == 0
    assert {file: file.stat().st_mtime_ns for file in log.rglob("*")} == before


def test_an_empty_folder_is_filled_from_the_beginning(
    sessions: Sessions, signer: LedgerSigner, log: Path, tmp_path: Path
) -> None:
    sealed(sessions, signer, 3, 300)
    publish(sessions, str(log))
    assert publish(sessions, str(tmp_path / "second")) == 2
    assert files_of(tmp_path / "second") >= {*files_of(log)}


def files_of(folder: Path) -> set[tuple[str, bytes]]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {(str(file.relative_to(folder)), file.read_bytes()) for file in files}


def test_an_object_store_holds_the_same(
    sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    sealed(sessions, signer, 3, 300)
    publish(sessions, str(log))
    publish(sessions, "memory://a-log")
    store = fsspec.filesystem("memory")
    there = {path.removeprefix("/a-log/"): store.cat(path) for path in store.find("/a-log")}
    store.rm("/a-log", recursive=True)
    assert there == dict(files_of(log))


def test_nothing_sealed_is_nothing_to_publish(sessions: Sessions, log: Path) -> None:
    assert publish(sessions, str(log)) == 0
    assert not log.exists()


def test_a_database_that_was_cut_short_is_refused(
    sessions: Sessions, owner: Engine, signer: LedgerSigner, log: Path
) -> None:
    sealed(sessions, signer, 3, 4)
    publish(sessions, str(log))
    change(owner, "DELETE FROM ledger_checkpoints WHERE size = 8")
    with pytest.raises(BrokenLedger, match="over 4 entries, but one over 8 is published"):
        publish(sessions, str(log))


def test_nothing_is_signed_over_a_database_that_was_cut_short(
    sessions: Sessions, owner: Engine, settings: Settings
) -> None:
    at_once = settings.model_copy(update={"seal_rows": 1})
    append(sessions, 3)
    seal_and_publish(sessions, at_once)
    start_anew(owner)
    append(sessions, 30)
    with pytest.raises(BrokenLedger, match="came out of an old backup"):
        seal_and_publish(sessions, at_once)
    assert sealed_leaves(sessions) == []


def test_a_rewritten_tree_is_not_published(
    sessions: Sessions, owner: Engine, signer: LedgerSigner, log: Path
) -> None:
    sealed(sessions, signer, 3)
    publish(sessions, str(log))
    before = files_of(log)
    start_anew(owner)
    change(owner, "UPDATE ledger SET event = 'clear' WHERE event = 'judged'")
    sealed(sessions, signer, 4)
    with pytest.raises(BrokenLedger, match="does not go on from the checkpoint over 4 entries"):
        publish(sessions, str(log))
    assert files_of(log) == before


def test_a_changed_entry_is_not_published(
    sessions: Sessions, owner: Engine, signer: LedgerSigner, log: Path
) -> None:
    sealed(sessions, signer, 300)
    change(owner, "UPDATE ledger SET item_id = 1000 WHERE item_id = 280")
    with pytest.raises(BrokenLedger, match="at the places 256 to 300 are not those"):
        publish(sessions, str(log))
    assert not (log / "checkpoint").exists()


def test_a_checkpoint_of_a_strange_key_is_not_published(
    sessions: Sessions, owner: Engine, signer: LedgerSigner, log: Path
) -> None:
    sealed(sessions, signer, 3)
    forged = Checkpoint(signer.name, 9, EMPTY).note([SigningKey.new(signer.name)])
    with owner.begin() as connection:
        insert = text("INSERT INTO ledger_checkpoints VALUES (9, :root, :note)")
        connection.execute(insert, {"root": EMPTY, "note": forged})
    with pytest.raises(BrokenLedger, match="No known key signed"):
        publish(sessions, str(log))
    assert (log / "checkpoint").read_text() == (log / "checkpoints/4").read_text()


@pytest.mark.parametrize("there", [b"rubbish", b"\xff", b""])
def test_what_is_not_our_checkpoint_outside_is_refused(
    sessions: Sessions, signer: LedgerSigner, log: Path, there: bytes
) -> None:
    log.mkdir()
    (log / "checkpoint").write_bytes(there)
    sealed(sessions, signer, 3)
    with pytest.raises(BrokenLedger, match="is not one of this ledger"):
        publish(sessions, str(log))


def test_another_services_folder_is_refused(
    sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    log.mkdir()
    theirs = Checkpoint("log.example/theirs", 0, EMPTY).note([SigningKey.new("log.example/theirs")])
    (log / "checkpoint").write_text(theirs)
    sealed(sessions, signer, 3)
    with pytest.raises(BrokenLedger, match="set FILTER_SERVICE_LEDGER_URL to an empty folder"):
        publish(sessions, str(log))


def test_another_kept_checkpoint_is_not_overwritten(
    sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    (log / "checkpoints").mkdir(parents=True)
    other = Checkpoint(signer.name, 4, EMPTY).note([signer.key])
    (log / "checkpoints/4").write_text(other)
    sealed(sessions, signer, 3)
    with pytest.raises(BrokenLedger, match="checkpoints/4 is another checkpoint"):
        publish(sessions, str(log))
    assert (log / "checkpoints/4").read_text() == other
    assert not (log / "checkpoint").exists()


def test_what_a_witness_added_stays(sessions: Sessions, signer: LedgerSigner, log: Path) -> None:
    sealed(sessions, signer, 3)
    publish(sessions, str(log))
    kept, witness = log / "checkpoints/4", SigningKey.new("witness.example/w", WITNESS)
    kept.write_text(cosign(kept.read_text(), witness, 1_700_000_000))
    (log / "checkpoint").unlink()  # as if it had all been cut short
    assert publish(sessions, str(log)) == 1
    assert open_note(kept.read_text(), [signer.vkey, witness.vkey]).seen == {
        witness.vkey: 1_700_000_000
    }


def test_nothing_is_signed_while_another_publishes(
    sessions: Sessions, owner: Engine, settings: Settings
) -> None:
    at_once = settings.model_copy(update={"seal_rows": 1})
    append(sessions, 3)
    assert seal_and_publish(sessions, at_once) == 1
    start_anew(owner)
    with sessions.begin() as session:
        session.execute(text(LOCK))
        append(sessions, 30)
        assert seal_and_publish(sessions, at_once) == 0
    assert sealed_leaves(sessions) == []


def test_what_is_signed_goes_on_from_what_is_published(
    sessions: Sessions, signer: LedgerSigner, settings: Settings
) -> None:
    sealed(sessions, signer, 3)
    append(sessions)
    assert seal_next(sessions, settings) is None  # the one before it is not outside
    publish(sessions, settings.ledger_at)
    found = seal_next(sessions, settings)
    assert found is not None and found.size == 5
    assert seal_next(sessions, settings) is None


def test_a_key_that_is_changed_meanwhile_signs_on(
    sessions: Sessions, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = settings.model_copy(update={"seal_rows": 1})
    append(sessions)
    changed: list[LedgerSigner] = []

    def published_then_rotated(sessions: Sessions, url: str) -> int:
        done = publish(sessions, url)
        if done and not changed:
            changed.append(rotate(sessions, settings))
        return done

    monkeypatch.setattr("filter_service.ledger.publication.publish", published_then_rotated)
    assert seal_and_publish(sessions, at_once) == 2
    note = Path(settings.ledger_at, "checkpoint").read_text()
    assert open_note(note, [changed[0].vkey]).verified == (changed[0].vkey,)


def test_one_publisher_works_at_a_time(sessions: Sessions, signer: LedgerSigner, log: Path) -> None:
    sealed(sessions, signer, 3)
    with sessions.begin() as session:
        session.execute(text(LOCK))
        assert publish(sessions, str(log)) == 0
    assert publish(sessions, str(log)) == 1


def test_a_folder_that_cannot_be_written_to_is_told(
    sessions: Sessions, signer: LedgerSigner, tmp_path: Path
) -> None:
    sealed(sessions, signer, 3)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable, match="check that it is there"):
        publish(sessions, str(tmp_path / "file"))
    with pytest.raises(InvalidSettings, match="FILTER_SERVICE_LEDGER_URL"):
        publish(sessions, "nothing-such://a")


def keep_publishing(database_url: str, log: str) -> None:
    """A process that does nothing else."""
    sessions = sessions_of(connect(database_url))
    while True:
        publish(sessions, log)


def kept(log: Path) -> int:
    """How many checkpoints are there for good."""
    return len(list((log / "checkpoints").glob("[0-9]*")))


def test_a_killed_publisher_is_taken_up_again(
    database_url: str, sessions: Sessions, signer: LedgerSigner, log: Path
) -> None:
    append(sessions, 3_000)
    while seal(sessions, signer, limit=170):
        pass
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for kill in range(5):
        publisher = processes.Process(target=keep_publishing, args=(database_url, str(log)))
        publisher.start()
        deadline = time.monotonic() + PATIENCE
        while kept(log) < 2 + 3 * kill and time.monotonic() < deadline:
            time.sleep(0.001)
        publisher.kill()
        publisher.join()
        read_log(log, (log / "checkpoint").read_text())
    assert unpublished(sessions) > 0, "killed in the midst"
    publish(sessions, str(log))
    assert read_log(log, (log / "checkpoint").read_text())[0] == 3_001
    assert unpublished(sessions) == 0
    assert kept(log) == 18
