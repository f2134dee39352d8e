"""Draws small SVG charts of numbers for the pages.

Every chart has a title and a description that say what it shows, and the page has its numbers in a
table, too.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import count

from markupsafe import Markup

WIDE, HIGH = 264, 92  # of one chart, in units that are pixels on a telephone
LEFT, TOP, BASE = 34, 8, 72  # where the columns begin, their full height, and their foot
RIGHT = WIDE - 4
BAR = 100  # units of a full bar

_numbers = count()


def columns(
    name: str, description: str, shares: Mapping[date, float], last: date, days: int
) -> Markup:
    """A share on each of the last days, as columns; a day without one is left empty."""
    first = last - timedelta(days=days - 1)
    top = nice(max((s for d, s in shares.items() if d >= first), default=0.0))
    step = (RIGHT - LEFT) / days
    parts = [
        Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, y, RIGHT) for y in (TOP, BASE)
    ]
    for day, share in shares.items():
        if day < first or not share:
            continue
        x = LEFT + step * (day - first).days
        height = max(1.0, (BASE - TOP) * share / top)
        parts.append(  # numbers only, so nothing is to be escaped, which would take as long again
            Markup(
                f'<rect class="column" x="{x + 0.5:.1f}" y="{BASE - height:.1f}" '
                f'width="{step - 1:.1f}" height="{height:.1f}">'
                f"<title>{day:%d %b}: {written(share)}</title></rect>"
            )
        )
    parts += [
        _text(LEFT - 5, TOP + 4, written(top), "end"),
        _text(LEFT - 5, BASE + 4, "0", "end"),
        _text(LEFT, HIGH - 3, f"{first:%d %b}", "start"),
        _text(RIGHT, HIGH - 3, f"{last:%d %b}", "end"),
    ]
    number = next(_numbers)
    return Markup(
        '<svg class="columns" viewBox="0 0 {} {}" role="img" aria-labelledby="c{n}-t c{n}-d">'
        '<title id="c{n}-t">{}</title><desc id="c{n}-d">{}</desc>{}</svg>'
    ).format(WIDE, HIGH, name, description, Markup("").join(parts), n=number)


def bar(share: float, kind: str = "") -> Markup:
    """How much of a whole, beside its number."""
    filled = BAR * min(1.0, max(0.0, share))
    return Markup(
        '<svg class="bar {}" viewBox="0 0 {b} 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="{b}" height="8"/><rect class="filled" width="{:.1f}" '
        'height="8"/></svg>'
    ).format(kind, filled, b=BAR)


def whisker(value: float, low: float, high: float, top: float = 1.0) -> Markup:
    """An estimate as a point, and between what it lies as a line, beside its numbers."""
    x, left, right = (BAR * min(1.0, max(0.0, v / top)) for v in (value, low, high))
    return Markup(
        '<svg class="whisker" viewBox="-2 0 {w} 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" y="4" width="{b}" height="2"/>'
        '<rect class="between" x="{:.1f}" y="3" width="{:.1f}" height="4"/>'
        '<rect class="point" x="{:.1f}" width="2" height="10"/></svg>'
    ).format(left, max(0.5, right - left), x - 1, b=BAR, w=BAR + 4)


def split(parts: Sequence[tuple[float, str]]) -> Markup:
    """How a whole falls into parts, each in the colour of its kind; their numbers stand below."""
    whole, x, drawn = sum(n for n, _ in parts) or 1.0, 0.0, []
    for n, kind in parts:
        width = BAR * n / whole
        drawn.append(
            Markup('<rect class="{}" x="{:.2f}" width="{:.2f}" height="8"/>').format(kind, x, width)
        )
        x += width
    return Markup(
        '<svg class="split" viewBox="0 0 {} 8" preserveAspectRatio="none" aria-hidden="true">'
        "{}</svg>"
    ).format(BAR, Markup("").join(drawn))


def nice(value: float) -> float:
    """The next round share above a value, at which an axis may end."""
    if value <= 0:
        return 0.01
    size: float = 10.0 ** math.floor(math.log10(value))
    return min(1.0, next(size * m for m in (1, 2, 5, 10) if size * m >= value * 0.999999))


def written(share: float) -> str:
    """A share in per cent, with one digit where that says more."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 or percent == round(percent) else f"{percent:.1f} %"


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, text
    )
