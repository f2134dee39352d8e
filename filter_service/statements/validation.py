"""Validates statements against the rules of the DSA Transparency Database (version 2).

They are those of the database, and some of its documentation's that it does not enforce itself:
what would be ignored there, or contradicts itself, is refused here.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from filter_service.policy.spelling import nearest
from filter_service.policy.statement_grounds import (
    EEA,
    EVERY_KEYWORD,
    Account,
    Automation,
    Category,
    Ground,
    Monetary,
    NoticeSource,
    Provision,
    Visibility,
    keyword_code,
)
from filter_service.statements import personal_data

AT_ONCE = 100  # statements of one file
LATEST = date(2038, 1, 1)
YES_OR_NO = frozenset({"Yes", "No"})
CONTENT_TYPES = frozenset(
    f"CONTENT_TYPE_{t}"
    for t in ("APP", "AUDIO", "IMAGE", "OTHER", "PRODUCT", "SYNTHETIC_MEDIA", "TEXT", "VIDEO")
)
_LANGUAGES = """
AA AB AE AF AK AM AN AR AS AV AY AZ BA BE BG BH BI BM BN BO BR BS CA CE CH CO CR CS CU CV CY DA DE
DV DZ EE EL EN EO ES ET EU FA FF FI FJ FO FR FY GA GD GL GN GU GV HA HE HI HO HR HT HU HY HZ IA ID
IE IG II IK IO IS IT IU JA JV KA KG KI KJ KK KL KM KN KO KR KS KU KV KW KY LA LB LG LI LN LO LT LU
LV MG MH MI MK ML MN MR MS MT MY NA NB ND NE NG NL NN NO NR NV NY OC OJ OM OR OS PA PI PL PS PT QU
RM RN RO RU RW SA SC SD SE SG SI SK SL SM SN SO SQ SR SS ST SU SV SW TA TE TG TH TI TK TL TN TO TR
TS TT TW TY UG UK UR UZ VE VI VO WA WO XH YI YO ZA ZH ZU
"""
ONE_OF: dict[str, frozenset[str]] = {
    "decision_monetary": Monetary.codes(),
    "decision_provision": Provision.codes(),
    "decision_account": Account.codes(),
    "account_type": frozenset({"ACCOUNT_TYPE_BUSINESS", "ACCOUNT_TYPE_PRIVATE"}),
    "decision_ground": Ground.codes(),
    "incompatible_content_illegal": YES_OR_NO,
    "category": Category.codes(),
    "content_language": frozenset(_LANGUAGES.split()),
    "source_type": NoticeSource.codes(),
    "automated_detection": YES_OR_NO,
    "automated_decision": Automation.codes(),
}
LISTS: dict[str, frozenset[str]] = {
    "decision_visibility": Visibility.codes(),
    "category_addition": Category.codes(),
    "category_specification": frozenset(map(keyword_code, EVERY_KEYWORD)),
    "content_type": CONTENT_TYPES,
    "territorial_scope": frozenset(EEA),
}
LONGEST: dict[str, int] = {
    "puid": 500,
    "decision_visibility_other": 500,
    "decision_monetary_other": 500,
    "content_type_other": 500,
    "category_specification_other": 500,
    "illegal_content_legal_ground": 500,
    "illegal_content_explanation": 2_000,
    "incompatible_content_ground": 500,
    "incompatible_content_explanation": 2_000,
    "decision_ground_reference_url": 500,
    "decision_facts": 5_000,
    "source_identity": 500,
}
ENDS = {  # of each restriction, by what it restricts
    "end_date_visibility_restriction": "decision_visibility",
    "end_date_monetary_restriction": "decision_monetary",
    "end_date_service_restriction": "decision_provision",
    "end_date_account_restriction": "decision_account",
}
EARLIEST = {
    "content_date": date(2000, 1, 1),
    "application_date": date(2020, 1, 1),
    **dict.fromkeys(ENDS, date(2020, 1, 1)),
}
REQUIRED = (
    "puid",
    "decision_ground",
    "content_type",
    "category",
    "content_date",
    "application_date",
    "decision_facts",
    "source_type",
    "automated_detection",
    "automated_decision",
)
# A field with the value, or the member, that asks for another field and that alone allows it.
ASKS = (
    ("decision_visibility", Visibility.OTHER.code, "decision_visibility_other"),
    ("decision_monetary", Monetary.OTHER.code, "decision_monetary_other"),
    ("content_type", "CONTENT_TYPE_OTHER", "content_type_other"),
    ("decision_ground", Ground.ILLEGAL_CONTENT.code, "illegal_content_legal_ground"),
    ("decision_ground", Ground.ILLEGAL_CONTENT.code, "illegal_content_explanation"),
    ("decision_ground", Ground.INCOMPATIBLE_CONTENT.code, "incompatible_content_ground"),
    ("decision_ground", Ground.INCOMPATIBLE_CONTENT.code, "incompatible_content_explanation"),
)
ALLOWS = (
    ("decision_ground", Ground.INCOMPATIBLE_CONTENT.code, "incompatible_content_illegal"),
    ("category_specification", "KEYWORD_OTHER", "category_specification_other"),
)
FIELDS = {*ONE_OF, *LISTS, *LONGEST, *EARLIEST, "content_id"}

_PUID = re.compile(r"[A-Za-z0-9_-]+")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_EAN = re.compile(r"\d{13}")


def check(document: object) -> list[str]:
    """Every rule that one statement breaks."""
    if not isinstance(document, Mapping):
        return [f"A statement is an object with fields: {document!r} is none."]
    given = {k: v for k, v in document.items() if v not in (None, "", [], {})}
    rules = (_fields, _texts, _choices, _lists, _asked, _restrictions, _days, _others)
    return [*_unknown(document, FIELDS), *(s for rule in rules for s in rule(given))]


def check_file(content: object) -> list[str]:
    """Every rule that a file of statements breaks, each with the statement's place."""
    if not isinstance(content, Mapping) or not isinstance(content.get("statements"), list):
        return ['A file of statements is an object {"statements": […]}: this is none.']
    statements = content["statements"]
    found = _unknown(content, ("statements",))
    if not 1 <= len(statements) <= AT_ONCE:
        found.append(
            f"A file holds {len(statements)} statements: 1 to {AT_ONCE} are taken at once."
        )
    puids = Counter(str(s.get("puid")) for s in statements if isinstance(s, Mapping))
    twice = (puid for puid, n in puids.items() if n > 1)
    found += [f"The puid {puid!r} stands there more than once." for puid in twice]
    for number, statement in enumerate(statements, 1):
        found += [f"Statement {number}: {sentence}" for sentence in check(statement)]
    return found


Given = Mapping[str, Any]


def _fields(given: Given) -> Iterator[str]:
    yield from (f"{name} is missing: it is required." for name in REQUIRED if name not in given)


def _unknown(given: Given, known: Collection[str]) -> list[str]:
    """Also where they are empty: somebody meant something by them."""
    near = {name: nearest(str(name), sorted(known)) for name in given if name not in known}
    return [
        f"{name} is no field of the database, the nearest is {meant}: mend it, or leave it out."
        for name, meant in near.items()
    ]


def _texts(given: Given) -> Iterator[str]:
    for name, longest in LONGEST.items():
        value = given.get(name, "")
        if not isinstance(value, str):
            yield f"{name} is {value!r}: it has to be a text."
        elif len(value) > longest:
            yield f"{name} has {len(value)} letters: {longest:,} are allowed."
        elif name not in ("puid", "decision_ground_reference_url"):
            for what in personal_data.found(value):
                yield f"{name} holds {what}: no personal data may be sent."


def _choices(given: Given) -> Iterator[str]:
    for name, codes in ONE_OF.items():
        value = given.get(name, next(iter(codes)))
        if not isinstance(value, str) or value not in codes:
            yield f"{name} is {value!r}: it has to be one of {_said(codes)}."


def _lists(given: Given) -> Iterator[str]:
    for name, codes in LISTS.items():
        value = given.get(name, [])
        if not isinstance(value, list):
            yield f"{name} is {value!r}: it has to be a list."
            continue
        for member in value:
            if not isinstance(member, str) or member not in codes:
                yield f"{name} holds {member!r}: it may hold {_said(codes)}."
        texts = [m for m in value if isinstance(m, str)]
        yield from (f"{name} holds {m!r} twice." for m, n in Counter(texts).items() if n > 1)


def _asked(given: Given) -> Iterator[str]:
    for name, value, other in ASKS:
        if _says(given, name, value) and other not in given:
            yield f"{other} is missing: {name} is {value}."
    for name, value, other in (*ASKS, *ALLOWS):
        if other in given and not _says(given, name, value):
            yield f"{other} is given, but {name} is not {value}: leave it out."


def _says(given: Given, name: str, value: str) -> bool:
    said = given.get(name)
    return value in said if isinstance(said, list) else said == value


def _restrictions(given: Given) -> Iterator[str]:
    if not any(name in given for name in ENDS.values()):
        yield f"Nothing is restricted: give one of {', '.join(ENDS.values())}."
    for end, restricted in ENDS.items():
        if end in given and restricted not in given:
            yield f"{end} is given, but {restricted} is not: leave it out."


def _days(given: Given) -> Iterator[str]:
    days: dict[str, date] = {}
    for name, earliest in EARLIEST.items():
        if name not in given:
            continue
        day = _day(given[name])
        if day is None:
            yield f"{name} is {given[name]!r}: it has to be a day as YYYY-MM-DD."
        elif not earliest <= day <= LATEST:
            yield f"{name} is {day}: it has to lie between {earliest} and {LATEST}."
        else:
            days[name] = day
    begin = days.get("application_date")
    for name in ENDS:
        if begin and (end := days.get(name)) and end < begin:
            yield f"{name} is {end}, before the application_date {begin}."


def _day(value: object) -> date | None:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def _others(given: Given) -> Iterator[str]:
    puid = given.get("puid", "a")
    if isinstance(puid, str) and not _PUID.fullmatch(puid):
        yield f"puid is {puid!r}: only letters A-Z, a-z, digits, - and _ are taken."
    url = given.get("decision_ground_reference_url", "https://a.example")
    if isinstance(url, str) and not _is_url(url):
        yield f"decision_ground_reference_url is {url!r}: it has to be an http(s) address."
    content_id = given.get("content_id", {"EAN-13": "0" * 13})
    known = isinstance(content_id, Mapping) and list(content_id) == ["EAN-13"]
    if not known or not _EAN.fullmatch(str(content_id["EAN-13"])):
        yield f'content_id is {content_id!r}: it has to be {{"EAN-13": 13 digits}}.'
    if (
        given.get("source_type") == NoticeSource.SOURCE_VOLUNTARY.code
        and "source_identity" in given
    ):
        yield "source_identity is given, but nobody gave notice: leave it out."


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)


def _said(codes: Iterable[str]) -> str:
    """The first few, since nobody reads ninety."""
    ordered = sorted(codes)
    return ", ".join(ordered[:8]) + (f" … ({len(ordered)} in all)" if len(ordered) > 8 else "")
