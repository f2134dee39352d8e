"""Sealing: every entry gets one place, whoever is killed, late, or in the way."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, text

from filter_service import ledger
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import LedgerEntry, SealedEntry, StoredCheckpoint, UnsealedEntry
from filter_service.errors import BrokenLedger
from filter_service.ledger import Entry, Event
from filter_service.ledger.notes import SigningKey
from filter_service.ledger.sealer import is_due, seal
from filter_service.ledger.signers import LedgerSigner, signer_of
from filter_service.settings import Settings
from tests.support.ledger_entries import append, check_tree, root_over, sealed_leaves

KILLS = 6
PATIENCE = 60.0  # seconds


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, database_url=database_url, ledger_name="log.example/test")


@pytest.fixture
def signer(sessions: Sessions, settings: Settings) -> LedgerSigner:
    return signer_of(sessions, settings)


def count(sessions: Sessions, what: type[SealedEntry] | type[UnsealedEntry]) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(what)) or 0


def change(owner: Engine, *statements: str) -> None:
    """What only somebody can do who may switch triggers off."""
    with owner.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))


def test_entries_are_sealed_under_a_signed_root(sessions: Sessions, signer: LedgerSigner) -> None:
    append(sessions, 9)
    checkpoint = seal(sessions, signer)
    assert checkpoint is not None
    assert (checkpoint.origin, checkpoint.size) == ("log.example/test", 10)  # with `signer added`
    assert checkpoint.root == root_over(sealed_leaves(sessions))
    assert check_tree(sessions) == [10]


def test_sealing_again_without_new_entries_changes_nothing(
    sessions: Sessions, signer: LedgerSigner
) -> None:
    assert seal(sessions, signer) is not None
    assert seal(sessions, signer) is None
    assert check_tree(sessions) == [1]


def test_a_backlog_is_sealed_in_chunks_across_tiles(
    sessions: Sessions, signer: LedgerSigner
) -> None:
    append(sessions, 700)
    while seal(sessions, signer, limit=150):
        pass
    assert check_tree(sessions) == [150, 300, 450, 600, 701]


def test_nothing_is_due_before_its_time(sessions: Sessions, settings: Settings) -> None:
    append(sessions, 3)
    assert not is_due(sessions, settings)


def test_many_entries_are_due_at_once(sessions: Sessions, settings: Settings) -> None:
    append(sessions, 10)
    assert is_due(sessions, settings.model_copy(update={"seal_rows": 10}))
    assert not is_due(sessions, settings.model_copy(update={"seal_rows": 11}))


def test_few_entries_are_due_when_their_time_is_over(
    sessions: Sessions, settings: Settings
) -> None:
    append(sessions, 3)
    soon = settings.model_copy(update={"seal_seconds": 0.05})
    time.sleep(0.06)
    assert is_due(sessions, soon)


def test_an_entry_whose_transaction_ends_late_is_sealed_late(
    sessions: Sessions, signer: LedgerSigner
) -> None:
    with sessions() as late:
        ledger.append(late, [Entry(Event.JUDGED, "slow")])
        append(sessions, 5)
        seal(sessions, signer)
        assert check_tree_of_committed(sessions) == 6
        late.commit()
    assert seal(sessions, signer) is not None
    assert check_tree(sessions) == [6, 7]
    with sessions.begin() as session:
        last = select(LedgerEntry).join(SealedEntry, SealedEntry.entry_id == LedgerEntry.id)
        entries = session.scalars(last.order_by(SealedEntry.position)).all()
    assert entries[-1].actor == "slow"
    assert entries[-1].id < entries[-2].id


def check_tree_of_committed(sessions: Sessions) -> int:
    """How much is sealed while others are still writing."""
    return len(sealed_leaves(sessions))


def test_two_sealers_at_once_give_each_place_once(sessions: Sessions, signer: LedgerSigner) -> None:
    append(sessions, 400)

    def work(_: int) -> int:
        sealed = 0
        while seal(sessions, signer, limit=20):
            sealed += 1
        return sealed

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == 21
    assert check_tree(sessions) == [*range(20, 401, 20), 401]


def test_sealing_goes_on_beside_writing(sessions: Sessions, signer: LedgerSigner) -> None:
    def write(_: int) -> None:
        for _ in range(20):
            append(sessions, 5)

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, i) for i in range(3)]
        while not all(w.done() for w in writing):
            seal(sessions, signer)
    while seal(sessions, signer):
        pass
    assert check_tree(sessions)[-1] == 301


def keep_sealing(database_url: str, key: Path) -> None:
    """A process that does nothing else, a few entries at a time."""
    engine = connect(database_url)
    sessions = sessions_of(engine)
    signer = signer_of(sessions, Settings(ledger_key=key))
    while True:
        seal(sessions, signer, limit=7)


def test_a_killed_sealer_leaves_all_or_nothing(
    database_url: str, sessions: Sessions, settings: Settings, signer: LedgerSigner
) -> None:
    chance = random.Random(5)
    append(sessions, 3_000)
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for _ in range(KILLS):
        before = count(sessions, SealedEntry)
        sealer = processes.Process(target=keep_sealing, args=(database_url, settings.ledger_key_at))
        sealer.start()
        deadline = time.monotonic() + PATIENCE
        while count(sessions, SealedEntry) == before:
            assert time.monotonic() < deadline
        time.sleep(chance.uniform(0, 0.1))
        sealer.kill()
        sealer.join()
        assert before < len(sealed_leaves(sessions)) < 3_001, "killed in the midst"
    while seal(sessions, signer):
        pass
    assert check_tree(sessions)[-1] == 3_001


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["UPDATE ledger_tiles SET hashes = set_bit(hashes, 9, 1 - get_bit(hashes, 9))"], "root"),
        (["UPDATE ledger_tiles SET hashes = substr(hashes, 1, 64)"], "lacks hash 2"),
        (["DELETE FROM ledger_tiles"], "lacks hash 0"),
        (["UPDATE ledger_checkpoints SET size = 4"], "over 4 entries"),
        (["UPDATE ledger_checkpoints SET note = replace(note, '/test\n5', '/test\n6')"], "wrong"),
        (["DELETE FROM ledger_checkpoints"], "over 0 entries"),
        (["DELETE FROM ledger_sealed WHERE position = 4"], "has place 3"),
        (["INSERT INTO ledger_unsealed SELECT max(entry_id) FROM ledger_sealed"], "by hand"),
    ],
)
def test_nothing_is_signed_over_a_broken_tree(
    sessions: Sessions, owner: Engine, signer: LedgerSigner, statements: list[str], said: str
) -> None:
    append(sessions, 4)
    seal(sessions, signer)
    append(sessions, 2)
    change(owner, *statements)
    with pytest.raises(BrokenLedger, match=said):
        seal(sessions, signer)
    assert count(sessions, UnsealedEntry) >= 2


def test_nothing_is_signed_over_another_keys_tree(
    sessions: Sessions, owner: Engine, signer: LedgerSigner, tmp_path: Path
) -> None:
    append(sessions, 4)
    seal(sessions, signer)
    forger = Settings(data_dir=tmp_path / "forger", ledger_name="log.example/test")
    change(owner, "DELETE FROM ledger_signers")
    append(sessions, 4)
    with pytest.raises(BrokenLedger, match="No known key signed"):
        seal(sessions, signer_of(sessions, forger))


def hand_over(sessions: Sessions, vkey: object) -> None:
    """Write down that another key signs from now on."""
    with sessions.begin() as session:
        ledger.append(session, [Entry(Event.SIGNER_ADDED, "service", details={"vkey": vkey})])


def test_no_strange_key_is_vouched_for(
    sessions: Sessions, owner: Engine, signer: LedgerSigner
) -> None:
    seal(sessions, signer)
    hand_over(sessions, SigningKey.new(signer.name).vkey)
    with pytest.raises(BrokenLedger, match="says that another key signs from now on"):
        seal(sessions, signer)
    change(
        owner,
        "INSERT INTO ledger_signers (vkey, entry_id) "
        "SELECT details ->> 'vkey', entry_id FROM ledger_payloads ORDER BY entry_id DESC LIMIT 1",
    )
    with pytest.raises(BrokenLedger, match="not one that is kept here: nothing was signed"):
        seal(sessions, signer)
    assert check_tree_of_committed(sessions) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger_payloads",
        "DELETE FROM ledger_signers",
        "UPDATE ledger_payloads SET salt = sha256('x')",
        "UPDATE ledger SET commitment = sha256('x')",
    ],
)
def test_a_damaged_hand_over_is_not_signed(
    sessions: Sessions, owner: Engine, signer: LedgerSigner, statement: str
) -> None:
    change(owner, statement)
    with pytest.raises(BrokenLedger, match="Entry 1 says that another key signs"):
        seal(sessions, signer)


def test_a_key_takes_over_once(sessions: Sessions, signer: LedgerSigner) -> None:
    seal(sessions, signer)
    hand_over(sessions, signer.vkey)
    with pytest.raises(BrokenLedger, match="says that another key signs from now on"):
        seal(sessions, signer)


def test_a_checkpoint_is_kept_with_its_time(sessions: Sessions, signer: LedgerSigner) -> None:
    seal(sessions, signer)
    with sessions.begin() as session:
        stored = session.scalars(select(StoredCheckpoint)).one()
        assert stored.at is not None
        assert stored.published_at is None
