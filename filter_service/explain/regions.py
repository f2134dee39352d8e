"""Finds the smallest regions whose masking clears a flag, or that keep it by themselves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from filter_service.scoring import ClassVectors, FloatArray
from filter_service.verdicts.explanation import FlipRegion

Places = npt.NDArray[np.intp]
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
    def order(self) -> Places:
        """Places from the most to the least incriminating: (gh * gw,)."""
        return np.argsort(-self.grid.ravel(), kind="stable")

    def without(self, places: Places) -> Tensor:
        """The image with these places filled by its mean colour: (3, h, w)."""
        return self._filled(places, self.pixels.mean(dim=(1, 2), keepdim=True))

    def blurred(self, places: Places) -> Tensor:
        """The image with these places blurred beyond recognition: (3, h, w)."""
        few = F.adaptive_avg_pool2d(self.pixels[None], BLURRED_TO)  # (1, 3, few, few)
        return self._filled(places, F.interpolate(few, self.pixels.shape[1:], mode="bicubic")[0])

    def _filled(self, places: Places, fill: Tensor) -> Tensor:
        gone = torch.zeros(self.grid.size)
        gone[torch.from_numpy(places)] = 1
        gone = gone.reshape(1, 1, *self.grid.shape)  # (1, 1, gh, gw)
        mask = F.interpolate(gone, size=self.pixels.shape[1:], mode="nearest")[0]  # (1, h, w)
        return torch.lerp(self.pixels, fill, mask)


def margins(screen: Screen, masked: Sequence[tuple[Suspect, Tensor]]) -> list[float]:
    """The served model's margin of each masked image, in as few forward passes as possible."""
    z = vectors_of(screen, [image for _, image in masked])  # (n, d)
    return [float(s.vectors.margins(v[None])[0]) for (s, _), v in zip(masked, z, strict=True)]


def vectors_of(screen: Screen, images: Sequence[Tensor]) -> FloatArray:
    """The served model's vectors of images, (3, h, w) each: (n, d) unit."""
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    rows = [screen(torch.stack(list(chunk))) for chunk in chunks]  # (n, d) each
    return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def flip_regions(
    screen: Screen, suspects: Sequence[Suspect], known: Sequence[Known] | None = None
) -> list[FlipRegion]:
    """The smallest region of each image that flips its answer, found by bisection in map order.

    Its places are filled with the mean colour and, for a second opinion, blurred: sought is the
    smallest region that flips under both. All images take each step together: about log2(places)
    forward passes, fewer where `known` tells margins without the first so many places under the
    mean colour, and as many again for those that a blur leaves as they were.
    """
    asked = _Asked(
        screen,
        places=lambda s, k: s.order[:k],
        holds=lambda s, margin: margin < s.threshold,
    )
    return _regions(asked, suspects, known or [{} for _ in suspects])


def sufficient_regions(screen: Screen, suspects: Sequence[Suspect]) -> list[FlipRegion]:
    """The fewest first places that keep each image flagged when all the others are gone.

    `places` are those that stay; `flips` says that they do keep it flagged.
    """
    asked = _Asked(
        screen,
        places=lambda s, k: s.order[k:],
        holds=lambda s, margin: margin >= s.threshold,
    )
    regions = _regions(asked, suspects, [{} for _ in suspects])
    rest = [set(region.places) for region in regions]
    return [
        region.model_copy(update={"places": tuple(int(p) for p in s.order if int(p) not in gone)})
        for s, region, gone in zip(suspects, regions, rest, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is taken away at each step, and which answer is sought."""

    screen: Screen
    places: Callable[[Suspect, int], Places]
    holds: Callable[[Suspect, float], bool]

    def filled(self, tried: Sequence[tuple[Suspect, int]]) -> list[float]:
        """Margins with the mean colour in the places of each step."""
        return margins(self.screen, [(s, s.without(self.places(s, k))) for s, k in tried])

    def blurred(self, tried: Sequence[tuple[Suspect, int]]) -> list[float]:
        return margins(self.screen, [(s, s.blurred(self.places(s, k))) for s, k in tried])


@dataclass
class _Search:
    """One image's bisection: `low` places are too few, `high` are enough if they ever are."""

    suspect: Suspect
    low: int
    high: int
    margin: float | None  # with `high`; None: not tried
    enough: bool

    @classmethod
    def of(cls, suspect: Suspect, known: Known, holds: Callable[[Suspect, float], bool]) -> Self:
        """Begun with the margins that are known."""
        enough = [k for k, margin in known.items() if holds(suspect, margin)]
        high = min(enough, default=suspect.grid.size)
        low = max((k for k in known if k < high and k not in enough), default=0)
        return cls(suspect, low, high, known.get(high), bool(enough))

    @property
    def next(self) -> int | None:
        """How many places to try; None: done."""
        if self.margin is None:
            return self.high
        return (self.low + self.high) // 2 if self.enough and self.high - self.low > 1 else None

    @property
    def reached(self) -> float:
        """The margin with `high`, once the search is done."""
        assert self.margin is not None
        return self.margin

    def learn(self, tried: int, margin: float, holds: bool) -> None:
        if holds:
            self.high, self.margin, self.enough = tried, margin, True
        elif self.margin is None:
            self.margin = margin
        else:
            self.low = tried


def _bisect(
    searches: Sequence[_Search],
    answers: Callable[[Sequence[tuple[Suspect, int]]], list[float]],
    holds: Callable[[Suspect, float], bool],
) -> None:
    """Take every search to its end, a step of all in one pass."""
    while open_ := [(x, k) for x in searches if (k := x.next) is not None]:
        for (x, k), margin in zip(open_, answers([(x.suspect, k) for x, k in open_]), strict=True):
            x.learn(k, margin, holds(x.suspect, margin))


def _regions(
    asked: _Asked, suspects: Sequence[Suspect], known: Sequence[Known]
) -> list[FlipRegion]:
    """The smallest k for which the answer holds under both fills, or else under one."""
    searches = [
        _Search.of(s, answers, asked.holds) for s, answers in zip(suspects, known, strict=True)
    ]
    _bisect(searches, asked.filled, asked.holds)
    regions = _tried(asked, searches, [x.reached for x in searches], None)
    alone = [i for i, region in enumerate(regions) if region.flips != region.blurred_flips]
    first = [regions[i] for i in alone]
    for i, larger in zip(alone, _larger(asked, [searches[i] for i in alone], first), strict=True):
        if larger.blurred_flips and larger.flips >= regions[i].flips:
            regions[i] = larger
    return regions


def _larger(
    asked: _Asked, filled: Sequence[_Search], first: Sequence[FlipRegion]
) -> list[FlipRegion]:
    """The regions that flip under a blur where only one of the fills flipped what was found.

    Sought among the larger ones where the mean colour flips, else among all.
    """
    searches = [
        _Search(x.suspect, x.high, x.suspect.grid.size, None, enough=False)
        if region.flips
        else _Search(x.suspect, 0, x.high, region.blurred_margin, enough=True)
        for x, region in zip(filled, first, strict=True)
    ]
    _bisect(searches, asked.blurred, asked.holds)
    return _tried(asked, searches, None, [x.reached for x in searches])


def _tried(
    asked: _Asked,
    searches: Sequence[_Search],
    filled: Sequence[float] | None,
    blurred: Sequence[float] | None,
) -> list[FlipRegion]:
    """The regions that were reached, with the margins under both fills; None: not asked yet."""
    regions = [(x.suspect, x.high) for x in searches]
    both = zip(
        regions, filled or asked.filled(regions), blurred or asked.blurred(regions), strict=True
    )
    return [
        FlipRegion(
            places=tuple(int(p) for p in asked.places(suspect, k)),
            flips=asked.holds(suspect, mean),
            margin=mean,
            blurred_margin=blur,
            blurred_flips=asked.holds(suspect, blur),
        )
        for (suspect, k), mean, blur in both
    ]
