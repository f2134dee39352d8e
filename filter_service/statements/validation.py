"""Validates statements against the rules of the DSA Transparency Database (version 2).

They are those of the database, and some of its documentation's that it does not enforce itself:
what would be ignored there, or contradicts itself, is refused here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from filter_service.policy.spelling import nearest
from filter_service.policy.statement_grounds import Ground, Monetary, NoticeSource, Visibility
from filter_service.statements.database_fields import DAY, DatabaseStatement

AT_ONCE = 100  # statements of one file
ENDS = {  # of each restriction, by what it restricts
    "end_date_visibility_restriction": "decision_visibility",
    "end_date_monetary_restriction": "decision_monetary",
    "end_date_service_restriction": "decision_provision",
    "end_date_account_restriction": "decision_account",
}
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

Given = Mapping[str, Any]


def check(document: object) -> list[str]:
    """Every rule that one statement breaks."""
    if not isinstance(document, Mapping):
        return [f"A statement is an object with fields: {document!r} is none."]
    known = DatabaseStatement.model_fields  # what is unknown is told of also where it is empty
    given = {k: v for k, v in document.items() if k not in known or v not in (None, "", [], {})}
    broken = []
    try:
        DatabaseStatement.model_validate(given)
    except ValidationError as error:
        broken = [_sentence(e) for e in error.errors(include_url=False)]
    rules = (_asked, _restrictions, _ends, _source)
    return [*broken, *(s for rule in rules for s in rule(given))]


def check_file(content: object) -> list[str]:
    """Every rule that a file of statements breaks, each with the statement's place."""
    if not isinstance(content, Mapping) or not isinstance(content.get("statements"), list):
        return ['A file of statements is an object {"statements": […]}: this is none.']
    statements = content["statements"]
    faults = [_unknown(str(name), ("statements",)) for name in content if name != "statements"]
    if not 1 <= len(statements) <= AT_ONCE:
        faults.append(
            f"A file holds {len(statements)} statements: 1 to {AT_ONCE} are taken at once."
        )
    puids = Counter(str(s.get("puid")) for s in statements if isinstance(s, Mapping))
    twice = (puid for puid, n in puids.items() if n > 1)
    faults += [f"The puid {puid!r} stands there more than once." for puid in twice]
    for number, statement in enumerate(statements, 1):
        faults += [f"Statement {number}: {sentence}" for sentence in check(statement)]
    return faults


def _sentence(error: ErrorDetails) -> str:
    name, value = error["loc"][0], error["input"]
    match error["type"]:
        case "missing":
            return f"{name} is missing: it is required."
        case "extra_forbidden":
            return _unknown(str(name), DatabaseStatement.model_fields)
        case "string_too_long":
            most = error["ctx"]["max_length"]
            return f"{name} has {len(value)} letters: {most:,} are allowed."
        case "string_type":
            return f"{name} is {value!r}: it has to be a text."
        case _:
            return f"{name} {error['msg']}"


def _unknown(name: str, known: Iterable[str]) -> str:
    meant = nearest(name, sorted(known))
    return f"{name} is no field of the database, the nearest is {meant}: mend it, or leave it out."


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


def _ends(given: Given) -> Iterator[str]:
    days = {name: given[name] for name in given if DAY.fullmatch(str(given[name]))}
    begin = days.get("application_date")
    for name in ENDS:
        if begin and (end := days.get(name)) and end < begin:
            yield f"{name} is {end}, before the application_date {begin}."


def _source(given: Given) -> Iterator[str]:
    voluntary = given.get("source_type") == NoticeSource.SOURCE_VOLUNTARY.code
    if voluntary and "source_identity" in given:
        yield "source_identity is given, but nobody gave notice: leave it out."
