"""Compares a recorded explanation with the recomputed one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from filter_service.audit.record.stored_json import digest_of, explanation_in
from filter_service.audit.replay.item_on_record import RecordedExplanation
from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.rescoring import Rescorer, suspect_of
from filter_service.audit.replay.tolerances import DEGREES, LOGITS, PROBABILITIES, SHARES
from filter_service.encoder import Encoder
from filter_service.explain.explainer import CARRYING
from filter_service.explain.question import Question
from filter_service.images.views import View
from filter_service.pipeline.subject import Subject
from filter_service.policy import Policy
from filter_service.verdicts import Outcome
from filter_service.verdicts.explanation import Explanation, Map, PromptWords, Word
from filter_service.verdicts.faithfulness import FirstProof, Proof

NUMBERS_OF_A_WORD = ("shapley", "standard_error", "substituted", "leave_one_out")


@dataclass(frozen=True)
class RecomputedImage:
    """What was computed now of one image, by the way that every image takes."""

    subject: Subject
    outcome: Outcome
    policy: Policy
    encoder: Encoder
    bands: npt.NDArray[np.float64]  # (classes,) logits, of fast looks

    def explanation(self, class_name: str) -> Explanation | None:
        return next((e for e in self.outcome.explanations if e.class_name == class_name), None)

    def question(self, class_name: str, view: View) -> Question | None:
        """None where the image has no such view now."""
        names = [c.name for c in self.policy.classes]
        if class_name not in names or view not in self.outcome.views:
            return None
        index = names.index(class_name)
        vectors = self.encoder.vectors(self.policy).classes[index]
        assert self.outcome.vectors is not None
        z = self.outcome.vectors[self.outcome.views.index(view)]  # (d,)
        return Question(self.outcome.digest, z, self.policy, vectors, float(self.bands[index]))


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
    computed: RecomputedImage,
    rescorer: Rescorer,
) -> None:
    """Everything that the record of one class says."""
    record = explanation_in(stored.text)
    if record is None:
        found.same(f"{class_name}: record", "cannot be read", "whole")
        return
    question = computed.question(class_name, record.seen)
    if question is None:
        here = f"{record.frame} {record.view}".strip()
        found.same(f"{class_name}: view", here, None)
        return
    found.same(f"{class_name}: the row's faithful", stored.faithful, record.faithful)
    rescorer.images(found, class_name, question, record.images)
    rescorer.texts(found, class_name, question, record.texts)
    if record.region is not None and record.map is not None:
        pixels: Any = computed.subject.load()[computed.outcome.views.index(record.seen)]
        suspect = suspect_of(pixels, record.map, question)
        rescorer.region(found, class_name, suspect, record.region, question.band)
    allowed, now = rescorer.screened(question.band), computed.explanation(class_name)
    if now is None:
        found.same(f"{class_name}: explanation", "recorded", "none: it is not flagged now")
        return
    _compare_head(found, record, now, question)
    _compare_maps(found, f"{class_name}: map", record.map, now.map)
    _compare_prompts(found, record, now)
    _compare_proofs(found, record, _proof(record, now), allowed)


def _proof(record: Explanation, now: Explanation) -> Proof | FirstProof:
    """What is computed now, by the rule of the record's own time."""
    if isinstance(record.proof, FirstProof) and isinstance(now.proof, Proof):
        return now.proof.as_first()
    return now.proof


def _compare_head(
    found: RecordComparison, record: Explanation, now: Explanation, question: Question
) -> None:
    name = record.class_name
    found.same(f"{name}: frame", record.frame, now.frame)
    found.same(f"{name}: view", record.view, now.view)
    found.number(f"{name}: margin", record.margin, now.margin, LOGITS, "explanation: margin")
    forbidden = question.policy.forbidden(question.vectors.name)
    slope = forbidden.calibration.a if forbidden.calibration else 1.0
    found.number(
        f"{name}: probability",
        record.probability,
        now.probability,
        PROBABILITIES.size * slope,
        "explanation: probability",
    )
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
    found.number(f"{place}: total", record.total, now.total, LOGITS, "map: total")
    found.number(f"{place}: remainder", record.remainder, now.remainder, LOGITS, "map: remainder")
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
    found.number(f"{place}: weight", record.weight, now.weight, SHARES, "prompt: weight")
    found.number(f"{place}: logit", record.logit, now.logit, LOGITS, "prompt: logit")
    found.number(f"{place}: empty", record.empty, now.empty, LOGITS, "prompt: empty")
    said, again = " ".join(w.word for w in record.words), " ".join(w.word for w in now.words)
    if found.same(f"{place}: words", said, again):
        for before, after in zip(record.words, now.words, strict=True):
            _compare_word(found, f"{place}: {before.word}", before, after)


def _compare_word(found: RecordComparison, place: str, record: Word, now: Word) -> None:
    for field in NUMBERS_OF_A_WORD:
        before, after = getattr(record, field), getattr(now, field)
        found.number(f"{place}: {field}", before, after, LOGITS, f"word: {field}")
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
