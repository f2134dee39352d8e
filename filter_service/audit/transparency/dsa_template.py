"""The Commission's template for section 1.6 of transparency reports: columns, rows and their order.

Implementing Regulation (EU) 2024/2835, part 8 of the template set, as of November 2026.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

COLUMNS = (
    "Applicability",
    "Service",
    "Reporting period",
    "Section",
    "Indicator",
    "Scope",
    "Value",
    "Contextual Information",
)
SECTION = "Use of automated means for content moderation"
MEASURES = (
    "Number of measures solely taken by automated means",
    "Number of measures not taken by automated means",
)
NOTICES = (
    "Number of notices solely processed by automated means",
    "Number of notices not processed by automated means",
)
METRICS = (
    "Accuracy of the automated means - Accuracy",
    "Accuracy of the automated means - Precision",
    "Accuracy of the automated means - Recall",
)
TOTAL, OWN = "Total number", "Own-initiative"
NOTIFIED, FLAGGERS = "NAM Total", "NAM Trusted Flagger"  # notice and action mechanism
LANGUAGES = (
    *("bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "ga", "hr"),
    *("hu", "it", "lt", "lv", "mt", "nl", "pl", "pt", "ro", "sk", "sl", "sv"),
)


class ProviderKind(StrEnum):
    """What kind of service reports; each has the rows of those before it."""

    INTERMEDIARY = "intermediary"
    HOSTING = "hosting"
    PLATFORM = "platform"
    VLOP = "vlop"  # a very large online platform


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """A row that must be there; metrics once for each system."""

    indicator: str
    scope: str
    system: str | None = None


def scopes(provider: ProviderKind) -> tuple[str, ...]:
    """The scopes of a provider, without languages."""
    more = {ProviderKind.INTERMEDIARY: (), ProviderKind.HOSTING: (NOTIFIED,)}
    return (TOTAL, OWN, *more.get(provider, (NOTIFIED, FLAGGERS)))


def counts_of(scope: str) -> tuple[str, str]:
    """What is counted in a scope: notices where others notified, measures elsewhere."""
    return NOTICES if scope in (NOTIFIED, FLAGGERS) else MEASURES


def applicability(scope: str) -> str:
    if scope == NOTIFIED:
        return "Only for providers of hosting services, including online platforms"
    if scope == FLAGGERS:
        return "Only for providers of online platforms"
    return "Only for VLOPs" if scope in LANGUAGES else "All"


def rows(provider: ProviderKind, systems: tuple[str, ...]) -> Iterator[TemplateRow]:
    """Every row in the template's order: scope by scope, then languages by indicator."""
    for scope in scopes(provider):
        yield from (TemplateRow(indicator, scope) for indicator in counts_of(scope))
        yield from (TemplateRow(m, scope, system) for system in systems for m in METRICS)
    if provider is ProviderKind.VLOP:
        yield from (TemplateRow(m, language) for m in MEASURES for language in LANGUAGES)
        yield from (
            TemplateRow(metric, language, system)
            for system in systems
            for metric in METRICS
            for language in LANGUAGES
        )
