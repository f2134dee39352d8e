"""Writes section 1.6 of the Commission's transparency report, about automated means."""

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from filter_service.audit.transparency import dsa_counts
from filter_service.audit.transparency.dsa_counts import AutomationCounts, SystemAudit
from filter_service.audit.transparency.dsa_report_rules import (
    NO_VALUE,
    NOT_APPLICABLE,
    SYSTEM,
    problems,
)
from filter_service.audit.transparency.dsa_template import (
    COLUMNS,
    FLAGGERS,
    LANGUAGES,
    MEASURES,
    METRICS,
    NOTICES,
    NOTIFIED,
    OWN,
    SECTION,
    TOTAL,
    ProviderKind,
    TemplateRow,
    applicability,
    rows,
)
from filter_service.audit.transparency.period_counts import Period
from filter_service.calibration.estimates import Estimate
from filter_service.db.session import Sessions
from filter_service.errors import InvalidRequest

LONGEST_NAME = 200  # letters

_HALF = re.compile(r"([0-9]{4})(?:-H([12]))?")


def reporting_period(said: str) -> Period:
    """A year such as 2026, half of one such as 2026-H1, or 2026-01-01/2026-12-31."""
    try:
        if found := _HALF.fullmatch(said):
            year, half = int(found[1]), found[2]
            first = date(year, 7 if half == "2" else 1, 1)
            last = date(year, 6, 30) if half == "1" else date(year, 12, 31)
        else:
            first, last = (date.fromisoformat(day) for day in said.split("/"))
        begin, end = (datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (first, last))
        return Period(begin, end + timedelta(days=1))
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{said[:80]!r} is no reporting period: give a year such as 2026, half of one such as "
            "2026-H1, or 2026-01-01/2026-12-31."
        ) from error


def dsa_report(sessions: Sessions, period: Period, service: str, provider: ProviderKind) -> bytes:
    """The file, which follows the template's rules; raises InvalidRequest where it could not."""
    if len(service) > LONGEST_NAME or not service.isprintable():
        raise InvalidRequest(f"The service's name has to be at most {LONGEST_NAME} plain letters.")
    with sessions.begin() as session:
        counts = dsa_counts.measures(session, period) | dsa_counts.notices(session, period)
        audits = {audit.name: audit for audit in dsa_counts.audits(session, period)}
    last = (period.until - timedelta(microseconds=1)).date()
    about = f"{period.since:%Y-%m-%d}/{last:%Y-%m-%d}"
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(provider, tuple(audits)):
        told = _metric(audits[row.system], row) if row.system else _count(counts, row)
        fixed = (applicability(row.scope), service, about, SECTION, row.indicator, row.scope)
        writer.writerow((*fixed, *told))
    data = file.getvalue().encode()
    if wrong := problems(data):
        raise InvalidRequest(f"The report would break the template's rules. {wrong[0]}")
    return data


def _count(counts: Mapping[str, AutomationCounts], row: TemplateRow) -> tuple[str, str]:
    if row.scope in LANGUAGES:
        return "", _NO_LANGUAGE
    found = counts[row.scope]
    solely = row.indicator in (MEASURES[0], NOTICES[0])
    told = _SOLELY if solely else _BY_PEOPLE
    if row.scope in (NOTIFIED, FLAGGERS):
        told = _NOTICES_TOLD
    return str(found.solely if solely else found.by_people), told


def _metric(audit: SystemAudit, row: TemplateRow) -> tuple[str, str]:
    system = f"{SYSTEM}{audit.name}. "
    if (why := _not_applicable(row.scope)) is not None:
        return "", system + why
    found = dict(zip(METRICS, audit.metrics(), strict=True))[row.indicator]
    return _value(found), system + _told(audit, found, row.indicator)


def _value(found: Estimate) -> str:
    return "" if found.value is None else f"{found.value:.6f}".rstrip("0").rstrip(".")


def _told(audit: SystemAudit, found: Estimate, indicator: str) -> str:
    """Sample, method and interval."""
    flags, clear = audit.number("flagged"), audit.number("clear")
    sample = (
        f"Versions of the policy: {audit.versions}. Base: {flags} flagged and {clear} clear items "
        f"of the period. Sample: people decided about {audit.number('flagged', reviewed=True)} of "
        f"the flagged and {audit.number('clear', reviewed=True)} of the clear, which were drawn at "
        "random with recorded chances"
        f"{', as were the flags that acted by themselves' if audit.acts else ''}. "
    )
    if found.value is None or found.low is None or found.high is None:
        return f"{NO_VALUE}{found.why_none} {sample}".strip()
    return (
        f"{_MEANING[indicator]} Interval (90 %): {found.low:.6f} to {found.high:.6f}. {sample}"
        "Method: Horvitz-Thompson, each review weighted by the inverse of its chance and scaled to "
        "the base; score intervals by strata of like weights, combined by recovery of variances. "
        "Truth: the decision that stands after second looks and appeals."
    )


def _not_applicable(scope: str) -> str | None:
    """Why no figure of automated means belongs to a scope."""
    if scope in (TOTAL, OWN):
        return None
    return _NO_LANGUAGE if scope in LANGUAGES else _NO_MEANS_FOR_NOTICES


_NO_LANGUAGE = f"{NOT_APPLICABLE}the system judges images, which are in no language."
_NO_MEANS_FOR_NOTICES = (
    f"{NOT_APPLICABLE}the system judges what the platform submits; notices are decided by people, "
    "or answered by what stood before."
)
_NOTICES_TOLD = (
    "Notices of the period about pictures that the system had judged, as the platform passed them "
    "on, by the day of the answer. Answered by automated means alone: where a restriction or a "
    "decision stood before."
)
_SOLELY = (
    "Restrictions of the period with no decision of a person: pictures on a block list, flags of "
    "policies that act on the flag, and flags that are certain enough to act by themselves. No "
    "notice led to them."
)
_BY_PEOPLE = (
    "Restrictions of the period that a person decided: flags of automated means that were "
    "confirmed, pictures found in random samples, and, in the total, what notices led to."
)
_MEANING = dict(
    zip(
        METRICS,
        (
            "Share of judged items whose verdict was right.",
            "Share of flagged items that were rightly flagged.",
            "Share of forbidden items that were flagged.",
        ),
        strict=True,
    )
)
