"""The keys that sign: the file, what is refused of it, and how one key hands over to the next."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry, StoredCheckpoint
from filter_service.errors import InvalidSettings
from filter_service.ledger import Event
from filter_service.ledger.checkpoints import open_checkpoint
from filter_service.ledger.notes import SigningKey
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import KnownKey, known, rotate, signer_of, who_signs
from filter_service.settings import Settings
from tests.support.ledger_entries import append, check_tree


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def added(sessions: Sessions) -> list[dict[str, str | None]]:
    """What the ledger says of keys."""
    entries = select(LedgerEntry).where(LedgerEntry.event == Event.SIGNER_ADDED)
    with sessions.begin() as session:
        return [e.details for e in session.scalars(entries.order_by(LedgerEntry.id))]


def signed_by(sessions: Sessions) -> list[list[str]]:
    """Who signed each checkpoint."""
    with sessions.begin() as session:
        vkeys = [key.vkey for key in known(session)]
        notes = session.scalars(select(StoredCheckpoint.note).order_by(StoredCheckpoint.size))
        return [list(open_checkpoint(note, vkeys)[1].verified) for note in notes]


def test_the_first_use_makes_a_key_that_only_we_may_read(
    sessions: Sessions, settings: Settings
) -> None:
    signer = signer_of(sessions, settings)
    assert signer.name.startswith("filter-service.local/")
    assert settings.ledger_key_at.stat().st_mode & 0o777 == 0o600
    assert SigningKey.of(settings.ledger_key_at.read_text().strip()) == signer.key
    assert added(sessions) == [{"vkey": signer.vkey, "before": None}]


def test_the_key_stays_and_is_written_down_once(sessions: Sessions, settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: signer_of(sessions, settings), range(8)))
    assert len(found) == 1
    assert len(added(sessions)) == 1


def test_the_log_has_the_name_that_is_set(sessions: Sessions, tmp_path: Path) -> None:
    named = Settings(data_dir=tmp_path, ledger_name="log.example/a")
    assert signer_of(sessions, named).name == "log.example/a"
    with pytest.raises(InvalidSettings, match="a log keeps its name"):
        signer_of(sessions, named.model_copy(update={"ledger_name": "log.example/b"}))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_may_touch_is_refused(
    sessions: Sessions, settings: Settings, mode: int
) -> None:
    signer_of(sessions, settings)
    settings.ledger_key_at.chmod(mode)
    with pytest.raises(InvalidSettings, match="is open to others"):
        signer_of(sessions, settings)


def test_a_damaged_key_is_refused_and_not_told(sessions: Sessions, settings: Settings) -> None:
    secret = signer_of(sessions, settings).key.skey
    settings.ledger_key_at.write_text(secret[:-3] + "AAA")
    with pytest.raises(InvalidSettings, match=r"ledger\.key cannot be read") as refused:
        signer_of(sessions, settings)
    assert secret[-40:-3] not in str(refused.value)


def test_a_lost_key_is_not_replaced_in_silence(sessions: Sessions, settings: Settings) -> None:
    signer_of(sessions, settings)
    settings.ledger_key_at.unlink()
    with pytest.raises(InvalidSettings, match="is missing, and this ledger is signed by"):
        signer_of(sessions, settings)
    assert not settings.ledger_key_at.exists()


def test_another_key_is_refused(sessions: Sessions, settings: Settings) -> None:
    name = signer_of(sessions, settings).name
    settings.ledger_key_at.write_text(SigningKey.new(name).skey)
    with pytest.raises(InvalidSettings, match="but this ledger is signed by"):
        signer_of(sessions, settings)


def test_both_keys_sign_the_hand_over(sessions: Sessions, settings: Settings) -> None:
    old = signer_of(sessions, settings)
    seal(sessions, old)
    new = rotate(sessions, settings)
    assert new.name == old.name
    assert added(sessions)[1] == {"vkey": new.vkey, "before": old.vkey}
    append(sessions, 3)
    seal(sessions, signer_of(sessions, settings))
    append(sessions, 3)
    seal(sessions, signer_of(sessions, settings))
    assert signed_by(sessions) == [[old.vkey], [old.vkey, new.vkey], [new.vkey]]
    assert check_tree(sessions) == [1, 5, 8]


def test_the_old_key_signs_until_its_hand_over_is_sealed(
    sessions: Sessions, settings: Settings
) -> None:
    old = signer_of(sessions, settings)
    append(sessions, 3)
    new = rotate(sessions, settings)
    append(sessions, 3)
    while seal(sessions, signer_of(sessions, settings), limit=2):
        pass
    one, both = [old.vkey], [old.vkey, new.vkey]
    assert signed_by(sessions) == [one, one, both, [new.vkey]]
    assert check_tree(sessions) == [2, 4, 6, 8]


def test_the_old_file_goes_once_the_hand_over_is_signed(
    sessions: Sessions, settings: Settings
) -> None:
    old = signer_of(sessions, settings)
    seal(sessions, old)
    signer = rotate(sessions, settings)
    kept = settings.ledger_key_at.with_name(f"ledger.key.{old.key.verifying.id.hex()}")
    assert kept.stat().st_mode & 0o777 == 0o600
    seal(sessions, signer)
    assert signer_of(sessions, settings).before == ()
    assert not kept.exists()


def test_two_hand_overs_at_once_are_signed_by_all(sessions: Sessions, settings: Settings) -> None:
    signers = [signer_of(sessions, settings)]
    seal(sessions, signers[0])
    signers += [rotate(sessions, settings), rotate(sessions, settings)]
    seal(sessions, signers[-1])
    assert signed_by(sessions)[-1] == [signer.vkey for signer in signers]
    assert check_tree(sessions) == [1, 3]


def test_no_hand_over_without_the_old_key(sessions: Sessions, settings: Settings) -> None:
    old = signer_of(sessions, settings)
    seal(sessions, old)
    rotate(sessions, settings)
    settings.ledger_key_at.with_name(f"ledger.key.{old.key.verifying.id.hex()}").unlink()
    with pytest.raises(InvalidSettings, match="has to be signed by"):
        seal(sessions, signer_of(sessions, settings))


def test_a_hand_over_that_was_cut_short_is_taken_up_again(
    sessions: Sessions, settings: Settings
) -> None:
    old = signer_of(sessions, settings)
    seal(sessions, old)
    path = settings.ledger_key_at
    kept = path.with_name(f"ledger.key.{old.key.verifying.id.hex()}")
    path.rename(kept)  # as if the process had died before its transaction ended
    new = SigningKey.new(old.name)
    path.write_text(new.skey)
    path.chmod(0o600)
    seal(sessions, signer_of(sessions, settings))
    assert added(sessions)[1] == {"vkey": new.vkey, "before": old.vkey}
    assert signed_by(sessions)[-1] == [old.vkey, new.vkey]


def test_who_signs_follows_from_the_entries() -> None:
    keys = [KnownKey("a", 0), KnownKey("b", 10), KnownKey("c", 12)]
    assert who_signs(keys[:1], 0, 5) == ["a"]
    assert who_signs(keys, 0, 5) == ["a"]
    assert who_signs(keys, 5, 10) == ["a"]
    assert who_signs(keys, 5, 11) == ["a", "b"]
    assert who_signs(keys, 10, 11) == ["a", "b"]
    assert who_signs(keys, 11, 12) == ["b"]
    assert who_signs(keys, 11, 13) == ["b", "c"]
    assert who_signs(keys, 5, 20) == ["a", "b", "c"]
    assert who_signs(keys, 13, 20) == ["c"]
