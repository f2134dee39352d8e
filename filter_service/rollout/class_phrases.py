"""Phrases of the bank that separate a class's confirmed flags from its overturned ones."""

import numpy as np

from filter_service.calibration.separating_phrases import SeparatingPhrases, separating_phrases
from filter_service.db.embeddings import phrases_of
from filter_service.db.session import Sessions
from filter_service.rollout.class_margins import ClassMargins
from filter_service.rollout.vector_sample import VectorSample

BANK = 5_000  # phrases at most
FLAGS = 2_000  # that were reviewed, the newest


def class_phrases(sessions: Sessions, found: ClassMargins, margin: float) -> SeparatingPhrases:
    """Of the labelled images that the active version flags, from this margin on."""
    margins = found.known.edited if found.known.active is None else found.known.active
    flags = np.flatnonzero(margins >= margin)[:FLAGS]
    truths = dict(
        zip(found.known.images[flags].tolist(), found.labelled.truths[flags].tolist(), strict=True)
    )
    sample = VectorSample.of_images(sessions, found.encoder_id, list(truths))
    with sessions.begin() as session:
        texts, phrases = phrases_of(session, found.encoder_id, BANK)
    vectors, images = sample.first_views(), sample.different.tolist()
    known = np.array([truths[image] for image in images], np.bool_)
    return separating_phrases(vectors, known, texts, phrases)
