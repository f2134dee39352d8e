"""Selects the frames of an animation to be judged, by display time and by difference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL.ImageFile import ImageFile

SIDE = 32  # points of a glance, each way
ALIKE = 8  # levels of 255: frames of which no point differs more show the same
SHORTEST, USUAL = 0.01, 0.1  # seconds; browsers show what asks for no longer this long instead

Points = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Glance:
    """A frame's display time and a small copy of it, for choosing among many frames."""

    seconds: float  # on the screen
    points: Points  # (SIDE, SIDE, 4), the mean of every part of the frame


def glance(picture: ImageFile) -> Glance:
    """At a loaded frame."""
    layer = picture if picture.mode.startswith("I;16") else picture.convert("RGBA")
    points = np.asarray(layer.resize((SIDE, SIDE)).convert("RGBA"))
    seconds = float(picture.info.get("duration", 0)) / 1000
    return Glance(seconds if SHORTEST < seconds < np.inf else USUAL, points)


def chosen(glances: Sequence[Glance], most: int) -> tuple[int, ...]:
    """At most so many frame numbers, in order.

    The first, and the last, on which what does not repeat stays; then those that are shown at
    moments evenly spread over the time, half of all, so that none that is shown for long is missed;
    then, one after the other, the frame that differs most from every chosen one.
    """
    if len(glances) <= most:
        return tuple(range(len(glances)))
    numbers = list(dict.fromkeys((0, len(glances) - 1, *_at_moments(glances, most // 2))))[:most]
    apart = np.full(len(glances), np.inf)  # from the nearest of the chosen frames
    for number in numbers:
        apart = np.minimum(apart, _apart(glances, number))
    while len(numbers) < most:
        numbers.append(_next(apart, numbers))
        apart = np.minimum(apart, _apart(glances, numbers[-1]))
    return tuple(sorted(numbers))


def seen_time(glances: Sequence[Glance], numbers: Sequence[int]) -> float:
    """The share of the time in which a frame is shown that is among these, or looks like one."""
    apart = np.min([_apart(glances, number) for number in numbers], axis=0)  # (frames,)
    seconds = np.array([g.seconds for g in glances])
    return float(seconds[apart <= ALIKE].sum() / seconds.sum())


def _at_moments(glances: Sequence[Glance], count: int) -> list[int]:
    """The frames on the screen in the middle of each of so many equal parts of the time."""
    ends = np.cumsum([g.seconds for g in glances])
    moments = (np.arange(count) + 0.5) / max(1, count) * ends[-1]
    return [int(n) for n in np.minimum(np.searchsorted(ends, moments, "right"), len(ends) - 1)]


def _apart(glances: Sequence[Glance], number: int) -> npt.NDArray[np.float64]:
    """How far every frame is from this one, at the point where they differ most: (frames,)."""
    here = glances[number].points.astype(np.int16)
    return np.array([np.abs(g.points - here).max() for g in glances], dtype=np.float64)


def _next(apart: npt.NDArray[np.float64], numbers: Sequence[int]) -> int:
    """The frame that differs most; where none does, the middle of the longest gap."""
    if apart.max() > 0:
        return int(apart.argmax())
    known = sorted(numbers)
    gaps = np.diff(known)
    widest = int(gaps.argmax())
    return known[widest] + int(gaps[widest]) // 2
