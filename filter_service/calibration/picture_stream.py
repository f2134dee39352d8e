"""Pictures of one's own stream as an encoder sees them, and what of them shows a class most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.scoring import ClassVectors, FloatArray

TOP = 0.05  # of the pictures, the highest of a class
FEWEST_TOP = 20


@dataclass(frozen=True)
class PictureStream:
    """Pictures, each once; of one with several views the strongest counts, as for a verdict."""

    vectors: FloatArray  # (views, d) unit, those of one picture together
    pictures: npt.NDArray[np.intp]  # (views,): whose view it is, 0, 0, 1, 2, ...

    @classmethod
    def of(cls, pictures: Sequence[FloatArray]) -> "PictureStream":
        """From the vectors, (views, d), of each picture."""
        counts = [len(views) for views in pictures]
        none = np.zeros((0, 0), np.float32)
        vectors = np.concatenate(pictures) if pictures else none
        return cls(vectors, np.repeat(np.arange(len(counts)), counts))

    def __len__(self) -> int:
        return int(self.pictures[-1]) + 1 if len(self.pictures) else 0

    @property
    def sought(self) -> int:
        """How many pictures are called the top ones of a class."""
        return min(len(self), max(FEWEST_TOP, round(TOP * len(self))))

    def margins(self, of: ClassVectors) -> npt.NDArray[np.float64]:
        """The margin of each picture, in logits: (n,)."""
        starts = np.flatnonzero(np.diff(self.pictures, prepend=-1))
        return np.asarray(np.maximum.reduceat(of.margins(self.vectors), starts))

    def top(self, of: ClassVectors) -> FloatArray:
        """One view of each top picture of a class, that which shows it most strongly: (t, d)."""
        order = np.argsort(-of.margins(self.vectors), kind="stable")
        first = np.unique(self.pictures[order], return_index=True)[1]  # the place of each picture
        return self.vectors[order[np.sort(first)[: self.sought]]]
