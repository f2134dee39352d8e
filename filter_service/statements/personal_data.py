"""Detects personal data in texts that are to be published.

Check digits and countries' ways to write a telephone number are libraries' knowledge. What looks
like such a number and is not quite right names somebody as well, so shapes are refused, too.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from types import ModuleType

from phonenumbers import Leniency, PhoneNumberMatcher
from stdnum import iban, luhn
from stdnum.at import vnr
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.ch import ssn as ahv
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.ee import ik
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gr import amka
from stdnum.hr import oib
from stdnum.ie import pps
from stdnum.is_ import kennitala
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import cc
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.si import emso

from filter_service.policy.statement_grounds import EEA

_SHORTEST_NAME = 3  # letters
_RUN = 4  # words in a row that a user's own text and ours do not share by chance

_PEOPLE: tuple[ModuleType, ...] = (
    *(vnr, nn, egn, ahv, rc, idnr, cpr, ik, dni, nie, hetu, nir, amka, oib, pps, kennitala),
    *(codicefiscale, bsn, fodselsnummer, pesel, cc, cnp, personnummer, emso),
)
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
_GROUPED = re.compile(r"(?<![\w.,-])(?=[A-Z ]*\d)[A-Z\d]+(?:[ ./-][A-Z\d]+)*(?![\w-])")
_NATIONAL = re.compile(r"(?<![\w.,/-])(?!\d+(?: \d+)* 000\b)\d{2,4}(?:[ -]\d{2,4}){2,4}(?![\w/-])")
_LETTERS_AROUND = re.compile(r"^(?:[A-Z]+[ ./-])+|(?:[ ./-][A-Z]+)+$")
_CARD = re.compile(r"[3-6]\d{12,18}")
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:]*:[0-9a-f:]*)", re.IGNORECASE
)
_WORD = re.compile(r"\w+")


def find_personal_data(text: str, ours: Iterable[str] = ()) -> Iterator[str]:
    """What looks like personal data, in words; what we wrote ourselves is not looked at."""
    for known in sorted(ours, key=len, reverse=True):
        text = text.replace(known, " ")
    text = _DATE.sub(" ", text)
    for what, number in list(_numbers(text)):
        if number not in text:  # part of one that was told of
            continue
        yield f"{what} ({number})"
        text = text.replace(number, " ")
    for match in _ADDRESS.finditer(text):
        if _is_address(match.group()):
            yield f"an IP address ({match.group()})"
            text = text.replace(match.group(), " ")
    for what, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            yield f"{what} ({match.group()})"
        text = pattern.sub(" ", text)
    for match in _NATIONAL.finditer(text):
        if _is_telephone_number(match.group()):
            yield f"a telephone number ({match.group()})"


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


def _numbers(text: str) -> Iterator[tuple[str, str]]:
    """Numbers whose check digits are right, and what each is."""
    for match in _IBAN.finditer(text):
        if iban.is_valid(match.group()):
            yield "an account number", match.group()
    for run in _GROUPED.findall(text):
        bare = _LETTERS_AROUND.sub("", run)  # the words beside it may be in capitals, too
        for number in dict.fromkeys([run, bare, *run.split()]):
            if what := _kind(number):
                yield what, number
                break


def _kind(number: str) -> str | None:
    """Of a number, by its check digits."""
    compact = re.sub(r"[ ./-]", "", number)
    if not 8 <= len(compact) <= 19 or re.fullmatch(r"\d{8}", compact):  # eight digits are a day
        return None
    if _CARD.fullmatch(compact) and luhn.is_valid(compact):
        return "a card number"
    if any(country.is_valid(number) for country in _PEOPLE):
        return "a number that names somebody"
    return None


def _is_telephone_number(text: str) -> bool:
    """Whether some country of the EEA writes one so: nearly any digits are one's somewhere."""
    digits = sum(c.isdigit() for c in text)
    return digits >= 8 and any(
        match.raw_string == text
        for country in EEA
        for match in PhoneNumberMatcher(text, country, leniency=Leniency.EXACT_GROUPING)
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.rstrip(":"))
    except ValueError:
        return False
    return len(text) > 4
