"""Error messages for unknown names, with the most similar known one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known word that is spelt most alike; None where nothing is known."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)), None)


def unknown(name: str, known: Iterable[str], what: str = "field") -> str:
    """That there is no such word here, and which there are."""
    words = list(known)
    meant = nearest(name, words)
    if meant is None:
        return f"{name[:80]!r} is no {what} here: there is none at all"
    return f"{name[:80]!r} is no {what} here; the nearest is {meant!r}, all are {', '.join(words)}"
