"""Draws what calibration is about: precision against recall, promised against found, margins."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

SIDE = 240  # of the plotting area, units that are pixels on a telephone
LEFT, TOP, BELOW = 40, 12, 36  # what is around it
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
BARS = 40  # of a histogram
WIDE, HIGH = 560, 130  # of its plotting area

Floats = npt.NDArray[np.float64]


def precision_recall(recall: Floats, precision: Floats, at: tuple[float, float] | None) -> Markup:
    """Precision at every recall, (n,) each; a dot where the threshold lies."""
    step = max(1, len(recall) // 400)  # what the eye can see
    path = _path([*zip(recall[::step], precision[::step], strict=True)], "line")
    dot = _dot(*at, 5, "threshold") if at is not None else Markup("")
    return _square("recall", "precision", "Precision against recall", path + dot)


def reliability(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Found against promised for each bin: (promised, found, how many pictures)."""
    largest = max((n for *_, n in bins), default=1)
    dots = [_dot(p, f, 2.5 + 4.5 * (n / largest) ** 0.5, f"{n} pictures") for p, f, n in bins]
    diagonal = _path([(0.0, 0.0), (1.0, 1.0)], "even")
    drawn = diagonal + _path([(p, f) for p, f, _ in bins], "line") + Markup("").join(dots)
    return _square("promised probability", "share found", "Promised against found", drawn)


def margin_histogram(present: Floats, absent: Floats, threshold: float) -> Markup:
    """Margins of pictures that show a class, up, and of those that do not, down; logits."""
    together = np.concatenate([present, absent, [threshold]])
    low, high = float(together.min()) - 0.5, float(together.max()) + 0.5
    edges = np.linspace(low, high, BARS + 1)
    width, middle = WIDE / BARS, TOP + HIGH / 2
    column = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    parts = []
    for values, kind, up in ((present, "present", True), (absent, "absent", False)):
        counts, _ = np.histogram(values, edges)
        heights = (HIGH / 2 - 4) * np.sqrt(counts / max(1, counts.max()))
        for i, h in enumerate(heights.tolist()):
            if h:
                y = middle - h if up else middle
                parts.append(column.format(kind, LEFT + i * width, y, width - 1, h))
    x = LEFT + WIDE * (threshold - low) / (high - low)
    parts.append(
        Markup('<path class="threshold" d="M{:.1f} {}V{}"/>').format(x, TOP - 6, TOP + HIGH)
    )
    for value in np.linspace(low, high, 6).tolist():
        at = LEFT + WIDE * (value - low) / (high - low)
        parts.append(_text(at, TOP + HIGH + 16, f"{value:.1f}", "middle"))
    parts.append(_text(LEFT + WIDE / 2, TOP + HIGH + 32, "margin, logits", "middle"))
    said = f"Margins of {len(present)} pictures that show it, and of {len(absent)} that do not"
    return _svg("histogram", LEFT + WIDE + 12, TOP + HIGH + BELOW, said, Markup("").join(parts))


def _square(across: str, up: str, title: str, drawn: Markup) -> Markup:
    parts = [
        Markup('<rect class="frame" x="{}" y="{}" width="{s}" height="{s}"/>').format(
            LEFT, TOP, s=SIDE
        )
    ]
    for tick in TICKS:
        x, y = _at(tick, tick)
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y, LEFT + SIDE))
        parts.append(_text(LEFT - 6, y + 4, f"{tick:g}", "end"))
        parts.append(_text(x, TOP + SIDE + 15, f"{tick:g}", "middle"))
    parts.append(drawn)
    parts.append(_text(LEFT + SIDE / 2, TOP + SIDE + 31, across, "middle"))
    parts.append(_text(LEFT + 6, TOP + 14, up, "start"))
    return _svg("square", LEFT + SIDE + 14, TOP + SIDE + BELOW, title, Markup("").join(parts))


def _svg(kind: str, wide: float, high: float, title: str, drawn: Markup) -> Markup:
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{t}"><title>{t}</title>'
        "{}</svg>"
    ).format(kind, wide, high, drawn, t=title)


def _at(x: float, y: float) -> tuple[float, float]:
    """From shares to units of the drawing."""
    return LEFT + SIDE * x, TOP + SIDE * (1 - y)


def _path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    places = (_at(float(x), float(y)) for x, y in points)
    return Markup('<path class="{}" d="M{}"/>').format(
        kind, "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    )


def _dot(x: float, y: float, radius: float, title: str) -> Markup:
    cx, cy = _at(x, y)
    return Markup(
        '<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
    ).format(cx, cy, radius, title)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, text
    )
