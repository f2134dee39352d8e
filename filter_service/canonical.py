"""Canonical JSON: the one text in which a value is written, so that its digest is unique."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode  # made once: a ledger is verified by a million of these


def canonical(value: Any) -> str:  # noqa: ANN401  (whatever JSON can hold)
    """JSON with sorted keys and no space; ValueError for NaN and infinities.

    It is what digests and commitments are taken of, and what the database stores of every value,
    so that `json` columns hold the very text that was committed to.
    """
    return _encode(value)


def stamp(at: datetime) -> str:
    """A moment to the microsecond, in UTC, always as long: 2026-01-31T23:59:59.000000Z."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def text_digest(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return sha256(text.encode()).hexdigest()


def is_digest_of(digest: object, text: str) -> bool:
    """Whether a SHA-256 is that of a text, or of the canonical text of the JSON in it.

    The first release kept explanations as content, and told the digest of its canonical text.
    """
    if digest == text_digest(text):
        return True
    try:
        content = canonical(json.loads(text))
    except (RecursionError, ValueError):  # nothing that the service wrote
        return False
    return digest == text_digest(content)
