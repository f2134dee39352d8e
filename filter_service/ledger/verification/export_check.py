"""Verifies an exported ledger file, byte by byte and without a database."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from filter_service.canonical import canonical
from filter_service.errors import BrokenLedger, InvalidRequest
from filter_service.ledger.codec import Payload, leaf_of
from filter_service.ledger.entries import Event
from filter_service.ledger.export import FORMAT
from filter_service.ledger.merkle import Frontier, leaf_hash
from filter_service.ledger.verification.checks import IN_EXPORTS, given
from filter_service.ledger.verification.erased_payloads import Erasures
from filter_service.ledger.verification.keys import Keys
from filter_service.ledger.verification.trusted_checkpoints import TrustedCheckpoints
from filter_service.ledger.verification.verification_report import (
    Faults,
    VerificationReport,
    unproven,
)

LONGEST = 64 * 2**20  # bytes of a line; an entry has some hundred


def verify_export(
    path: Path,
    vkeys: Sequence[str] = (),
    witnesses: Sequence[str] = (),
    tell: Callable[[int, int], object] = lambda done, all_: None,
    kept: Sequence[Path] = (),
) -> VerificationReport:
    """Look at every byte of a file that `write_export` made.

    `vkeys` are the keys of the log as whoever checks knows them; without any, those are believed
    that the file names. `kept` are files with checkpoints that they kept. `tell` hears how many
    bytes of how many are done.
    """
    look = _Look(vkeys, witnesses, TrustedCheckpoints(kept))
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            while line := file.readline(LONGEST):
                look.at(line)
                if look.number % 4096 == 0:
                    tell(file.tell(), size)
            tell(size, size)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error}): give an export.") from error
    return look.report()


class _Look:
    def __init__(
        self, vkeys: Sequence[str], witnesses: Sequence[str], kept: TrustedCheckpoints
    ) -> None:
        self.number = 0  # of the line that is looked at
        self._given, self._witnesses = list(vkeys), list(witnesses)
        self._keys = Keys(None, self._given, self._witnesses)
        self._kept = kept
        self._faults = Faults()
        self._erasures = Erasures()
        self._digest = sha256()
        self._tree = Frontier()
        self._size = 0  # that the header promises
        self._signed = 0  # size at the last checkpoint
        self._sealed = self._waiting = self._checkpoints = 0  # so far
        self._lost = False  # a line could not be read: what builds upon it is not told again
        self._ended = False

    def at(self, line: bytes) -> None:
        """Look at the next line."""
        self.number += 1
        try:
            self._read(line)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            self._name(15, f"it was changed, for it is not what an export has there ({error}).")
            self._lost = True
        self._digest.update(line)

    def report(self) -> VerificationReport:
        """What was found, once every line was looked at."""
        self.number += 1
        if not self._ended:
            self._name(15, "there is no digest at the end: the file was cut off.")
        if not self._lost and not self._sealed == self._signed == self._size:
            self._name(
                7,
                f"the header promises {self._size} entries, {self._sealed} are here, and the last "
                f"checkpoint is over {self._signed}: lines were deleted or added.",
            )
        for number, name in self._erasures.unexplained:
            self._faults.add(
                3,
                number,
                f"Line {number}: the payload of {name} is not there, and no entry says that its "
                "item was erased.",
            )
        for sentence in self._kept.beyond(self._tree.size):
            self._faults.add(9, self.number, sentence)
        for sentence in self._keys.absent:
            self._faults.add(10, self.number, sentence)
        lost = {5, 6, 7} if self._lost else set()
        made = given(
            IN_EXPORTS, published=False, kept=self._kept.given, witnesses=bool(self._keys.seen)
        )
        return VerificationReport(
            entries=self._sealed,
            waiting=self._waiting,
            erased=self._erasures.explained,
            checkpoints=self._checkpoints,
            keys=tuple(key.vkey for key in self._keys.chain),
            keys_given=bool(self._given),
            witnesses=self._keys.seen,
            faults=self._faults.first,
            broken=self._faults.count,
            checks=self._faults.results(made - lost),
            warnings=(unproven(self._erasures.unproven),) if self._erasures.unproven else (),
            unproven=self._erasures.unproven,
            kept=self._kept.agreeing,
        )

    def _name(self, check: int, what: str) -> None:
        self._faults.add(check, self.number, f"Line {self.number}: {what}")

    def _read(self, line: bytes) -> None:
        told = json.loads(line)
        if not isinstance(told, dict) or f"{canonical(told)}\n".encode() != line:
            raise ValueError("another form than canonical JSON and a newline")
        if self._ended:
            raise ValueError("nothing follows the digest")
        if self.number == 1:
            self._read_header(told)
        elif told.keys() == {"entry", "hash", "payload", "position"}:
            self._read_sealed(told)
        elif told.keys() == {"checkpoint"}:
            self._read_checkpoint(told["checkpoint"])
        elif told.keys() == {"entry", "payload"}:
            self._waiting += 1
            self._read_payload(told)
        elif told.keys() == {"sha256"}:
            self._read_end(told["sha256"])
        else:
            raise ValueError(f"no line has {', '.join(sorted(told))}")

    def _read_header(self, told: dict[str, Any]) -> None:
        keys = told["keys"]
        origin = keys[0].partition("+")[0] if keys else None
        size = int(told["size"])
        if told != {"format": FORMAT, "keys": keys, "origin": origin, "size": size}:
            raise ValueError("not the header of this format")
        self._size = size
        self._keys = Keys(next(iter(keys), None), self._given, self._witnesses)

    def _read_sealed(self, told: dict[str, Any]) -> None:
        hashed = leaf_hash(leaf_of(told["entry"]))
        if told["position"] != self._sealed or self._waiting:
            if not self._lost:
                self._name(
                    1,
                    f"{_named(told)} is at position {told['position']} where {self._sealed} was to "
                    "come: lines were deleted, added or swapped.",
                )
            self._lost, self._sealed = True, int(told["position"])
        if hashed.hex() != told["hash"]:
            self._name(1, f"{_named(told)} is not what was sealed: its hash is another.")
        for _, sentence in self._kept.grow(self._tree, [bytes.fromhex(told["hash"])]):
            self._name(9, sentence)
        self._sealed += 1
        self._read_payload(told)

    def _read_payload(self, told: dict[str, Any]) -> None:
        entry, given = told["entry"], told["payload"]
        if entry["event"] == Event.ERASED:
            self._erasures.erased(entry, sealed="position" in told)
        if given is None:
            if entry["event"] == Event.ERASED:
                self._name(3, f"the payload of {_named(told)}, which no erasure takes, is gone.")
            else:
                self._erasures.missing(entry, self.number, _named(told))
            return
        payload = Payload.decode(given)
        if not payload.opens(entry["commitment"]):
            self._name(
                2,
                f"the payload of {_named(told)} is not what it committed to: its salt, actor or "
                "details were changed.",
            )
            return
        details = json.loads(payload.details)
        if entry["event"] == Event.SIGNER_ADDED and "position" in told:
            self._keys.learn(details["vkey"], told["position"])

    def _read_checkpoint(self, note: str) -> None:
        before, self._signed = self._signed, self._sealed
        self._checkpoints += 1
        if self._lost:
            return
        try:
            checkpoint = self._keys.open(note, before, self._sealed)
        except BrokenLedger as error:
            self._name(6, str(error))
            return
        if (checkpoint.size, checkpoint.root) != (self._sealed, self._tree.root()):
            self._lost = True
            self._name(
                5,
                f"what is at the positions {before} to {self._sealed - 1} is not what this "
                f"checkpoint of size {checkpoint.size} was signed over.",
            )

    def _read_end(self, digest: str) -> None:
        self._ended = True
        if digest != self._digest.hexdigest():
            self._name(15, "the digest is not that of the lines before: some were changed.")


def _named(told: dict[str, Any]) -> str:
    entry = told["entry"]
    item = "" if entry["item"] is None else f", item {entry['item']}"
    return f"entry {entry['id']} ({entry['event']}{item})"
