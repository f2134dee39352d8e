"""Draws the margins of a stream, and below it those of pictures that people have judged."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

WIDE = 600  # units, as are all that follow; the plot takes the whole width
STREAM, LANE, GAP = 104, 28, 20  # heights: of the stream, of each lane, between them
TOP, BELOW = 48, 38
SIDE = 10  # left and right of the plot
BARS = 60
TICKS = 7
TURN = 0.8  # of the width: from there on a line's name stands left of it
LABELS = {"threshold": 12, "active": 26, "certain": 26}  # heights of the lines' names

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MarginScale:
    """Where margins lie across the drawing."""

    low: float  # logits
    high: float

    @classmethod
    def of(cls, *values: Floats) -> "MarginScale":
        """So that every margin has its place."""
        known = np.concatenate([v for v in values if len(v)] or [np.array([-4.0, 4.0])])
        low, high = float(known.min()), float(known.max())
        return cls(np.floor(2 * low - 0.5) / 2, np.ceil(2 * high + 0.5) / 2)

    def x(self, margin: float) -> float:
        share = (margin - self.low) / (self.high - self.low)
        return SIDE + (WIDE - 2 * SIDE) * min(1.0, max(0.0, share))


@dataclass(frozen=True, slots=True)
class StreamMargins:
    """What is drawn: margins in logits, and where the thresholds are."""

    stream: Floats  # of the newest images
    forbidden: Floats  # of those that people said show it
    clear: Floats  # of those that they said do not
    threshold: float
    active: float | None = None  # the active version's, on the same scale; None: nowhere on it
    certain: float = math.inf  # from there on a flag acts by itself


def stream_histogram(drawn: StreamMargins, title: str) -> Markup:
    """Columns of the stream as roots of its numbers, so that what is rare is seen; two lanes."""
    scale = scale_of(drawn)
    middle = TOP + STREAM + GAP
    lanes = [
        ("forbidden", drawn.forbidden, middle),
        ("clear", drawn.clear, middle + LANE + GAP),
    ]
    foot = middle + 2 * LANE + GAP
    at = scale.x(drawn.threshold)
    parts = [
        _over(at, foot),
        _columns("stream", drawn.stream, scale, TOP + STREAM, STREAM),
        *(_columns(kind, values, scale, y + LANE, LANE) for kind, values, y in lanes),
        *(_base(y) for y in (TOP + STREAM, middle + LANE, foot)),
        *_axis(scale, foot),
    ]
    if drawn.active is not None:
        parts.append(_line("active", scale.x(drawn.active), foot))
    parts.append(_line("certain", scale.x(drawn.certain), foot, math.isfinite(drawn.certain)))
    parts.append(_line("threshold", at, foot))
    names = [
        (f"{len(drawn.stream):,} newest images", TOP - 5),
        (f"forbidden, people said: {len(drawn.forbidden):,}", middle - 4),
        (f"clear, people said: {len(drawn.clear):,}", middle + LANE + GAP - 4),
    ]
    parts += [_text(SIDE, y, name, "start", "name") for name, y in names]
    return Markup(
        '<svg class="stream-margins" viewBox="0 0 {} {}" role="img" aria-label="{t}" '
        'data-low="{:g}" data-high="{:g}" data-side="{}" data-wide="{}"><title>{t}</title>{}</svg>'
    ).format(WIDE, foot + BELOW, scale.low, scale.high, SIDE, WIDE, Markup("").join(parts), t=title)


def scale_of(drawn: StreamMargins) -> MarginScale:
    """The scale that a slider beside the drawing has, too."""
    lines = [v for v in (drawn.threshold, drawn.certain) if math.isfinite(v)]
    return MarginScale.of(drawn.stream, drawn.forbidden, drawn.clear, np.array(lines))


def _columns(kind: str, values: Floats, scale: MarginScale, foot: float, high: float) -> Markup:
    edges = np.linspace(scale.low, scale.high, BARS + 1)
    counts, _ = np.histogram(values, edges)
    heights = (high - 4) * np.sqrt(counts / max(1, counts.max()))
    width = (WIDE - 2 * SIDE) / BARS
    column = '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
    drawn = "".join(
        column.format(SIDE + i * width + 0.5, foot - h, width - 1, h)
        for i, h in enumerate(heights.tolist())
        if h
    )
    return Markup('<g class="{}">{}</g>').format(kind, Markup(drawn))  # numbers only


def _over(at: float, foot: float) -> Markup:
    """What lies over the threshold."""
    return Markup('<rect class="over" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        at, TOP, WIDE - SIDE - at, foot - TOP
    )


def _line(kind: str, x: float, foot: float, shown: bool = True) -> Markup:
    """A threshold over the whole height; each kind has its name at a height of its own."""
    y = LABELS[kind]
    hidden = "" if shown else Markup(' visibility="hidden"')
    left = x > WIDE * TURN
    return Markup(
        '<g class="{}" transform="translate({:.1f} 0)"{}><path d="M0 {}V{}"/>{}</g>'
    ).format(
        kind,
        x,
        hidden,
        y - 8,
        foot,
        _text(-5 if left else 5, y, kind, "end" if left else "start", "name"),
    )


def _base(y: float) -> Markup:
    return Markup('<path class="grid" d="M{} {}H{}"/>').format(SIDE, y, WIDE - SIDE)


def _axis(scale: MarginScale, foot: float) -> list[Markup]:
    values = np.linspace(scale.low, scale.high, TICKS).tolist()
    anchors = ["start", *["middle"] * (TICKS - 2), "end"]
    ticks = [
        _text(scale.x(v), foot + 15, f"{v:.1f}".replace("-", "−"), anchor)
        for v, anchor in zip(values, anchors, strict=True)
    ]
    return [*ticks, _text(WIDE / 2, foot + 30, "margin, logits", "middle")]


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, text
    )
