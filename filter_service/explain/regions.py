"""Which places, when they are gone, change the answer: masked images through the served model."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from filter_service.explain.record import FlipRegion
from filter_service.scoring import ClassVectors, FloatArray

Known = Mapping[int, float]  # places gone, in map order -> margin
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


def flip_regions(
    screen: Screen, suspects: Sequence[Suspect], known: Sequence[Known] | None = None
) -> list[FlipRegion]:
    """The smallest region of each image that flips its answer, found by bisection in map order.

    Its places are filled with the mean colour; what is found is tried once more with a blur. All
    images take each step together: about log2(places) forward passes, fewer where `known` tells
    margins without the first so many places.
    """
    return _regions(
        screen,
        suspects,
        known or [{} for _ in suspects],
        places=lambda s, k: s.order[:k],
        holds=lambda s, margin: margin < s.threshold,
    )


def sufficient_regions(screen: Screen, suspects: Sequence[Suspect]) -> list[FlipRegion]:
    """The fewest first places that keep each image flagged when all the others are gone.

    `places` are those that stay; `flips` says that they do keep it flagged.
    """
    found = _regions(
        screen,
        suspects,
        [{} for _ in suspects],
        places=lambda s, k: s.order[k:],
        holds=lambda s, margin: margin >= s.threshold,
    )
    rest = [set(region.places) for region in found]
    return [
        region.model_copy(update={"places": tuple(int(p) for p in s.order if int(p) not in gone)})
        for s, region, gone in zip(suspects, found, rest, strict=True)
    ]


@dataclass
class _Search:
    """One image's bisection: `low` places are too few, `high` are enough if they ever are."""

    suspect: Suspect
    low: int
    high: int
    margin: float | None  # with `high`; None: not tried
    enough: bool

    @property
    def next(self) -> int | None:
        """How many places to try; None: done."""
        if self.margin is None:
            return self.high
        return (self.low + self.high) // 2 if self.enough and self.high - self.low > 1 else None


def _regions(
    screen: Screen,
    suspects: Sequence[Suspect],
    known: Sequence[Known],
    places: Callable[[Suspect, int], npt.NDArray[np.intp]],
    holds: Callable[[Suspect, float], bool],
) -> list[FlipRegion]:
    """Bisect for the smallest k for which the answer holds without `places(suspect, k)`."""
    searches = [_started(s, told, holds) for s, told in zip(suspects, known, strict=True)]
    while open_ := [(x, k) for x in searches if (k := x.next) is not None]:
        masked = [(x.suspect, x.suspect.without(places(x.suspect, k))) for x, k in open_]
        for (x, k), margin in zip(open_, margins(screen, masked), strict=True):
            if holds(x.suspect, margin):
                x.high, x.margin, x.enough = k, margin, True
            elif x.margin is None:
                x.margin = margin
            else:
                x.low = k
    gone = [(x.suspect, places(x.suspect, x.high)) for x in searches]
    blurred = margins(screen, [(s, s.blurred(region)) for s, region in gone])
    return [
        FlipRegion(
            places=tuple(int(p) for p in region),
            flips=x.enough,
            margin=x.margin if x.margin is not None else math.nan,
            blurred_margin=second,
        )
        for x, (_, region), second in zip(searches, gone, blurred, strict=True)
    ]


def _started(suspect: Suspect, known: Known, holds: Callable[[Suspect, float], bool]) -> _Search:
    enough = [k for k, margin in known.items() if holds(suspect, margin)]
    high = min(enough, default=suspect.grid.size)
    low = max((k for k in known if k < high and k not in enough), default=0)
    return _Search(suspect, low, high, known.get(high), bool(enough))
