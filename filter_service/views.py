"""Views: the looks that a model takes at an image, each at one frame, or at a part of it."""

import re
from dataclasses import dataclass
from typing import Self

_NAME = re.compile(r"(?P<reading>.*?) ?(?P<box>-?\d+,-?\d+,-?\d+,-?\d+)?", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A part of a picture in its pixels; it may reach beyond the picture's edges."""

    left: float
    top: float
    right: float
    bottom: float


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
        sides = () if box is None else (box.left, box.top, box.right, box.bottom)
        return " ".join(filter(None, (self.reading, ",".join(str(round(s)) for s in sides))))

    @classmethod
    def parse(cls, frame: int, name: str) -> Self:
        """The view of this name: `name`, the other way round."""
        found = _NAME.fullmatch(name)
        assert found is not None, "the pattern takes any text"
        sides = found["box"]
        return cls(frame, found["reading"], Box(*map(int, sides.split(","))) if sides else None)
