"""A house whose images were judged and labelled, and a stand-in for the model of its words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select

from filter_service.calibration import labels
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.query_encoder import QueryVector, WordedPolicy
from filter_service.db.session import Sessions
from filter_service.db.tables import Embedding, Item, PolicyClass, StoredEncoder, StoredScore
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.moderation import drain
from filter_service.policy import Policy
from filter_service.scoring import FloatArray, LogitScale, PolicyVectors, policy_vectors
from filter_service.storage import Storage
from tests.support.simple_classifier import DIM, POLICY, SimpleJudge, desk_of
from tests.support.web_clients import NullSeeker

SCALE = LogitScale(6.0)
COUNT, EVERY = 150, 3  # images; one in so many is labelled


_ITEMS = select(Item.image_id, Item.id)
_SCORES = (
    select(StoredScore.image_id, StoredScore.margin)
    .join(PolicyClass, PolicyClass.id == StoredScore.class_id)
    .where(PolicyClass.name == "knife")
)


@dataclass(frozen=True)
class KnownImage:
    """What a test knows of one image."""

    margin: float  # of a knife, as it was judged
    vectors: FloatArray  # (views, d) unit
    truth: bool | None
    item: int


def encode(texts: Sequence[str]) -> FloatArray:
    """Some unit vector for each text: (n, d)."""
    draws = [np.random.default_rng(list(text.encode())).standard_normal(DIM) for text in texts]
    rows = np.stack(draws)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def worded(policy: Policy) -> PolicyVectors:
    return policy_vectors(policy, encode, SCALE)


@dataclass
class WordSeeker(NullSeeker):
    """Turns words into vectors as `encode` does."""

    encoder_id: int

    def text(self, text: str) -> QueryVector:
        """The model is there: the console asks this once."""
        return QueryVector(self.encoder_id, encode([text])[0], SCALE.factor)

    def words(self, policy: Policy) -> WordedPolicy:
        return WordedPolicy(self.encoder_id, worded(policy), Tokenizer())


class Tokenizer:
    """No text is too long for it."""

    context_length = 4096


def furnished(
    sessions: Sessions, storage: Storage, policy: Policy = POLICY
) -> dict[int, KnownImage]:
    """Judged images by their ids, of which some are labelled for a knife."""
    margins = np.random.default_rng(3).normal(0, 3, COUNT).round(2)
    files = [Submission(f"{n}.txt", f"{m} {n}".encode()) for n, m in enumerate(margins.tolist())]
    submissions.accept(sessions, storage, lambda: None, files, policy)
    drain(desk_of(sessions, storage, SimpleJudge()), lambda: False)
    with sessions.begin() as session:
        items = {image: item for image, item in session.execute(_ITEMS) if image is not None}
        stored = dict(session.execute(_SCORES).all())
        vectors = dict(session.execute(select(Embedding.image_id, Embedding.vector)).all())
        truths = {image: _truth(n, stored[image]) for n, image in enumerate(sorted(items))}
        labels.keep(
            session,
            [
                ClassLabel(image, "knife", truth, LabelSource.SAMPLE, 0.5)
                for image, truth in truths.items()
                if truth is not None
            ],
        )
    return {
        image: KnownImage(stored[image], vectors[image][None], truths[image], item)
        for image, item in items.items()
    }


def _truth(n: int, margin: float) -> bool | None:
    """A third is labelled; mostly as the margin says."""
    return None if n % EVERY else (margin > 0) != (n % 7 == 0)


def encoder_of(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return session.scalars(select(StoredEncoder.id)).one()
