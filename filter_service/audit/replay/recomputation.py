"""Recomputes all that an item's record says: from its stored bytes, with the encoder at hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from filter_service.audit.replay.evidence_rescoring import RescoredImage, Rescorer
from filter_service.audit.replay.item_on_record import OnRecord
from filter_service.errors import ImageError
from filter_service.explain.question import Question
from filter_service.pipeline import moderate
from filter_service.pipeline.subject import Subject, prepare
from filter_service.policy.coverage import Coverage
from filter_service.verdicts import Outcome
from filter_service.verdicts.explanation import CounterfactualText, Explanation, FlipRegion


@dataclass(frozen=True, slots=True)
class RecomputedExplanation:
    """What is computed now of an explanation on record, and of what it names."""

    explanation: Explanation | None  # None: the class is not flagged now
    threshold: float  # logits
    band: float  # logits, of fast looks
    images: tuple[RescoredImage, ...]  # as the record has them, one by one
    texts: tuple[CounterfactualText | None, ...]  # likewise; None: it replaces no prompt
    region: FlipRegion | None  # None: none is on record, or its places are not on the map


@dataclass(frozen=True, slots=True)
class RecomputedRecord:
    """What is computed now of one item, in the order in which its record has it."""

    precision: str  # of the screening pass here
    exact: bool  # that pass is float32's, here and on record
    scale: float  # the encoder's, logits
    bands: npt.NDArray[np.float64]  # (classes,) logits, of fast looks
    outcome: Outcome | None = None  # None: the bytes cannot be read
    problem: str = ""  # why not
    same_views: bool = True
    # By class, of those on record that can be read; None: the image has no such view now.
    explanations: Mapping[str, RecomputedExplanation | None] = field(default_factory=dict)


def recompute(record: OnRecord, rescorer: Rescorer) -> RecomputedRecord:
    """Everything anew; the record only says of what."""
    encoder, policy = rescorer.encoder, record.policy.policy
    # A fast look's margins may lie this far apart, in its precision then or now.
    bands = np.maximum(encoder.screening_in(record.precision).band(policy), encoder.band(policy))
    alike = encoder.precision == record.precision
    about = (
        encoder.precision,
        alike and encoder.screening_is_exact,
        encoder.logit_scale.factor,
        bands,
    )
    try:
        subject, same_views = subject_of(record, rescorer)
    except ImageError as error:  # the store should have it, whole
        return RecomputedRecord(*about, problem=str(error))
    (outcome,) = moderate([subject], policy, encoder)
    image = _Image(record, subject, outcome, bands, rescorer)
    explanations = {
        name: image.explained(name, stored.explanation)
        for name, stored in record.explanations.items()
        if stored.explanation is not None
    }
    return RecomputedRecord(
        *about, outcome=outcome, same_views=same_views, explanations=explanations
    )


def subject_of(record: OnRecord, rescorer: Rescorer) -> tuple[Subject, bool]:
    """Seen as it was then, as the stored views tell; False where nothing gives those here."""
    data, said = rescorer.storage.get(record.digest), record.policy.policy.coverage
    for coverage in dict.fromkeys((said or Coverage.WHOLE, *Coverage)):
        subject = prepare(data, rescorer.encoder, rescorer.limits, coverage)
        if record.views.issuperset(subject.views) or not record.views:
            return subject, True
    return prepare(data, rescorer.encoder, rescorer.limits, said or Coverage.WHOLE), False


@dataclass(frozen=True, slots=True)
class _Image:
    """What was computed of the image itself, to ask what explanations say of it."""

    record: OnRecord
    subject: Subject
    outcome: Outcome
    bands: npt.NDArray[np.float64]  # (classes,)
    rescorer: Rescorer

    def explained(self, name: str, recorded: Explanation) -> RecomputedExplanation | None:
        question = self._question(name, recorded)
        if question is None:
            return None
        region = None
        if recorded.region is not None and recorded.map is not None:
            pixels = self.subject.load()[self.outcome.views.index(recorded.seen)]  # (3, h, w)
            region = self.rescorer.region(question, pixels, recorded.region, recorded.map)
        return RecomputedExplanation(
            next((e for e in self.outcome.explanations if e.class_name == name), None),
            question.threshold,
            question.band,
            tuple(self.rescorer.image(question, image) for image in recorded.images),
            tuple(self.rescorer.text(question, wording) for wording in recorded.texts),
            region,
        )

    def _question(self, name: str, recorded: Explanation) -> Question | None:
        policy = self.record.policy.policy
        names = [c.name for c in policy.classes]
        if name not in names or recorded.seen not in self.outcome.views:
            return None
        index = names.index(name)
        vectors = self.rescorer.encoder.vectors(policy).classes[index]
        assert self.outcome.vectors is not None
        z = self.outcome.vectors[self.outcome.views.index(recorded.seen)]  # (d,)
        return Question(self.outcome.digest, z, policy, vectors, float(self.bands[index]))
