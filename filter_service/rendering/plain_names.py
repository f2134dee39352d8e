"""Escapes control and invisible characters in untrusted names."""

import unicodedata

# Control and format characters (directions, zero width), halves of pairs, breaks of lines.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(name: str) -> str:
    """The name with every character that shows nothing, or turns others round, as its escape."""
    if name.isprintable():
        return name
    return "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN else c for c in name)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
