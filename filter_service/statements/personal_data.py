"""Detects personal data in texts that are to be published."""

import ipaddress
import re
from collections.abc import Iterable, Iterator

_SHORTEST_NAME = 3  # letters
_RUN = 4  # words in a row that a user's own text and ours do not share by chance

_PATTERNS = {
    "an address that names somebody": re.compile(
        r"https?://(?:[^\s/@]+@\S+|\S*?/(?:~|@|u/|(?:user|profile|member|people)s?/)\S+)",
        re.IGNORECASE,
    ),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "a handle": re.compile(r"(?<![\w@.])@\w{2,}"),
    "a number that names somebody": re.compile(
        r"(?<![\w-])(?:\d{3}-\d{2}-\d{4}|\d{9,}|(?=(?:[A-Z]*\d){5})[A-Z]{1,3}\d[A-Z\d]{5,10})"
        r"(?![\w-])"
    ),
    "a telephone number": re.compile(
        r"(?<![\w-])(?:\+\d[\d ()/.-]{6,}\d|\(?0\d[\d ()/.-]{6,}\d|\d{3}[ .-]\d{3}[ .-]\d{4})(?!\w)"
    ),
}
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b")
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:]*:[0-9a-f:]*)", re.IGNORECASE
)
_WORD = re.compile(r"\w+")


def found(text: str, ours: Iterable[str] = ()) -> Iterator[str]:
    """What looks like personal data, in words; what we wrote ourselves is not looked at."""
    for known in sorted(ours, key=len, reverse=True):
        text = text.replace(known, " ")
    text = _DATE.sub(" ", text)
    for match in _IBAN.finditer(text):
        if _is_iban(match.group().replace(" ", "")):
            yield f"an account number ({match.group()})"
            text = text.replace(match.group(), " ")
    for match in _ADDRESS.finditer(text):
        if _is_address(match.group()):
            yield f"an IP address ({match.group()})"
            text = text.replace(match.group(), " ")
    for what, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            yield f"{what} ({match.group()})"
        text = pattern.sub(" ", text)


def named(text: str, names: Iterable[str], ours: str) -> Iterator[str]:
    """The names that stand in a text; a word that is ours as well says nothing of anybody."""
    lower, own = _spaced(text), _spaced(ours)
    for name in {_spaced(n) for n in names}:
        if len(name.strip()) >= _SHORTEST_NAME and name in lower and name not in own:
            yield f"a name ({name.strip()})"


def quoted(text: str, theirs: str, ours: str) -> Iterator[str]:
    """What of a user's own text stands in a text, word for word."""
    words, lower, own = _spaced(theirs).split(), _spaced(text), _spaced(ours)
    for start in range(len(words) - _RUN + 1):
        run = f" {' '.join(words[start : start + _RUN])} "
        if run in lower and run not in own:
            yield f"words of a user ({run.strip()})"
            return


def _spaced(text: str) -> str:
    """The words of a text, in lower case, with a blank around each."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _is_iban(code: str) -> bool:
    """By its check digits (ISO 13616)."""
    turned = code[4:] + code[:4]
    return 15 <= len(code) <= 34 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.rstrip(":"))
    except ValueError:
        return False
    return len(text) > 4
