"""Counts flags by class, and says how many of them were right."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from filter_service.audit.transparency.period_counts import Group, PeriodCounts
from filter_service.calibration.intervals import Interval, Stratum, stratified, wilson


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """What is counted of one class: of the flags of the period, and of the drawn clear items."""

    name: str
    flagged: int
    fully_automated: int  # of these, those that acted by themselves
    confirmed: int
    overturned: int
    missed: int  # found among those that were drawn
    precision: Interval | None  # None: nobody has decided


@dataclass(frozen=True, slots=True)
class FlagPrecision:
    """The share of flags that were right, and what it says nothing about."""

    share: Interval | None
    seen: int  # decided by people
    silent: int  # flags that acted by themselves and are like none that was looked at


def by_class(counts: PeriodCounts) -> list[ClassFigures]:
    """Every class with a flag or a find, most flags first."""
    found: defaultdict[str, list[Group]] = defaultdict(list)
    for group in counts.judged:
        if group.class_name is not None:
            found[group.class_name].append(group)
    rows = [
        _row(name, groups, {name: counts.acted.get(name, ())}) for name, groups in found.items()
    ]
    return sorted(rows, key=lambda r: (-r.flagged, r.name))


def precision_of(judged: Iterable[Group], acted: Mapping[str, Sequence[Stratum]]) -> FlagPrecision:
    """Flags that waited for people count as they were decided.

    Of those that acted by themselves some were drawn, and each stands for as many as were not.
    """
    waited = [g for g in judged if g.verdict == "flagged" and not g.acted]
    decided = [g for g in waited if g.decided_by == "people"]
    right, seen = _sum(g for g in decided if g.decision == "confirmed"), _sum(decided)
    strata = list(chain.from_iterable(acted.values()))
    if not strata:
        return FlagPrecision(wilson(right, seen), seen, 0)
    whole = _sum(g for g in waited if g.decided_by != "list")
    share = stratified([Stratum(whole, seen, right), *strata])
    silent = sum(s.cases for s in strata if not s.seen)
    return FlagPrecision(share, seen + sum(s.seen for s in strata), silent)


def _row(
    name: str, groups: Sequence[Group], acted: Mapping[str, Sequence[Stratum]]
) -> ClassFigures:
    decided: Mapping[tuple[str, str | None], int] = {
        (verdict, decision): _sum(
            g
            for g in groups
            if (g.verdict, g.decision, g.decided_by) == (verdict, decision, "people")
        )
        for verdict in ("flagged", "clear")
        for decision in ("confirmed", "overturned")
    }
    return ClassFigures(
        name,
        flagged=_sum(g for g in groups if g.verdict == "flagged"),
        fully_automated=_sum(g for g in groups if g.acted),
        confirmed=decided["flagged", "confirmed"],
        overturned=decided["flagged", "overturned"],
        missed=decided["clear", "overturned"],
        precision=precision_of(groups, acted).share,
    )


def _sum(groups: Iterable[Group]) -> int:
    return sum(g.count for g in groups)
