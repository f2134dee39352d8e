"""Margins of one class as it is edited, beside those of the active version.

Where the words are the active version's, the margins are those that the service has kept. Other
words were judged by nothing yet: their margins are computed over a sample of kept vectors, in half
precision, and so are the active version's, so that both are of the same images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.kept_margins import (
    LabelledImage,
    encoder_that_judged_last,
    locked_among,
    of_scores,
    stream_of,
    truths_of,
)
from filter_service.calibration.labelled_margins import LabelledMargins
from filter_service.db.query_encoder import WordedPolicy
from filter_service.db.session import Sessions
from filter_service.policy import Policy
from filter_service.rollout.policy_comparison import Ids
from filter_service.rollout.vector_sample import VectorSample
from filter_service.scoring import ClassVectors

STREAM = 20_000  # images, the newest
LABELS = 5_000  # of a class, the newest
VERSIONS = 8  # whose scores are read, the newest with the same words

Floats = npt.NDArray[np.float64]
Words = Callable[[Policy], WordedPolicy]


@dataclass(frozen=True, slots=True)
class ImageMargins:
    """The same images in two versions, whose words may be the same."""

    images: Ids  # (n,)
    edited: Floats  # (n,) logits
    active: Floats | None  # (n,) logits; None: the active version has no such class

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class ClassMargins:
    """What is known of a class: the newest images as they come, and those that are labelled."""

    stream: ImageMargins
    known: ImageMargins  # labelled
    labelled: LabelledMargins  # the same images, by their edited margins
    encoder_id: int
    computed: bool  # for this form, in half precision


@dataclass(frozen=True, slots=True)
class EditedClass:
    """A class of a version that is edited, and the one that it takes the place of."""

    policy: Policy
    name: str
    active: Policy | None  # None: the name means nothing yet
    was: str  # the class's name in the active version; empty: it is new

    @property
    def active_name(self) -> str | None:
        has = self.active is not None and any(c.name == self.was for c in self.active.classes)
        return self.was if has else None

    @property
    def label_name(self) -> str:
        """Under which people have labelled it: a class that is renamed is still the same."""
        return self.active_name or self.name

    @property
    def same_words(self) -> bool:
        if self.active is None or self.active_name is None:
            return False
        edited = labels.words_of(self.policy, self.name)
        return edited == labels.words_of(self.active, self.active_name)


def class_margins(sessions: Sessions, asked: EditedClass, words: Words) -> ClassMargins:
    """Both versions' margins; raises Transient where words need a model that cannot be had."""
    if asked.same_words:
        with sessions.begin() as session:
            found = _kept(session, asked)
        if found is not None:
            return found
    return _computed(sessions, asked, words)


def _kept(session: Session, asked: EditedClass) -> ClassMargins | None:
    """By the scores of every version that asks in these words; None where there are none."""
    encoder = encoder_that_judged_last(session)
    if encoder is None or asked.active is None or asked.active_name is None:
        return None
    versions = labels.versions_of(session, asked.active.name)
    same = labels.words_of(asked.active, asked.active_name)
    classes = sorted(labels.classes_in_words(versions, asked.active_name, same))[-VERSIONS:]
    images, margins = stream_of(session, classes, encoder, STREAM)
    if not len(images):
        return None
    known = of_scores(
        session, asked.label_name, classes, encoder, asked.policy.forbidden(asked.name).head, LABELS
    )
    of_labels = known.labelled.margins
    return ClassMargins(
        ImageMargins(images, margins, margins),
        ImageMargins(known.images, of_labels, of_labels),
        known.labelled,
        encoder,
        computed=False,
    )


def _computed(sessions: Sessions, asked: EditedClass, words: Words) -> ClassMargins:
    """By a matrix product over kept vectors."""
    worded = words(_uncalibrated(asked.policy))
    edited = _vectors_of(worded, asked.name)
    active = None
    if asked.active is not None and asked.active_name is not None:
        active = _vectors_of(words(_uncalibrated(asked.active)), asked.active_name)
    sample = VectorSample.newest(sessions, worded.encoder_id)
    with sessions.begin() as session:
        truths = truths_of(
            session, asked.label_name, asked.policy.forbidden(asked.name).head, LABELS
        )
        sample = sample.without(locked_among(session, sample.different))
    by_image = {label.image_id: label for label in truths}
    labelled = VectorSample.of_images(sessions, worded.encoder_id, list(by_image))
    known = _margins(labelled, edited, active)
    rows = [by_image[image] for image in known.images.tolist()]
    return ClassMargins(
        _margins(sample, edited, active),
        known,
        _labelled(known, rows),
        worded.encoder_id,
        computed=True,
    )


def _uncalibrated(policy: Policy) -> Policy:
    """Margins need no calibration, and one of another encoder is no reason to compute none."""
    classes = tuple(c.model_copy(update={"calibration": None}) for c in policy.classes)
    return policy.model_copy(update={"classes": classes})


def _vectors_of(worded: WordedPolicy, name: str) -> ClassVectors:
    return next(c for c in worded.vectors.classes if c.name == name)


def _margins(
    sample: VectorSample, edited: ClassVectors, active: ClassVectors | None
) -> ImageMargins:
    before = None if active is None else sample.margins(active)
    return ImageMargins(sample.different, sample.margins(edited), before)


def _labelled(known: ImageMargins, rows: Sequence[LabelledImage]) -> LabelledMargins:
    chances = [math.nan if row.chance is None else row.chance for row in rows]
    return LabelledMargins.of(known.edited, [row.truth for row in rows], chances)
