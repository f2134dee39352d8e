"""Writes an evaluation as lines for a terminal."""

import math
from collections.abc import Iterator, Sequence

from filter_service.calibration.evaluation import (
    ClassComparison,
    ClassEvaluation,
    Confusion,
    CountedShare,
)
from filter_service.calibration.reliability import MeasuredValue


def tell(
    evaluations: Sequence[ClassEvaluation], comparisons: Sequence[ClassComparison] = ()
) -> Iterator[str]:
    """Some lines a class."""
    for e in evaluations:
        yield from _class(e)
    if comparisons:
        yield "Against the other, on the same pictures:"
        yield from (_comparison(c) for c in comparisons)


def share(found: CountedShare) -> str:
    """50.0% (30.1% to 69.9%), of 20"""
    if not found.of:
        return "none"
    low, high = found.interval
    return f"{found.value:.1%} ({low:.1%} to {high:.1%}), of {found.of}"


def measured(found: MeasuredValue | None) -> str:
    """0.912 (0.880 to 0.941)"""
    if found is None or math.isnan(found.value):
        return "nothing to measure"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _class(e: ClassEvaluation) -> Iterator[str]:
    c = e.confusion
    yield f"{e.name}, threshold {e.threshold:g}"
    yield f"  shown in {c.flagged_rightly + c.missed} of {len(e.truths)} pictures"
    yield f"  precision {share(c.precision)}; of a stream that shows it in 1%: {_percent(c)}"
    yield f"  recall    {share(c.recall)}"
    yield f"  false flags {share(c.false_flags)}"
    yield f"  average precision {measured(e.average_precision)}"
    yield f"  calibration error among flags {measured(e.agreement.flagged_error)}"
    if e.calibrator is None:
        yield f"  {e.uncalibrated}"
    else:
        k = e.calibrator
        yield f"  calibration: a {k.a:.3f}, b {k.b:.3f}, from {k.labels} pictures"
    for s in e.suggestions:
        if s.threshold is None or s.confusion is None:
            yield f"  {s.aim}: {s.refusal}"
        else:
            yield (
                f"  {s.aim}: threshold {s.threshold:.4g} (here precision "
                f"{s.confusion.precision.value:.1%}, recall {s.confusion.recall.value:.1%})"
            )


def _percent(confusion: Confusion) -> str:
    found = confusion.precision_at(0.01)
    return "none" if math.isnan(found) else f"{found:.1%}"


def _comparison(c: ClassComparison) -> str:
    surely = "" if c.proven else ", which may be chance"
    return (
        f"  {c.name}: average precision changes by {measured(c.gain)}{surely}; "
        f"{c.newly_flagged} newly flagged, {c.no_longer_flagged} no longer"
    )
