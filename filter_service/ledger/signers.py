"""The keys that sign checkpoints: creation, rotation, and which key signs which size.

The rule by which a checkpoint's signatures are judged:

- The first key signs from the beginning.
- A later key signs from the first checkpoint whose tree has the entry `signer added` of that key.
  That one checkpoint is signed by the key before it, too: so whoever trusts one key can trust the
  next, and a key that only the database's owner knows of cannot take over: no checkpoint is signed
  whose tree has such an entry of a key whose file is not here.
- Every key that ever signed stays known, and is good for the sizes at which it did.

`who_signs` is this rule; sealing follows it and verifying checks it.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import SealedEntry
from filter_service.db.tables import StoredSigner as Row
from filter_service.errors import InvalidRequest, InvalidSettings
from filter_service.ledger.entries import Entry, Event, append
from filter_service.ledger.notes import SigningKey
from filter_service.settings import Settings
from filter_service.storage import durable

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('filter_service.ledger.signers'))")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that signs or did."""

    vkey: str
    since: int  # leaves before its entry `signer added`; 0 for the first key


@dataclass(frozen=True, slots=True)
class LedgerSigner:
    """The key that signs, and those that still have to sign that another takes over."""

    key: SigningKey
    before: tuple[SigningKey, ...] = ()

    @property
    def name(self) -> str:
        """The log's name: the origin of its checkpoints."""
        return self.key.name

    @property
    def vkey(self) -> str:
        """What an auditor needs to check signatures."""
        return self.key.vkey

    def keys(self, vkeys: Iterable[str]) -> list[SigningKey]:
        """These keys' secret halves; InvalidSettings where one is not at hand."""
        at_hand = {key.vkey: key for key in (*self.before, self.key)}
        try:
            return [at_hand[vkey] for vkey in vkeys]
        except KeyError as error:
            raise InvalidSettings(
                f"The next checkpoint has to be signed by {error.args[0]}, too, whose file is "
                "not beside FILTER_SERVICE_LEDGER_KEY: put it back there from a backup."
            ) from error


def who_signs(keys: Sequence[KnownKey], before: int, size: int) -> list[str]:
    """Which keys sign the checkpoint of a size, the one before it being of size `before`.

    Keys come oldest first. More than one signs where a key takes over.
    """
    first, *later = keys
    signing = [first, *(key for key in later if key.since < before)][-1]
    return [signing.vkey, *(key.vkey for key in later if before <= key.since < size)]


def known(session: Session) -> list[KnownKey]:
    """The first key and every other whose entry is sealed, oldest first."""
    rows = session.execute(
        select(Row.vkey, SealedEntry.position)
        .outerjoin(SealedEntry, SealedEntry.entry_id == Row.entry_id)
        .order_by(Row.id)
    ).all()
    later = [KnownKey(vkey, position) for vkey, position in rows[1:] if position is not None]
    return [KnownKey(vkey, 0) for vkey, _ in rows[:1]] + later


def signer_of(sessions: Sessions, settings: Settings) -> LedgerSigner:
    """The key in the file, a random one on first use; a key that is new here is written down.

    Raises InvalidSettings when the file cannot be what signs this ledger.
    """
    with sessions.begin() as session:
        session.execute(_LOCK)
        return _signer(session, settings)


def rotate(sessions: Sessions, settings: Settings) -> LedgerSigner:
    """Let a new random key take over; the old one's file stays until the hand-over is signed."""
    path = settings.ledger_key_at
    with sessions.begin() as session:
        session.execute(_LOCK)
        old = _signer(session, settings).key
        # Whenever this is cut short, the next look at the files finds the new key and its heir.
        _write(_kept(path, old), old)
        _write(path, SigningKey.new(old.name))
        return _signer(session, settings)


def _signer(session: Session, settings: Settings) -> LedgerSigner:
    path = settings.ledger_key_at
    vkeys = list(session.scalars(select(Row.vkey).order_by(Row.id)))
    if not path.exists():
        if vkeys:
            raise InvalidSettings(
                f"The key file {path} is missing, and this ledger is signed by {vkeys[-1]}: put "
                "the file back from a backup, or set FILTER_SERVICE_LEDGER_KEY to where it is."
            )
        _write(path, SigningKey.new(settings.ledger_name or _some_name()))
    key = _read(path, settings.ledger_name)
    before = _at_hand(path, settings.ledger_name)
    if key.vkey not in vkeys:
        if vkeys and vkeys[-1] not in (k.vkey for k in before):
            raise _another(path, key, vkeys[-1])
        _write_down(session, key, vkeys[-1] if vkeys else None)
    elif key.vkey != vkeys[-1]:
        raise _another(path, key, vkeys[-1])
    return LedgerSigner(key, _still_needed(session, path, before))


def _write_down(session: Session, key: SigningKey, before: str | None) -> None:
    details = {"vkey": key.vkey, "before": before}
    append(session, [Entry(Event.SIGNER_ADDED, "service", details=details)])
    entry_id = session.scalar(select(func.currval("ledger_id_seq")))
    session.add(Row(vkey=key.vkey, entry_id=entry_id))
    session.flush()


def _still_needed(
    session: Session, path: Path, before: Sequence[SigningKey]
) -> tuple[SigningKey, ...]:
    """Older keys whose hand-over is not sealed; the files of the others go."""
    vkeys = list(session.scalars(select(Row.vkey).order_by(Row.id)))
    sealed = [key.vkey for key in known(session)]
    over = vkeys[: vkeys.index(sealed[-1])]
    for key in before:
        if key.vkey in over:
            _kept(path, key).unlink(missing_ok=True)
    return tuple(key for key in before if key.vkey in vkeys and key.vkey not in over)


def _at_hand(path: Path, name: str | None) -> list[SigningKey]:
    kept = sorted(path.parent.glob(f"{path.name}.{'[0-9a-f]' * 8}"))
    return [_read(file, name) for file in kept]


def _read(path: Path, name: str | None) -> SigningKey:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise InvalidSettings(
                f"The key file {path} is open to others (mode {mode & 0o777:o}): whoever read it "
                f"can sign in your name. Do `chmod 600 {path}`, and let a new key take over if "
                "anybody may have."
            )
        key = SigningKey.of(path.read_text().strip())
    except (OSError, UnicodeDecodeError, InvalidRequest) as error:
        raise InvalidSettings(
            f"The key file {path} cannot be read ({error}): put it back from a backup."
        ) from error
    if name is not None and key.name != name:
        raise InvalidSettings(
            f"FILTER_SERVICE_LEDGER_NAME={name!r}, but the key in {path} is of {key.name!r}: a "
            "log keeps its name. Set it back, or name another file and an empty database."
        )
    return key


def _write(path: Path, key: SigningKey) -> None:
    """Write to a file that only we may read, and rename it there whole."""
    try:
        durable.make_folder(path.parent)
        with durable.written(path, mode=0o600) as file:
            file.write(f"{key.skey}\n".encode())
    except OSError as error:
        raise InvalidSettings(
            f"The key file {path} cannot be written ({error}): set FILTER_SERVICE_LEDGER_KEY to "
            "a file in a folder of this account."
        ) from error


def _kept(path: Path, key: SigningKey) -> Path:
    return path.with_name(f"{path.name}.{key.verifying.id.hex()}")


def _some_name() -> str:
    return f"filter-service.local/{secrets.token_hex(4)}"


def _another(path: Path, key: SigningKey, signs: str) -> InvalidSettings:
    return InvalidSettings(
        f"The key in {path} is {key.vkey}, but this ledger is signed by {signs}: put that key's "
        "file back from a backup, or set FILTER_SERVICE_LEDGER_KEY to where it is."
    )
