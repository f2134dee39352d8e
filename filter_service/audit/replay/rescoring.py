"""Recomputes the scores of other images, wordings and regions that an explanation names.

Nothing is searched for: since the item was judged the memory has grown, and would answer otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import exists, select

from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.tolerances import DEGREES, KEPT, LOGITS, SCREENED, SCREENED_DEGREES
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


@dataclass(frozen=True)
class Rescorer:
    """Recomputes the margins of images, wordings and regions with the encoder."""

    sessions: Sessions
    storage: Storage
    encoder: Encoder
    encoder_id: int
    limits: Limits
    exact: bool  # the screening pass is float32's, here and on record

    def screened(self, band: float) -> float:
        """What is allowed of margins that come from the screening pass, in logits."""
        return LOGITS.size if self.exact else max(LOGITS.size, SCREENED.size * band)

    def images(
        self,
        found: RecordComparison,
        place: str,
        question: Question,
        recorded: Sequence[CounterfactualImage],
    ) -> None:
        """Of each image the view that comes nearest to what is on record.

        The record names none, nor whether a fast look or the exact one gave its vector, or the
        store, which keeps fast looks in float16: each of them may have been meant.
        """
        for image in recorded:
            seen = self._looks(image.digest)
            here = f"{place}: image {image.digest[:12]}"
            if isinstance(seen, str):
                found.notes.append(f"{here} {seen}")
                continue
            answers = question.vectors.margins(seen.vectors)  # (looks,)
            best = int(np.abs(answers - image.margin).argmin())
            allowed, turn = (
                self.screened(question.band),
                DEGREES if self.exact else SCREENED_DEGREES,
            )
            if seen.kept:
                kept = KEPT.size * self.encoder.head.scale
                allowed, turn = max(kept, SCREENED.size * question.band), SCREENED_DEGREES
            computed = float(answers[best])
            found.number(
                f"{here}: margin", image.margin, computed, allowed, "counterfactual image: margin"
            )
            angle = degrees(question.z, seen.vectors[best])
            found.number(
                f"{here}: degrees", image.degrees, angle, turn, "counterfactual image: degrees"
            )

    def texts(
        self,
        found: RecordComparison,
        place: str,
        question: Question,
        recorded: Sequence[CounterfactualText],
    ) -> None:
        """Each wording in the place of the prompt that it replaces."""
        prompts = question.policy.forbidden(question.vectors.name).prompts
        for text in recorded:
            here = f"{place}: wording {text.text!r}"
            if text.replaces not in prompts:
                found.same(f"{here}: prompt", text.replaces, None)
                continue
            index = prompts.index(text.replaces)
            vector = question.worded([text.text], self.encoder.encode_texts)[0]  # (d,)
            found.number(
                f"{here}: margin",
                text.margin,
                question.reworded(index, vector),
                LOGITS,
                "counterfactual wording: margin",
            )
            found.number(
                f"{here}: degrees",
                text.degrees,
                degrees(question.vectors.prompts[index], vector),
                DEGREES,
                "counterfactual wording: degrees",
            )

    def region(
        self,
        found: RecordComparison,
        place: str,
        suspect: Suspect,
        recorded: FlipRegion,
        band: float,
    ) -> None:
        """The image without the places on record, filled and blurred."""
        places = np.array(recorded.places, dtype=np.intp)
        if not places.size or places.min() < 0 or places.max() >= suspect.grid.size:
            found.same(f"{place}: region", str(recorded.places), f"of {suspect.grid.size} places")
            return
        masked = [(suspect, suspect.without(places)), (suspect, suspect.blurred(places))]
        filled, blurred = margins(self.encoder.screen, masked)
        allowed = self.screened(band)
        found.number(f"{place}: region: margin", recorded.margin, filled, allowed, "region: margin")
        found.number(
            f"{place}: region: margin when blurred",
            recorded.blurred_margin,
            blurred,
            allowed,
            "region: margin when blurred",
        )
        if abs(filled - suspect.threshold) > allowed:
            found.same(f"{place}: region: flips", recorded.flips, filled < suspect.threshold)
        said = recorded.blurred_flips  # None: nobody asked
        if said is not None and abs(blurred - suspect.threshold) > allowed:
            cleared = blurred < suspect.threshold
            found.same(f"{place}: region: flips when blurred", said, cleared)

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
    kept: bool = False  # by the store alone: rounded, or replaced by an exact one since


def suspect_of(pixels: Any, recorded: Map, question: Question) -> Suspect:  # noqa: ANN401
    """An image, a (3, h, w) tensor, and the map on record, ready to be masked."""
    grid = recorded.grid.astype(np.float32)
    return Suspect(pixels, grid, question.vectors, question.threshold)


def _looks(subject: Subject, encoder: Encoder) -> FloatArray:
    """Each view as the first look saw it, the same in float16, and exactly: (3 * views, d)."""
    assert subject.pixels is not None
    fast = encoder.screen(subject.pixels)  # (views, d)
    half = fast.astype(np.float16).astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    return np.concatenate([fast, half, encoder.encode(subject.load())])
