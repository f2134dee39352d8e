"""Compares a recorded explanation with the recomputed one."""

from collections.abc import Iterator, Mapping
from typing import Any

from filter_service.audit.record.stored_json import digest_of
from filter_service.audit.replay.evidence_rescoring import RescoredImage
from filter_service.audit.replay.item_on_record import RecordedExplanation
from filter_service.audit.replay.recomputation import RecomputedExplanation, RecomputedRecord
from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.tolerances import (
    DEGREES,
    KEPT,
    LOGITS,
    PROBABILITIES,
    SCREENED,
    SCREENED_DEGREES,
    SHARES,
    of_margins,
)
from filter_service.explain.explainer import CARRYING
from filter_service.policy import ForbiddenClass, Policy
from filter_service.verdicts.explanation import (
    CounterfactualImage,
    CounterfactualText,
    Explanation,
    FlipRegion,
    Map,
    PromptWords,
    Word,
)
from filter_service.verdicts.faithfulness import FirstProof, Proof

NUMBERS_OF_A_WORD = ("shapley", "standard_error", "substituted", "leave_one_out")


def compare_told(
    found: RecordComparison,
    class_name: str,
    stored: RecordedExplanation,
    told: Mapping[str, Any] | None,
    fingerprint: str,
) -> None:
    """The stored text against its entry, which also commits to what nobody can compute again.

    The memory has grown since, so which neighbours there were, and what people had decided about
    them, stands in the text alone.
    """
    if told is None:
        found.same(f"{class_name}: ledger: entry 'explained'", None, "one for every explanation")
        return
    record, place = told.get("record"), f"{class_name}: ledger"
    found.same(f"{place}: the text's digest", record, digest_of(stored.text, record))
    found.same(f"{place}: encoder", told.get("encoder"), fingerprint)
    found.same(f"{place}: faithful", told.get("faithful"), stored.faithful)


def compare_explanation(
    found: RecordComparison,
    class_name: str,
    stored: RecordedExplanation,
    policy: Policy,
    computed: RecomputedRecord,
) -> None:
    """Everything that the record of one class says."""
    record = stored.explanation
    if record is None:
        found.same(f"{class_name}: record", "cannot be read", "whole")
        return
    again = computed.explanations[class_name]
    if again is None:
        here = f"{record.frame} {record.view}".strip()
        found.same(f"{class_name}: view", here, None)
        return
    found.same(f"{class_name}: the row's faithful", stored.faithful, record.faithful)
    _compare_counterfactuals(found, class_name, record, again, computed)
    now = again.explanation
    if now is None:
        found.same(f"{class_name}: explanation", "recorded", "none: it is not flagged now")
        return
    _compare_head(found, record, now, policy.forbidden(class_name))
    _compare_maps(found, f"{class_name}: map", record.map, now.map)
    _compare_prompts(found, record, now)
    _compare_proofs(found, record, _proof(record, now), of_margins(computed.exact, again.band))


def _compare_counterfactuals(
    found: RecordComparison,
    name: str,
    record: Explanation,
    again: RecomputedExplanation,
    computed: RecomputedRecord,
) -> None:
    """Everything that an explanation says would have the other answer."""
    for image, rescored in zip(record.images, again.images, strict=True):
        _compare_image(found, name, image, rescored, again.band, computed)
    for text, reworded in zip(record.texts, again.texts, strict=True):
        _compare_text(found, f"{name}: wording {text.text!r}", text, reworded)
    if record.region is not None and again.region is not None:
        allowed = of_margins(computed.exact, again.band)
        _compare_region(
            found, f"{name}: region", record.region, again.region, again.threshold, allowed
        )
    elif record.region is not None and record.map is not None:
        places = f"of {record.map.grid.size} places"
        found.same(f"{name}: region", str(record.region.places), places)


def _compare_image(
    found: RecordComparison,
    name: str,
    recorded: CounterfactualImage,
    rescored: RescoredImage,
    band: float,
    computed: RecomputedRecord,
) -> None:
    place, now = f"{name}: image {recorded.digest[:12]}", rescored.image
    if now is None:
        found.notes.append(f"{place} {rescored.missing}")
        return
    allowed, turn = of_margins(computed.exact, band), DEGREES.size
    if not computed.exact or rescored.kept:
        turn = SCREENED_DEGREES.size
    if rescored.kept:
        allowed = max(KEPT.size * computed.scale, SCREENED.size * band)
    found.numbers(place, "counterfactual image", recorded, now, margin=allowed, degrees=turn)


def _compare_text(
    found: RecordComparison,
    place: str,
    recorded: CounterfactualText,
    now: CounterfactualText | None,
) -> None:
    if now is None:
        found.same(f"{place}: prompt", recorded.replaces, None)
        return
    limits = {"margin": LOGITS.size, "degrees": DEGREES.size}
    found.numbers(place, "counterfactual wording", recorded, now, **limits)


def _compare_region(
    found: RecordComparison,
    place: str,
    recorded: FlipRegion,
    now: FlipRegion,
    threshold: float,
    allowed: float,
) -> None:
    """Whether the answer flips is compared where its margin is not too near to tell."""
    for name, before, after in (
        ("margin", recorded.margin, now.margin),
        ("margin when blurred", recorded.blurred_margin, now.blurred_margin),
    ):
        found.number(f"{place}: {name}", before, after, allowed, f"region: {name}")
    if abs(now.margin - threshold) > allowed:
        found.same(f"{place}: flips", recorded.flips, now.flips)
    said = recorded.blurred_flips  # None: nobody asked
    if said is not None and abs(now.blurred_margin - threshold) > allowed:
        found.same(f"{place}: flips when blurred", said, now.blurred_flips)


def _proof(record: Explanation, now: Explanation) -> Proof | FirstProof:
    """What is computed now, by the rule of the record's own time."""
    if isinstance(record.proof, FirstProof) and isinstance(now.proof, Proof):
        return now.proof.as_first()
    return now.proof


def _compare_head(
    found: RecordComparison, record: Explanation, now: Explanation, forbidden: ForbiddenClass
) -> None:
    name = record.class_name
    found.same(f"{name}: frame", record.frame, now.frame)
    found.same(f"{name}: view", record.view, now.view)
    slope = forbidden.calibration.a if forbidden.calibration else 1.0
    limits = {"margin": LOGITS.size, "probability": PROBABILITIES.size * slope}
    found.numbers(name, "explanation", record, now, **limits)
    found.number(
        f"{name}: boundary", record.boundary_degrees, now.boundary_degrees, DEGREES, "boundary"
    )
    for field in ("class_name", "threshold", "calibrated", "no_map"):
        found.same(f"{name}: {field}", getattr(record, field), getattr(now, field))
    for field in ("policy", "policy_digest", "fingerprint", "seed"):
        before, after = getattr(record.provenance, field), getattr(now.provenance, field)
        found.same(f"{name}: provenance: {field}", before, after)


def _compare_maps(found: RecordComparison, place: str, record: Map | None, now: Map | None) -> None:
    if record is None or now is None:
        found.same(place, record is not None, now is not None)
        return
    found.same(f"{place}: method", record.method, now.method)
    found.same(f"{place}: places of high norm", record.high_norm, now.high_norm)
    found.numbers(place, "map", record, now, total=LOGITS.size, remainder=LOGITS.size)
    found.grid(place, record.grid, now.grid)


def _compare_prompts(found: RecordComparison, record: Explanation, now: Explanation) -> None:
    """Prompts that carry the margin; a second one may just have passed the mark, or not."""
    before, after = {p.prompt: p for p in record.words}, {p.prompt: p for p in now.words}
    for prompt in dict.fromkeys([*before, *after]):
        place = f"{record.class_name}: words of {prompt!r}"
        if prompt in before and prompt in after:
            _compare_words(found, place, before[prompt], after[prompt])
        elif abs((before.get(prompt) or after[prompt]).weight - CARRYING) > SHARES.size:
            found.same(place, prompt in before, prompt in after)


def _compare_words(
    found: RecordComparison, place: str, record: PromptWords, now: PromptWords
) -> None:
    limits = {"weight": SHARES.size, "logit": LOGITS.size, "empty": LOGITS.size}
    found.numbers(place, "prompt", record, now, **limits)
    said, again = " ".join(w.word for w in record.words), " ".join(w.word for w in now.words)
    if found.same(f"{place}: words", said, again):
        for before, after in zip(record.words, now.words, strict=True):
            _compare_word(found, f"{place}: {before.word}", before, after)


def _compare_word(found: RecordComparison, place: str, record: Word, now: Word) -> None:
    found.numbers(place, "word", record, now, **dict.fromkeys(NUMBERS_OF_A_WORD, LOGITS.size))
    if record.grid is None or now.grid is None:
        found.same(f"{place}: map", record.grid is not None, now.grid is not None)
    else:
        found.grid(f"{place}: map", record.grid, now.grid)


def _compare_proofs(
    found: RecordComparison, record: Explanation, now: Proof | FirstProof, allowed: float
) -> None:
    """What the masked images lost; those come from the screening pass.

    Whether it is faithful and specific follows from these figures. In another precision they may
    lie a little apart, on both sides of a limit.
    """
    name = record.class_name
    before, after = dict(_figures(record.proof.model_dump())), dict(_figures(now.model_dump()))
    for figure in dict.fromkeys([*before, *after]):
        place, was, found_now = f"{name}: proof: {figure}", before.get(figure), after.get(figure)
        if isinstance(was, str) or isinstance(found_now, str):
            found.same(place, was, found_now)
            continue
        limit = LOGITS.size if figure.endswith("error") else allowed
        found.number(place, was, found_now, limit, f"proof: {figure.split('[')[0]}")
    if allowed <= LOGITS.size:
        found.same(f"{name}: faithful", record.proof.faithful, now.faithful)
        found.same(f"{name}: specific", record.proof.specific, now.specific)


def _figures(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  (JSON)
    """Every figure of a proof by name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _figures(inner, f"{name}: {key}" if name else key)
    elif isinstance(value, tuple | list):
        for n, inner in enumerate(value):
            yield from _figures(inner, f"{name}[{n}]")
    else:
        yield name, value
