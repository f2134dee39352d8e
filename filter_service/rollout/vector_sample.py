"""Reads a sample of kept vectors, to compute margins for words that nothing was judged by yet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.db.session import Sessions
from filter_service.rollout.policy_comparison import Ids
from filter_service.rollout.stored_vectors import newest_vectors, vectors_of
from filter_service.scoring import ClassVectors, FloatArray

NEWEST = 16_384  # vectors, a view of an image each
TOGETHER = 2_048  # of which margins are computed in float64 at once

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VectorSample:
    """Images by their vectors, those of one image one after the other."""

    images: Ids  # (n,), the image of each vector
    vectors: npt.NDArray[np.float16]  # (n, d) unit

    @classmethod
    def newest(cls, sessions: Sessions, encoder_id: int, most: int = NEWEST) -> "VectorSample":
        """Of the newest images that an encoder has seen."""
        return cls._of(*newest_vectors(sessions, encoder_id, most))

    @classmethod
    def of_images(
        cls, sessions: Sessions, encoder_id: int, images: Sequence[int]
    ) -> "VectorSample":
        """Of these images, as far as their vectors are kept."""
        with sessions.begin() as session:
            return cls._of(*vectors_of(session, encoder_id, images))

    @classmethod
    def _of(cls, images: Ids, vectors: FloatArray) -> "VectorSample":
        return cls(images, vectors.astype(np.float16))

    def without(self, images: Ids) -> "VectorSample":
        """Those that are of other images."""
        kept = ~np.isin(self.images, images)
        return VectorSample(self.images[kept], self.vectors[kept])

    @property
    def different(self) -> Ids:
        """Each image once, in the order of the vectors: (images,)."""
        return self.images[self._starts()]

    def first_views(self) -> FloatArray:
        """The first vector of each image: (images, d)."""
        return self.vectors[self._starts()].astype(np.float32)

    def margins(self, words: ClassVectors) -> Floats:
        """The worst view of each image counts: (images,) logits, in the order of `different`."""
        if not len(self.images):
            return np.zeros(0)
        pieces = range(0, len(self.vectors), TOGETHER)
        each = [
            words.margins(self.vectors[i : i + TOGETHER].astype(np.float32)) for i in pieces
        ]  # (TOGETHER,) each
        return np.maximum.reduceat(np.concatenate(each), self._starts())

    def _starts(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(np.diff(self.images, prepend=-1))
