"""Recomputes the scores of other images, wordings and regions that an explanation names.

Nothing is searched for: since the item was judged the memory has grown, and would answer otherwise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import exists, select

from filter_service.db.embeddings import known_vectors
from filter_service.db.session import Sessions
from filter_service.db.tables import Restriction, StoredImage
from filter_service.encoder import Encoder
from filter_service.errors import ImageError
from filter_service.explain.question import Question, degrees
from filter_service.explain.regions import Suspect, margins
from filter_service.images import Limits
from filter_service.pipeline.subject import Subject, prepare
from filter_service.policy.coverage import Coverage
from filter_service.scoring import FloatArray
from filter_service.storage import Storage
from filter_service.verdicts.explanation import (
    CounterfactualImage,
    CounterfactualText,
    FlipRegion,
    Map,
)


@dataclass(frozen=True, slots=True)
class RescoredImage:
    """Another image that an explanation names, as it is seen now."""

    image: CounterfactualImage | None = None  # None: nobody knows any more
    kept: bool = False  # of its vectors those in the store alone: rounded, or exact since
    missing: str = ""  # why nobody knows


@dataclass(frozen=True)
class Rescorer:
    """Recomputes the margins of images, wordings and regions with the encoder."""

    sessions: Sessions
    storage: Storage
    encoder: Encoder
    encoder_id: int
    limits: Limits

    def image(self, question: Question, recorded: CounterfactualImage) -> RescoredImage:
        """By the view that comes nearest to what is on record.

        The record names none, nor whether a fast look or the exact one gave its vector, or the
        store, which keeps fast looks in float16: each of them may have been meant.
        """
        seen = self._looks(recorded.digest)
        if isinstance(seen, str):
            return RescoredImage(missing=seen)
        answers = question.vectors.margins(seen.vectors)  # (looks,)
        best = int(np.abs(answers - recorded.margin).argmin())
        angle = degrees(question.z, seen.vectors[best])
        image = CounterfactualImage(
            digest=recorded.digest, degrees=angle, margin=float(answers[best])
        )
        return RescoredImage(image, seen.kept)

    def text(self, question: Question, recorded: CounterfactualText) -> CounterfactualText | None:
        """The wording in the place of the prompt that it replaces; None without such a prompt."""
        prompts = question.policy.forbidden(question.vectors.name).prompts
        if recorded.replaces not in prompts:
            return None
        index = prompts.index(recorded.replaces)
        vector = question.worded([recorded.text], self.encoder.encode_texts)[0]  # (d,)
        angle = degrees(question.vectors.prompts[index], vector)
        margin = question.reworded(index, vector)
        return recorded.model_copy(update={"degrees": angle, "margin": margin})

    def region(
        self,
        question: Question,
        pixels: Any,  # noqa: ANN401  (a (3, h, w) tensor)
        recorded: FlipRegion,
        map_: Map,
    ) -> FlipRegion | None:
        """The image without the places on record, filled and blurred; None: it has no such."""
        grid = map_.grid.astype(np.float32)
        places = np.array(recorded.places, dtype=np.intp)
        if not places.size or places.min() < 0 or places.max() >= grid.size:
            return None
        suspect = Suspect(pixels, grid, question.vectors, question.threshold)
        masked = [(suspect, suspect.without(places)), (suspect, suspect.blurred(places))]
        filled, blurred = margins(self.encoder.screen, masked)
        return FlipRegion(
            places=recorded.places,
            flips=filled < suspect.threshold,
            margin=filled,
            blurred_margin=blurred,
            blurred_flips=blurred < suspect.threshold,
        )

    def _looks(self, digest: str) -> "_Looks | str":
        """What the image may have looked like to a memory, or why nobody knows any more."""
        with self.sessions.begin() as session:
            image = session.scalar(select(StoredImage).where(StoredImage.digest == digest))
            if image is None:
                return "was erased meanwhile."
            if session.scalar(select(exists().where(Restriction.image_id == image.id))):
                return "was locked away meanwhile."
            kept = known_vectors(session, self.encoder_id, [image.id])
        if image.bytes_gone_at is not None:
            if digest not in kept:
                return "has expired meanwhile."
            return _Looks(kept[digest].vectors, kept=True)
        try:
            data = self.storage.get(digest)
            subjects = [prepare(data, self.encoder, self.limits)]
            if any(view.box for view in subjects[0].views):
                subjects.append(prepare(data, self.encoder, self.limits, Coverage.MODEL))
            return _Looks(np.concatenate([_looks(s, self.encoder) for s in subjects]))
        except ImageError as error:
            return f"cannot be read: {error}"


@dataclass(frozen=True, slots=True)
class _Looks:
    """Every vector that an image may have had."""

    vectors: FloatArray  # (n, d) unit
    kept: bool = False


def _looks(subject: Subject, encoder: Encoder) -> FloatArray:
    """Each view as the first look saw it, the same in float16, and exactly: (3 * views, d)."""
    assert subject.pixels is not None
    fast = encoder.screen(subject.pixels)  # (views, d)
    half = fast.astype(np.float16).astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    return np.concatenate([fast, half, encoder.encode(subject.load())])
