"""Compares recorded verdict and scores, and their ledger entries, with recomputed ones."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from filter_service.audit.replay.item_on_record import OnRecord
from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.tolerances import LOGITS, PROBABILITIES, of_margins
from filter_service.verdicts import Score, Verdict


def compare_row(found: RecordComparison, record: OnRecord) -> None:
    """The item's row, its policy and its image against what the ledger says was decided."""
    if record.judged is None:
        found.same("ledger: entry 'judged'", None, "one for every verdict")
        return
    for field, value in record.row.items():
        found.same(f"row: {field}", record.judged.get(field), value)
    found.same("policy", record.judged.get("policy"), record.policy.policy.digest)
    found.same("digest", record.judged.get("digest"), record.digest)
    found.same("encoder", record.judged.get("encoder"), record.fingerprint)


def compare_scores(
    found: RecordComparison,
    record: OnRecord,
    computed: tuple[Score, ...],
    bands: npt.NDArray[np.float64],  # (classes,)
) -> None:
    """Every class's margin, and those that the ledger names."""
    _compare_class(found, record, computed, bands)
    flags = (record.judged or {}).get("flags", {})
    for name in flags.keys() - {score.class_name for score in computed}:
        found.same(f"ledger: flag for {name}", flags[name], None)
    for score, band in zip(computed, bands.tolist(), strict=True):
        _compare_stored(found, record, score, band)
        found.number(
            f"ledger: flag for {score.class_name}",
            flags.get(score.class_name),
            score.margin if score.flagged else None,
            LOGITS,
            "ledger: flag",
        )
        _compare_certain(found, record, score, band)
        if score.class_name == (record.judged or {}).get("class"):
            _compare_named(found, record, score, band)


def _compare_class(
    found: RecordComparison,
    record: OnRecord,
    computed: tuple[Score, ...],
    bands: npt.NDArray[np.float64],  # (classes,)
) -> None:
    """The class that acts by itself, or is furthest over its threshold; of two that tie, either."""
    if record.judged is None:
        return
    most, least, exact = {}, {}, record.row["verdict"] is Verdict.FLAGGED
    for score, band in zip(computed, bands.tolist(), strict=True):
        allowed = _probabilities(record, score.class_name, of_margins(exact, band))
        most[score.class_name] = replace(score, probability=score.probability + allowed).urgency
        least[score.class_name] = replace(score, probability=score.probability - allowed).urgency
    named = record.judged.get("class")
    worst = max(least, key=lambda name: least[name])
    if named not in most or most[named] < least[worst]:
        found.same("ledger: class", named, worst)


def _compare_certain(found: RecordComparison, record: OnRecord, score: Score, band: float) -> None:
    """Whether the flag could act by itself, unless it is too near to tell."""
    if score.certain is None:
        return
    recorded = score.class_name in (record.judged or {}).get("certain", ())
    allowed = _probabilities(record, score.class_name, of_margins(score.flagged, band))
    if abs(score.probability - score.certain) > allowed:
        found.same(f"ledger: {score.class_name} acts by itself", recorded, score.acts)


def _compare_stored(found: RecordComparison, record: OnRecord, score: Score, band: float) -> None:
    place = f"score of {score.class_name}"
    if score.class_name not in record.scores:
        found.same(place, None, score.margin)
        return
    margin, was_exact = record.scores[score.class_name]
    exact = was_exact and score.exact  # here it may be a fast look's where it was none
    found.number(place, margin, score.margin, of_margins(exact, band), _kind("score", exact))


def _compare_named(found: RecordComparison, record: OnRecord, score: Score, band: float) -> None:
    """The class that the item stands with: a flagged one was confirmed in float32."""
    judged, exact = record.judged or {}, record.row["verdict"] is Verdict.FLAGGED
    allowed = of_margins(exact, band)
    found.number(
        f"ledger: margin for {score.class_name}",
        judged.get("margin"),
        score.margin,
        allowed,
        _kind("ledger: margin", exact),
    )
    found.number(
        f"ledger: probability for {score.class_name}",
        judged.get("probability"),
        score.probability,
        _probabilities(record, score.class_name, allowed),
        _kind("ledger: probability", exact),
    )


def _probabilities(record: OnRecord, name: str, allowed: float) -> float:
    """What is allowed of a probability where that much is allowed of its margin."""
    calibration = record.policy.policy.forbidden(name).calibration
    slope = calibration.a if calibration else 1.0
    return PROBABILITIES.size * slope * allowed / LOGITS.size


def _kind(quantity: str, exact: bool) -> str:
    return quantity if exact else f"{quantity}, screened"
