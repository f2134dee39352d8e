"""Views: the frames and windows of an image that the model is shown, and their coverage."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from filter_service.policy.coverage import Coverage

# Chosen by `python -m benchmarks.views`; docs/views.md has the table.
# How many times as long as the input's shape one look may be: what is longer is seen in windows of
# this shape, in which things hide each other less than where all of it is squashed.
WIDEST = 1.6
OVERLAP = 0.5  # of a window, at least, so that no object is cut by every window's edge
MOST = 16  # windows of one frame: pages up to 13 times as long as wide are seen whole
MOST_OF_ALL = 64  # views of one image, so that an animation's pixels fit into the memory
NEARLY = 0.95  # of the pixels, or of the time: from here on all was seen

_NAME = re.compile(r"(?P<reading>.*?) ?(?P<box>-?\d+,-?\d+,-?\d+,-?\d+)?", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A part of a picture in its pixels; it may reach beyond the picture's edges."""

    left: float
    top: float
    right: float
    bottom: float

    def scaled(self, across: float, down: float) -> "Box":
        """The same part of a picture that is so many times as large."""
        return Box(self.left * across, self.top * down, self.right * across, self.bottom * down)


@dataclass(frozen=True, slots=True)
class View:
    """One look at an image: at one frame, in one reading of it, whole or in part."""

    frame: int = 0  # its number in the file
    reading: str = ""  # how the frame was read, where viewers disagree
    box: Box | None = None  # in pixels of the upright frame at full size; None: as the model does

    @property
    def name(self) -> str:
        """What tells this view from others of its frame: empty for the plain frame."""
        box = self.box
        if box is None:
            return self.reading
        sides = (box.left, box.top, box.right, box.bottom)
        return " ".join(filter(None, (self.reading, ",".join(str(round(s)) for s in sides))))

    @classmethod
    def parse(cls, frame: int, name: str) -> Self:
        """The view of this name: `name`, the other way round."""
        found = _NAME.fullmatch(name)
        assert found is not None, "the pattern takes any text"
        sides = found["box"]
        return cls(frame, found["reading"], Box(*map(int, sides.split(","))) if sides else None)


@dataclass(frozen=True, slots=True)
class Extent:
    """The size and the display time of an image."""

    width: int  # pixels of each frame, upright
    height: int
    time: float = 1.0  # share of its time on the screen that its frames stand for


@dataclass(frozen=True, slots=True)
class ShareSeen:
    """How much of an image was looked at, in shares of it."""

    pixels: float
    time: float = 1.0

    @classmethod
    def of(cls, pixels: float | None, time: float | None) -> "ShareSeen | None":
        """As it is stored; None: of before this was written down, or nothing was looked at."""
        return None if pixels is None or time is None else cls(pixels, time)

    @property
    def partial(self) -> bool:
        """Something that matters may lie in what nobody looked at."""
        return min(self.pixels, self.time) < NEARLY

    def __str__(self) -> str:
        return f"{percent(self.pixels)} of its pixels and {percent(self.time)} of its time"

    @property
    def sentence(self) -> str:
        """The sentence for people."""
        return f"The model looked at {self}{': at a part of it' if self.partial else ''}."


def is_partial(pixels: float | None, time: float | None) -> bool:
    """Of shares as they are stored."""
    seen = ShareSeen.of(pixels, time)
    return seen is not None and seen.partial


def percent(share: float) -> str:
    """Rounded down, so that what is not whole is not called so."""
    return f"{math.floor(100 * share + 1e-6)} %"


def windows(
    width: int,
    height: int,
    preprocessing: Mapping[str, Any],
    coverage: Coverage = Coverage.WHOLE,
    frames: int = 1,
) -> tuple[Box | None, ...]:
    """The parts of each of so many frames, in pixels, that are looked at; None: as the model does.

    What is at most `WIDEST` times as long as the input's shape is one look. Longer ones are seen in
    windows of that shape from end to end, each overlapping the next by half of it or more; where
    that were too many, they are spread with gaps, and `share_seen` says what lies in them.
    """
    length, across = _length(width, height, preprocessing)
    if coverage is Coverage.MODEL or length < 1 / NEARLY:
        return (None,)
    if length <= WIDEST:
        own = preprocessing.get("resize_mode", "shortest") != "shortest"
        return (None,) if own else (Box(0, 0, width, height),)
    needed = 1 + math.ceil(round((length - WIDEST) / (WIDEST * (1 - OVERLAP)), 6))
    count = min(needed, MOST, max(1, MOST_OF_ALL // frames))
    long = width if across else height
    size = long * WIDEST / length
    starts = [(long - size) * (i / (count - 1) if count > 1 else 0.5) for i in range(count)]
    return tuple(_window(round(s), round(s + size), width, height, across) for s in starts)


def share_seen(
    width: int,
    height: int,
    preprocessing: Mapping[str, Any],
    boxes: Iterable[Box | None],
) -> float:
    """The share of a picture's pixels that is in at least one of these looks."""
    own = looked_at(width, height, preprocessing)
    _, across = _length(width, height, preprocessing)
    seen = [own if box is None else box for box in boxes]
    spans = sorted((b.left, b.right) if across else (b.top, b.bottom) for b in seen)
    covered, end, long = 0.0, 0.0, width if across else height
    for start, stop in spans:
        covered += max(0.0, min(stop, long) - max(start, end))
        end = max(end, min(stop, long))
    return min(1.0, covered / long)


def looked_at(width: float, height: float, preprocessing: Mapping[str, Any]) -> Box:
    """Where the model's input lies in a picture, by open_clip's own resize modes."""
    mode, (w, h) = preprocessing.get("resize_mode", "shortest"), _input(preprocessing)
    if mode == "squash":
        return Box(0, 0, width, height)
    scales = width / w, height / h  # pixels of the picture per pixel of the input
    scale = max(scales) if mode == "longest" else min(scales)
    x, y = (width - scale * w) / 2, (height - scale * h) / 2
    return Box(x, y, x + scale * w, y + scale * h)


def _length(width: int, height: int, preprocessing: Mapping[str, Any]) -> tuple[float, bool]:
    """How many times as long as the input's shape a picture is, and whether in its width."""
    w, h = _input(preprocessing)
    wider = (width / height) / (w / h)
    return max(wider, 1 / wider), wider > 1


def _input(preprocessing: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of the model's input."""
    size = preprocessing["size"]
    h, w = (size, size) if isinstance(size, int) else size
    return w, h


def _window(start: int, end: int, width: int, height: int, across: bool) -> Box:
    return Box(start, 0, end, height) if across else Box(0, start, width, end)
