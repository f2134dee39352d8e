"""Which places, when they are gone, change the answer: masked images through the served model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from filter_service.explain.record import FlipRegion
from filter_service.scoring import ClassVectors, FloatArray

Screen = Callable[[Tensor], FloatArray]  # (n, 3, h, w) -> (n, d) unit, the served model

CHUNK = 64  # masked images in one forward pass
BLURRED_TO = 4  # pixels a side that are left of a blurred image


@dataclass(frozen=True)
class Suspect:
    """A flagged image with its map, whose places can be taken away."""

    pixels: Tensor  # (3, h, w)
    grid: FloatArray  # (gh, gw) logits
    vectors: ClassVectors
    threshold: float  # logits

    @property
    def order(self) -> npt.NDArray[np.intp]:
        """Places from the most to the least incriminating: (gh * gw,)."""
        return np.argsort(-self.grid.ravel(), kind="stable")

    def without(self, places: npt.NDArray[np.intp]) -> Tensor:
        """The image with these places filled by its mean colour: (3, h, w)."""
        return self._filled(places, self.pixels.mean(dim=(1, 2), keepdim=True))

    def blurred(self, places: npt.NDArray[np.intp]) -> Tensor:
        """The image with these places blurred beyond recognition: (3, h, w)."""
        few = F.adaptive_avg_pool2d(self.pixels[None], BLURRED_TO)  # (1, 3, few, few)
        return self._filled(places, F.interpolate(few, self.pixels.shape[1:], mode="bicubic")[0])

    def _filled(self, places: npt.NDArray[np.intp], fill: Tensor) -> Tensor:
        gone = torch.zeros(self.grid.size)
        gone[torch.from_numpy(places)] = 1
        gone = gone.reshape(1, 1, *self.grid.shape)  # (1, 1, gh, gw)
        mask = F.interpolate(gone, size=self.pixels.shape[1:], mode="nearest")[0]  # (1, h, w)
        return torch.lerp(self.pixels, fill, mask)


def margins(screen: Screen, masked: Sequence[tuple[Suspect, Tensor]]) -> list[float]:
    """The served model's margin of each masked image, in as few forward passes as possible."""
    answers: list[float] = []
    for start in range(0, len(masked), CHUNK):
        part = masked[start : start + CHUNK]
        z = screen(torch.stack([image for _, image in part]))  # (n, d)
        answers += [float(s.vectors.margins(v[None])[0]) for (s, _), v in zip(part, z, strict=True)]
    return answers


def flip_regions(screen: Screen, suspects: Sequence[Suspect]) -> list[FlipRegion]:
    """The smallest region of each image that flips its answer, found by bisection in map order.

    Its places are filled with the mean colour; what is found is tried once more with a blur.

    All images take each step together: about log2(places) forward passes of the whole batch.
    """
    low = [0] * len(suspects)  # this many places gone: still flagged
    high = [s.grid.size for s in suspects]  # this many gone: no longer flagged, if `best` says so
    worst = margins(screen, [(s, s.without(s.order)) for s in suspects])
    best = [m if m < s.threshold else None for s, m in zip(suspects, worst, strict=True)]
    while open_ := [
        i for i in range(len(suspects)) if best[i] is not None and high[i] - low[i] > 1
    ]:
        tried = {i: (low[i] + high[i]) // 2 for i in open_}
        masked = [
            (suspects[i], suspects[i].without(suspects[i].order[:k])) for i, k in tried.items()
        ]
        for (i, k), m in zip(tried.items(), margins(screen, masked), strict=True):
            if m < suspects[i].threshold:
                high[i], best[i] = k, m
            else:
                low[i] = k
    found = [s.order[:k] for s, k in zip(suspects, high, strict=True)]
    blurred = margins(screen, [(s, s.blurred(r)) for s, r in zip(suspects, found, strict=True)])
    return [
        FlipRegion(
            places=tuple(int(p) for p in region),
            flips=b is not None,
            margin=w if b is None else b,
            blurred_margin=second,
        )
        for region, b, w, second in zip(found, best, worst, blurred, strict=True)
    ]
