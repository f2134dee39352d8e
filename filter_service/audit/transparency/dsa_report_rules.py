"""Checks a file for section 1.6 of a transparency report against the template's rules."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date

from filter_service.audit.transparency.dsa_template import (
    COLUMNS,
    FLAGGERS,
    LANGUAGES,
    METRICS,
    NOTIFIED,
    OWN,
    SECTION,
    TOTAL,
    ProviderKind,
    TemplateRow,
    applicability,
    counts_of,
    rows,
)

Row = Sequence[str]

NOT_APPLICABLE, NO_VALUE = "Not applicable: ", "No value: "  # why a value is left empty
SYSTEM = "System: "  # begins what is said of a metric, up to the first full stop and space
MOST = 3_000  # letters of what is said of a row

_COUNT = re.compile(r"0|[1-9][0-9]*")
_SHARE = re.compile(r"0(\.[0-9]{1,8})?|1(\.0{1,8})?")
_SCOPES = (TOTAL, OWN, NOTIFIED, FLAGGERS, *LANGUAGES)


def problems(data: bytes) -> list[str]:
    """Everything that is wrong with a file, a sentence each; empty: it follows the template."""
    found = list(_bytes(data))
    if found:
        return found
    try:
        table = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    except csv.Error as error:
        return [f"It is no CSV of RFC 4180 ({error}): quote fields with commas or quotes."]
    if not table or tuple(table[0]) != COLUMNS:
        return [f"The first line does not name the columns: it must read {','.join(COLUMNS)}."]
    for number, row in enumerate(table[1:], 2):
        if len(row) != len(COLUMNS):
            return [f"Line {number} has {len(row)} fields: give {len(COLUMNS)}."]
        found += [f"Line {number}: {problem}" for problem in _row(row)]
    return found or list(_together(table[1:]))


def _bytes(data: bytes) -> Iterator[str]:
    if data.startswith(b"\xef\xbb\xbf"):
        yield "It begins with a byte order mark: leave it out."
    try:
        data.decode()
    except UnicodeDecodeError as error:
        yield f"Byte {error.start} is no UTF-8: write the file in UTF-8."
    if b"\r" in data:
        yield "Lines end with a carriage return: end them with a line feed alone."
    if not data.endswith(b"\n"):
        yield "The last line does not end: end it with a line feed."


def _row(row: Row) -> Iterator[str]:
    applies, service, period, section, indicator, scope, value, context = row
    if section != SECTION:
        yield f"the section is {section!r}: write {SECTION!r}."
    if scope not in _SCOPES:
        yield f"{scope!r} is no scope of the template: write one of {', '.join(_SCOPES[:4])}."
    elif indicator not in (*counts_of(scope), *METRICS):
        yield f"{indicator!r} is no indicator of scope {scope!r}."
    elif applies != applicability(scope):
        yield f"the applicability is {applies!r}: write {applicability(scope)!r}."
    if not service.strip() or service[0] in "=+-@\t":
        yield f"the service {service!r} must be a name that no spreadsheet takes for a formula."
    if not _is_period(period):
        yield f"{period!r} is no period: write 2026-01-01/2026-12-31."
    yield from _value(indicator, value, context)
    if not context.strip() or len(context) > MOST:
        yield f"the contextual information has {len(context)} letters: give 1 to {MOST:,}."
    if indicator in METRICS and _system(row) is None:
        yield f"the contextual information must begin with {SYSTEM!r} and name the system."


def _value(indicator: str, value: str, context: str) -> Iterator[str]:
    if not value:
        if NOT_APPLICABLE not in context and NO_VALUE not in context:
            yield f"a value is missing, and nothing says why: begin with {NO_VALUE!r}."
    elif indicator in METRICS:
        if not _SHARE.fullmatch(value):
            yield f"the value {value!r} must be a decimal between 0 and 1, such as 0.86."
    elif not _COUNT.fullmatch(value):
        yield f"the value {value!r} must be a whole number in digits."


def _together(table: Sequence[Row]) -> Iterator[str]:
    """What rows must have in common, and which must be there."""
    for column in (1, 2):
        if len({row[column] for row in table}) > 1:
            yield f"The column {COLUMNS[column]!r} differs between rows: one file is for one."
    shown = [TemplateRow(row[4], row[5], _system(row)) for row in table]
    systems = tuple(dict.fromkeys(row.system for row in shown if row.system is not None))
    wanted = list(rows(_provider({row.scope for row in shown}), systems))
    if doubled := [row for row in wanted if shown.count(row) > 1]:
        yield f"The row {_named(doubled[0])} stands there more than once."
    elif missing := [row for row in wanted if row not in shown]:
        yield f"The row {_named(missing[0])} is missing."
    elif shown != wanted:
        yield "The rows are not in the template's order."
    counted = {(row[4], row[5]): int(row[6]) for row in table if _COUNT.fullmatch(row[6])}
    for (indicator, scope), count in counted.items():
        if scope != TOTAL and count > counted.get((indicator, TOTAL), count):
            yield f"{indicator!r} is {count} in scope {scope!r}, more than in all."


def _provider(found: set[str]) -> ProviderKind:
    """The smallest kind of provider that has all these scopes."""
    signs: dict[ProviderKind, Callable[[], bool]] = {
        ProviderKind.VLOP: lambda: bool(found & set(LANGUAGES)),
        ProviderKind.PLATFORM: lambda: FLAGGERS in found,
        ProviderKind.HOSTING: lambda: NOTIFIED in found,
    }
    return next((kind for kind, sign in signs.items() if sign()), ProviderKind.INTERMEDIARY)


def _system(row: Row) -> str | None:
    if row[4] not in METRICS or not row[7].startswith(SYSTEM):
        return None
    return row[7].removeprefix(SYSTEM).partition(". ")[0]


def _named(row: TemplateRow) -> str:
    system = f" of {row.system}" if row.system else ""
    return f"{row.indicator!r}, {row.scope!r}{system}"


def _is_period(text: str) -> bool:
    try:
        first, last = (date.fromisoformat(day) for day in text.split("/"))
    except ValueError:
        return False
    return re.fullmatch(r"[0-9-]{10}/[0-9-]{10}", text) is not None and first <= last
