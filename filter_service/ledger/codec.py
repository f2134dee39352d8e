"""Encodes the bytes on which every proof rests: an entry's payload, its commitment, its leaf.

Whoever appends, seals, exports, proves, verifies or shows an entry has these bytes from here. They
are a promise: what was sealed years ago is checked by the lines that seal today.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, Self
from uuid import UUID

from filter_service.canonical import canonical

SALT = 32  # bytes: as many as the digest, so that nobody can guess what was erased
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # Postgres counts its microseconds from here


class Payload(NamedTuple):
    """What an entry says and can lose: who did it, the details, and the salt of the commitment."""

    actor: str
    details: str  # a JSON object, as the database holds it to the letter
    salt: bytes

    @classmethod
    def of(cls, actor: str, details: Mapping[str, Any], salt: bytes) -> Self:
        """What is to be said; a new entry takes a salt that nobody can guess."""
        return cls(actor, canonical(details), salt)

    @classmethod
    def decode(cls, document: Mapping[str, Any]) -> Self:
        """One that was written down; a KeyError, TypeError or ValueError where it is none."""
        actor, details = document["actor"], document["details"]
        if not isinstance(actor, str) or not isinstance(details, str):
            raise TypeError("actor and details are texts")
        return cls(actor, details, bytes.fromhex(document["salt"]))

    @property
    def document(self) -> dict[str, str]:
        """To be written down beside its entry."""
        return {"actor": self.actor, "details": self.details, "salt": self.salt.hex()}

    @property
    def text(self) -> str:
        """What an entry commits to, without the salt."""
        return f'{{"actor":{_quoted(self.actor)},"details":{self.details}}}'

    @property
    def commitment(self) -> bytes:
        """SHA-256 over salt and text: once both are erased it says nothing about either."""
        return sha256(self.salt + self.text.encode()).digest()

    @property
    def is_unambiguous(self) -> bool:
        """Whether its text can be read in one way only, and no part of it passes for salt."""
        return len(self.salt) == SALT and isinstance(json.loads(self.details), dict)

    def opens(self, commitment: str) -> bool:
        """Whether an entry with this commitment, in hex, committed to this payload."""
        return len(self.salt) == SALT and self.commitment.hex() == commitment


def leaf(
    entry_id: int,
    at: datetime | int,
    event: str | None,
    item_id: int | None,
    batch_id: UUID | str | None,
    commitment: bytes,
) -> bytes:
    """The bytes of an entry that the tree is built over: canonical JSON of every column.

    `at` may be given in microseconds since `EPOCH`. No dictionary is made on the way: a ledger is
    verified by a million of these.
    """
    since = at if isinstance(at, int) else (at - EPOCH) // timedelta(microseconds=1)
    batch = "null" if batch_id is None else f'"{batch_id}"'
    item = "null" if item_id is None else item_id
    return (
        f'{{"at":"{_stamp(since)}","batch":{batch},"commitment":"{commitment.hex()}",'
        f'"event":{_quoted(event)},"id":{entry_id},"item":{item}}}'
    ).encode()


def leaf_of(entry: Mapping[str, Any]) -> bytes:
    """The leaf of an entry that was written down."""
    return canonical(entry).encode()


def document(leaf: bytes, payload: Payload | None) -> dict[str, Any]:
    """An entry, written down as exports and proofs have it; the payload may be erased."""
    return {"entry": json.loads(leaf), "payload": payload and payload.document}


def _stamp(since: int) -> str:
    """To the microsecond, in UTC, always as long: 2026-01-31T23:59:59.000000Z."""
    seconds, rest = divmod(since, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(1024)
def _second(seconds: int) -> str:
    try:
        return (EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")
    except OverflowError:  # 'infinity', say: nothing that was ever sealed
        return f"{seconds} seconds after 2000"


@lru_cache(4096)
def _quoted(text: str | None) -> str:
    return canonical(text)
