"""Charts for the audit of a decision, as SVG and small pictures."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image
from markupsafe import Markup

from filter_service.explain.study.decision_audit import Agreement, Pair
from filter_service.explain.study.inside import Contributions, Lens, Trace
from filter_service.images.views import Box
from filter_service.rendering import formats
from filter_service.rendering.overlay import AGAINST, EVIDENCE, PAPER, Colour

WIDE_TABLE = 12  # heads: more leave no room for numbers
SOLID = 0.6  # share of the full colour from which writing on it is white


def data_uri(picture: PIL.Image.Image, lossless: bool = False) -> str:
    """The picture itself as an address."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=84, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, never "-0.00"."""
    return formats.signed(value, digits)


def number(value: float, digits: int = 3) -> str:
    return formats.number(value, digits)


def colour(value: float, full: float) -> str:
    """From white to the full colour, as CSS."""
    r, g, b = _mixed(value / full if full else 0.0)
    return f"rgb({r},{g},{b})"


def ink(value: float, full: float) -> str:
    """What is readable on such a ground."""
    return "#fff" if full and abs(value) > SOLID * full else "#1c1e22"


def bar(value: float, largest: float) -> Markup:
    """A bar to the right of a middle line, or to the left of it."""
    width = 60 * min(1.0, abs(value) / largest) if largest else 0.0
    start = 60 if value >= 0 else 60 - width
    return Markup(
        '<svg class="bar" viewBox="0 0 120 12" aria-hidden="true">'
        '<rect x="{:.1f}" y="1" width="{:.1f}" height="10" rx="1.5" fill="{}"/>'
        '<path d="M60 0v12" stroke="#9a9da3" stroke-width="1"/></svg>'
    ).format(start, width, colour(math.copysign(1.0, value), 1.0))


def probability(value: float, threshold: float) -> Markup:
    """Where a probability lies between 0 and 1, and where flags begin."""
    return Markup(
        '<svg class="scale" viewBox="0 0 1000 26" preserveAspectRatio="none" role="img" '
        'aria-label="probability {p:.3f}, flagged from {t:.3f}">'
        '<rect y="8" width="1000" height="10" rx="5" fill="#e6e6e1"/>'
        '<rect y="8" width="{x:.1f}" height="10" rx="5" fill="{c}"/>'
        '<rect x="{m:.1f}" width="3" height="26" fill="#1c1e22"/></svg>'
    ).format(
        p=value,
        t=threshold,
        x=max(10.0, 1000 * value),
        m=min(997.0, 1000 * threshold),
        c=colour(1.0, 1.0),
    )


def heads(contributions: Contributions) -> Markup:
    """What every head and MLP added: a row for each layer."""
    count = len(contributions.heads[0])
    full = max(abs(v) for row in (*contributions.heads, contributions.mlps) for v in row) or 1.0
    wide, high = (52, 27) if count <= WIDE_TABLE else (26, 20)
    columns = [*(f"head {h}" for h in range(count)), "MLP"]
    parts = [
        _text(64 + wide * (i + 0.5) + 10 * (i == count), 12, name.removeprefix("head "), "middle")
        for i, name in enumerate(columns)
    ]
    for layer, (row, mlp) in enumerate(zip(contributions.heads, contributions.mlps, strict=True)):
        y = 20 + high * layer
        parts.append(_text(56, y + high * 0.68, f"layer {layer}", "end"))
        for i, value in enumerate((*row, mlp)):
            x = 64 + wide * i + 10 * (i == count)
            cell = Markup(
                '<rect x="{}" y="{}" width="{}" height="{}" fill="{}" rx="2">'
                "<title>layer {}, {}: {} logits</title></rect>"
            ).format(
                x, y, wide - 2, high - 2, colour(value, full), layer, columns[i], signed(value)
            )
            parts.append(cell)
            if count <= WIDE_TABLE:
                middle = x + (wide - 2) / 2
                shade = ink(value, full)
                parts.append(_text(middle, y + high * 0.64, signed(value), "middle", shade))
    return _svg(
        64 + wide * (count + 1) + 14, 24 + high * len(contributions.heads), parts, "chart heads"
    )


def lens(logit_lens: Lens, threshold: float) -> Markup:
    """The margin after every layer, with the threshold as a line."""
    names = ["start", *(str(i) for i in range(len(logit_lens.margins) - 1))]
    return _curve(logit_lens.margins, names, threshold, "threshold")


def restored(trace: Trace) -> Markup:
    """The margin once all changed places are patched at one layer."""
    margins = [trace.corrupted + value for value in trace.together]
    names = [str(i) for i in range(len(margins))]
    return _curve(margins, names, trace.clean, "whole image")


def trace_grids(trace: Trace) -> list[tuple[str, str, float]]:
    """For each layer: a tiny picture of its places, its name, and what its class token restores."""
    full = max(abs(v) for row in trace.places for v in row) or 1.0
    return [
        (_grid_uri(np.reshape(row, trace.grid) / full), f"layer {layer}", token)
        for layer, (row, token) in enumerate(zip(trace.places, trace.class_token, strict=True))
    ]


def trace_full(trace: Trace) -> float:
    """Logits at the full colour of those pictures."""
    return max(abs(v) for row in trace.places for v in row)


def lowest(agreement: Agreement) -> float:
    """The least that two baselines agree."""
    return min(
        value
        for i, row in enumerate(agreement.correlations)
        for j, value in enumerate(row)
        if i != j
    )


def pairs(
    strongest: Sequence[Pair], grid: tuple[int, int], size: tuple[int, int], box: Box
) -> Markup:
    """A line between the places of each pair, to be laid over a picture of this size.

    The grid lies in the box, in the picture's pixels.
    """
    full = max(abs(p.effect) for p in strongest) or 1.0

    def middle(place: int) -> tuple[float, float]:
        y, x = divmod(place, grid[1])
        return (
            box.left + (x + 0.5) * (box.right - box.left) / grid[1],
            box.top + (y + 0.5) * (box.bottom - box.top) / grid[0],
        )

    parts = []
    for pair in reversed(strongest):  # the strongest on top
        (x1, y1), (x2, y2) = middle(pair.first), middle(pair.second)
        width = 2 + 6 * abs(pair.effect) / full
        for stroke, wide in (
            ("#fff", width + 3),
            (colour(math.copysign(1, pair.effect), 1), width),
        ):
            parts.append(
                Markup(
                    '<path d="M{:.1f} {:.1f}L{:.1f} {:.1f}" stroke="{}" stroke-width="{:.1f}" '
                    'stroke-linecap="round"><title>{} logits</title></path>'
                ).format(x1, y1, x2, y2, stroke, wide, signed(pair.effect))
            )
    return _svg(*size, parts, "over")


def _curve(values: Sequence[float], names: Sequence[str], level: float, title: str) -> Markup:
    wide, high, left, top = 520.0, 190.0, 44.0, 14.0
    low, most = min(*values, level, 0.0), max(*values, level, 0.0)
    reach = (most - low) or 1.0

    def at(i: int, value: float) -> tuple[float, float]:
        return (
            left + wide * i / max(1, len(values) - 1),
            top + high * (most - value) / reach,
        )

    points = [at(i, v) for i, v in enumerate(values)]
    parts = []
    marks = [(0.0, "#d9d9d4", "0"), (level, "#1c1e22", title)]
    for value, stroke, name in marks:
        _, y = at(0, value)
        dashes = "" if name == "0" else "5 4"
        parts.append(
            Markup(
                '<path d="M{:.1f} {:.1f}h{:.1f}" stroke="{}" stroke-dasharray="{}" fill="none"/>'
            ).format(left, y, wide, stroke, dashes)
        )
        label = "0" if name == "0" else signed(value, 1)
        parts.append(_text(left - 6, y + 4, label, "end"))
    path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    parts.append(
        Markup('<path d="{}" fill="none" stroke="{}" stroke-width="2.5"/>').format(
            path, colour(1.0, 1.0)
        )
    )
    every = math.ceil(len(values) / 14)
    for i, ((x, y), value) in enumerate(zip(points, values, strict=True)):
        parts.append(
            Markup(
                '<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}"><title>{}: {} logits</title>'
                "</circle>"
            ).format(x, y, colour(1.0, 1.0), names[i], signed(value))
        )
        if i % every == 0:
            parts.append(_text(x, top + high + 20, names[i], "middle"))
    parts.append(_text(left + wide / 2, at(0, level)[1] + 4, title, "middle", "#1c1e22"))
    return _svg(left + wide + 16, top + high + 28, parts, "chart curve")


def _grid_uri(shares: npt.NDArray[np.floating]) -> str:
    """One pixel for each place, coloured by shares (h, w) of the full colour, -1 to 1."""
    pixels = np.array([[_mixed(float(v)) for v in row] for row in shares], dtype=np.uint8)
    return data_uri(PIL.Image.fromarray(pixels), lossless=True)


def _mixed(share: float) -> Colour:
    """Between paper and the colour of the sign."""
    if not math.isfinite(share):
        return PAPER
    full, much = EVIDENCE if share > 0 else AGAINST, min(1.0, abs(share))
    r, g, b = (round(p + (f - p) * much) for p, f in zip(PAPER, full, strict=True))
    return r, g, b


def _text(x: float, y: float, text: str, anchor: str, fill: str = "#666a72") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="{}">{}</text>').format(
        x, y, anchor, fill, text
    )


def _svg(width: float, height: float, parts: Sequence[Markup], kind: str) -> Markup:
    size = Markup('width="{0:.0f}" viewBox="0 0 {0:.0f} {1:.0f}"').format(width, height)
    return Markup('<svg class="{}" {} role="img">{}</svg>').format(
        kind, size, Markup("").join(parts)
    )
