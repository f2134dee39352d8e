"""Builds the transparency report of a period: figures, definitions and intervals.

It gives what article 15(1)(e) of the Digital Services Act asks for: "indicators of the accuracy
and the possible rate of error of the automated means".
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from filter_service.audit.transparency.class_figures import (
    ClassFigures,
    by_class,
    precision_of,
)
from filter_service.audit.transparency.definitions import CHAPTERS, FigureDefinition, Unit
from filter_service.audit.transparency.period_counts import Group, Period, PeriodCounts, count
from filter_service.calibration.intervals import stratified, wilson
from filter_service.calibration.standing_estimates import (
    METHOD,
    StandingEstimates,
    standing_estimates,
)
from filter_service.canonical import stamp
from filter_service.db.session import Sessions


@dataclass(frozen=True, slots=True)
class FigureValue:
    """What came out for a figure."""

    value: float | None  # None: there is none, and the note says why
    of: int | None = None  # a share is of so many
    low: float | None = None  # of the 95 % interval
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, with what it means in a sentence."""

    key: str
    title: str
    unit: Unit
    definition: str
    value: float | None
    of: int | None
    low: float | None
    high: float | None
    note: str

    @classmethod
    def put(cls, defined: FigureDefinition, found: FigureValue) -> "Figure":
        return cls(**asdict(defined), **asdict(found))

    def document(self) -> dict[str, Any]:
        """What is known of it; the value always, also that there is none."""
        said = {k: v for k, v in asdict(self).items() if v is not None and v != "" and k != "key"}
        return said | {"value": self.value}


@dataclass(frozen=True, slots=True)
class ReportSection:
    """Figures that belong together."""

    key: str
    title: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class TransparencyReport:
    """A period in figures."""

    period: Period
    at: datetime
    sections: tuple[ReportSection, ...]
    classes: tuple[ClassFigures, ...]
    flagged: dict[date, float]  # share of what was judged, by day (UTC)
    estimates: tuple[StandingEstimates, ...] = ()  # as of now, whatever the period

    def __getitem__(self, key: str) -> Figure:
        return next(f for s in self.sections for f in s.figures if f.key == key)

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "since": stamp(self.period.since),
            "until": stamp(self.period.until),
            "at": stamp(self.at),
            "confidence": 0.95,
            "figures": {f.key: f.document() for s in self.sections for f in s.figures},
            "classes": [asdict(c) for c in self.classes],
            "flagged_by_day": {str(day): share for day, share in self.flagged.items()},
            "estimates": {
                "confidence": 0.9,
                "method": METHOD,
                "classes": [_estimated(e) for e in self.estimates],
            },
        }


def report(
    sessions: Sessions, period: Period, classes: Collection[str] | None = None
) -> TransparencyReport:
    """Everything about a period, as it stands now; rows for these classes only, None: all."""
    with sessions.begin() as session:
        counts = count(session, period)
    figures = _volume(counts) | _decisions(counts) | _errors(counts) | _appeals(counts)
    figures |= {f"{key}_seconds": _median(seconds) for key, seconds in counts.seconds.items()}
    return TransparencyReport(
        period,
        datetime.now(UTC),
        tuple(
            ReportSection(c.key, c.title, tuple(Figure.put(d, figures[d.key]) for d in c.defined))
            for c in CHAPTERS
        ),
        tuple(r for r in by_class(counts) if classes is None or r.name in classes),
        _by_day(counts.judged),
        tuple(standing_estimates(sessions, classes)),
    )


def _volume(counts: PeriodCounts) -> dict[str, FigureValue]:
    """What came in, what became of it, and who decided."""
    ruled = [g for g in counts.judged if g.verdict != "undetermined"]
    judged = _sum(ruled)
    by_people = _sum(g for g in ruled if g.decided_by == "people")
    automated = 1 - by_people / judged if judged else None
    return {
        "submitted": FigureValue(counts.submitted),
        "judged": FigureValue(judged),
        "flagged": FigureValue(_sum(g for g in ruled if g.verdict == "flagged"), judged),
        "undetermined": FigureValue(_sum(counts.judged) - judged),
        "by_model": FigureValue(_sum(g for g in ruled if g.decided_by == "nobody"), judged),
        "fully_automated": FigureValue(_sum(g for g in ruled if g.acted), judged),
        "by_lists": FigureValue(_sum(g for g in ruled if g.decided_by == "list"), judged),
        "by_people": FigureValue(by_people, judged),
        "automated_share": FigureValue(
            automated, judged, note="" if judged else "Nothing was judged."
        ),
    }


def _decisions(counts: PeriodCounts) -> dict[str, FigureValue]:
    confirmed, overturned = (counts.decided.get(d, 0) for d in ("confirmed", "overturned"))
    none = "No decision about a flag took effect."
    return {
        "confirmed": FigureValue(confirmed),
        "overturned": FigureValue(overturned),
        "overturn_rate": _rate(overturned, confirmed + overturned, none),
    }


def _appeals(counts: PeriodCounts) -> dict[str, FigureValue]:
    upheld, reversed_ = counts.appeals["upheld"], counts.appeals["reversed"]
    flagged = _sum(g for g in counts.judged if g.verdict == "flagged")
    return {
        "appeals_opened": FigureValue(counts.appeals["opened"]),
        "appeals_upheld": FigureValue(upheld),
        "appeals_reversed": FigureValue(reversed_),
        "reversal_rate": _rate(reversed_, upheld + reversed_, "No appeal was answered."),
        "appeal_rate": _rate(counts.appeals["appealed"], flagged, "Nothing was flagged."),
    }


def _errors(counts: PeriodCounts) -> dict[str, FigureValue]:
    """Of what was flagged how much was wrong, and of what was clear."""
    waits = f"{counts.waiting:,} drawn items still wait." if counts.waiting else ""
    return {
        "precision": _precision(counts),
        "sample": FigureValue(sum(s.seen for s in counts.strata), note=waits),
        **_missed(counts, waits),
    }


def _precision(counts: PeriodCounts) -> FigureValue:
    """Of flags that waited for people those decided; of the others as many as those drawn show."""
    found = precision_of(counts.judged, counts.acted)
    if found.share is None:
        return FigureValue(None, 0, note="Nobody has decided about a flag of the period.")
    silent = found.silent
    note = f"Says nothing about {silent:,} flags that acted by themselves." if silent else ""
    return FigureValue(found.share.value, found.seen, found.share.low, found.share.high, note)


def _missed(counts: PeriodCounts, waits: str) -> dict[str, FigureValue]:
    """The estimate, or why there is none: nothing found where nobody looked is no zero."""
    share = stratified(counts.strata)
    if share is None:
        why = (
            "nobody has decided about a clear item that was drawn."
            if counts.strata
            else "no clear item could be drawn for review. A rule that draws some makes one "
            "possible."
        )
        none = FigureValue(None, note=f"No estimate is possible: {why}")
        return {"missed_share": none, "missed": none}
    covered = sum(s.cases for s in counts.strata if s.seen)
    silent = counts.never_drawn + sum(s.cases for s in counts.strata if not s.seen)
    beyond = f"Says nothing about {silent:,} clear items that are like none looked at."
    note = " ".join(part for part in (beyond if silent else "", waits) if part)
    number = (share.value * covered, share.low * covered, share.high * covered)
    return {
        "missed_share": FigureValue(share.value, covered, share.low, share.high, note),
        "missed": FigureValue(number[0], covered, number[1], number[2], note),
    }


def _rate(hits: int, seen: int, none: str) -> FigureValue:
    """A share that was counted, with Wilson's interval."""
    share = wilson(hits, seen)
    if share is None:
        return FigureValue(None, 0, note=none)
    return FigureValue(share.value, seen, share.low, share.high)


def _median(seconds: float | None) -> FigureValue:
    if seconds is None:
        return FigureValue(None, note="There is none in the period.")
    return FigureValue(float(seconds))


def _by_day(judged: Sequence[Group]) -> dict[date, float]:
    ruled: defaultdict[date, list[Group]] = defaultdict(list)
    for group in judged:
        if group.verdict != "undetermined":
            ruled[group.day].append(group)
    return {
        day: _sum(g for g in groups if g.verdict == "flagged") / _sum(groups)
        for day, groups in sorted(ruled.items())
    }


def _estimated(of: StandingEstimates) -> dict[str, Any]:
    """A class, with the sample that each figure rests on."""
    return {
        "policy": of.policy,
        "version": of.digest,
        "class": of.class_name,
        "labels": of.labels,
        "at": stamp(of.at),
        **asdict(of.estimates),
    }


def _sum(groups: Iterable[Group]) -> int:
    return sum(g.count for g in groups)
