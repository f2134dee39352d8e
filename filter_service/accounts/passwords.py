"""Generates, checks, hashes and verifies passwords."""

import secrets
from functools import cache
from threading import BoundedSemaphore

from pwdlib import PasswordHash

from filter_service.errors import InvalidRequest

SHORTEST, LONGEST = 12, 1000

_hashes = PasswordHash.recommended()
_turns = BoundedSemaphore(4)  # each takes 64 MiB while it runs


def generate() -> str:
    """A password that nobody has to invent: 120 random bits."""
    return secrets.token_urlsafe(15)


def new(password: str, login: str) -> str:
    """The hash of a new password; raises InvalidRequest for one that is easily guessed."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidRequest(
            f"The password has {len(password)} letters: give {SHORTEST} to {LONGEST}, "
            "several words for example."
        )
    if len(set(password)) < 5 or password.lower() == login:
        raise InvalidRequest("The password is easily guessed: give several words for example.")
    with _turns:
        return _hashes.hash(password)


def verify(password: str, hashed: str | None) -> tuple[bool, str | None]:
    """Whether it is the password, and its hash if today's parameters ask for a new one.

    It takes as long where there is no hash, so that nobody learns who works here.
    """
    attempt = password[: LONGEST + 1]
    with _turns:
        if hashed is None:
            _hashes.verify(attempt, _nobodys())
            return False, None
        return _hashes.verify_and_update(attempt, hashed)


@cache
def _nobodys() -> str:
    return _hashes.hash(secrets.token_urlsafe())
