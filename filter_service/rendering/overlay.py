"""Draws explanations: the map over the image, the flip region, a summary card.

A map is drawn on a fixed scale and never stretched to its own peak: where nothing speaks for a
class, nothing is coloured. What the model did not see, such as the margins of a centre crop, is
darkened, and the part that a view shows is outlined. Only the record is needed, no model.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from filter_service.images.views import Box, looked_at
from filter_service.verdicts import proven_claims
from filter_service.verdicts.explanation import Explanation, FlipRegion, Map, Word

FULL = 20.0  # times its equal part of the margin: where a place reaches the full colour
FAINT = 2.0  # logits: margins below this count as this, so that noise is not drawn in full colour
REACH = 1.25  # places around one that share its colour
STRONGEST = 0.85  # opacity of the full colour
UNSEEN = 0.35  # of its light is left to what the model did not see
EVIDENCE, AGAINST = (232, 78, 20), (32, 104, 216)  # speaks for the class, against it
INK, PALE, PAPER, OUTLINE = (28, 30, 34), (116, 120, 128), (252, 252, 250), (255, 255, 255)
EMPTY = (234, 234, 230)
VIEWED = (250, 204, 70)  # around the part of a picture that the map is of
PANEL, GAP, LINE = 360, 24, 24  # pixels of a card
MOST_WORDS = 8  # on a card
MATTERS = 0.2  # logits: of words that say less, nobody asks for the sign
LETTERS = {"“", "”", "…", "°"}  # of Pillow's own font, besides ASCII

Floats = npt.NDArray[np.floating]
Colour = tuple[int, int, int]
Point = tuple[float, float]


def seen(width: int, height: int, preprocessing: Mapping[str, Any], part: Box | None = None) -> Box:
    """Where the model's input lies in a picture, of which it was given a part, in shares of it."""
    if part is None:
        return looked_at(width, height, preprocessing)
    box = part.scaled(width, height)
    if preprocessing.get("resize_mode", "shortest") != "longest":
        return box
    inner = looked_at(box.right - box.left, box.bottom - box.top, preprocessing)
    x, y = box.left, box.top
    return Box(x + inner.left, y + inner.top, x + inner.right, y + inner.bottom)


def overlay(
    picture: Image.Image,
    found: Map,
    margin: float,
    preprocessing: Mapping[str, Any],
    region: FlipRegion | None = None,
    part: Box | None = None,
) -> Image.Image:
    """The map over its picture, greyed: warm where it speaks for the class, blue where against.

    Of a picture that was seen in parts, the one that the map is of is outlined.
    """
    where = seen(*picture.size, preprocessing, part)
    heat, unseen = _heat(picture.size, found.grid, margin, where)
    drawn = Image.fromarray(_tinted(np.asarray(picture.convert("L"), np.float32), heat))
    drawn.paste(drawn.point(lambda level: level * UNSEEN), mask=Image.fromarray(unseen))
    if part is not None:
        _frame(drawn, where)
    if region is not None and is_part(region, found):
        _outline(drawn, region, found.grid.shape, where)
    return drawn


def map_layer(
    size: tuple[int, int],
    grid: Floats,
    margin: float,
    preprocessing: Mapping[str, Any],
    part: Box | None = None,
) -> Image.Image:
    """The colours of `overlay` alone, to be laid over a picture of this shape: RGBA.

    Nothing of the picture is in them, and `grid` may be a word's, whose whole is the margin.
    """
    where = seen(*size, preprocessing, part)
    heat, unseen = _heat(size, grid, margin, where)
    layer = np.empty((*heat.shape, 4), np.uint8)  # (h, w, 4)
    layer[..., :3] = np.where(heat[..., None] > 0, EVIDENCE, AGAINST)
    layer[..., 3] = (255 * _strength(heat)).round()
    layer[unseen] = (0, 0, 0, round(255 * (1 - UNSEEN)))
    drawn = Image.fromarray(layer)
    if part is not None:
        _frame(drawn, where)
    return drawn


def region_layer(
    size: tuple[int, int],
    region: FlipRegion,
    found: Map,
    preprocessing: Mapping[str, Any],
    part: Box | None = None,
) -> Image.Image:
    """The outline of `overlay` alone, to be laid over a picture of this shape: RGBA."""
    layer = Image.new("RGBA", size)
    _outline(layer, region, found.grid.shape, seen(*size, preprocessing, part))
    return layer


def full_colour(found: Map, margin: float) -> float:
    """Logits at which a place of a map gets the full colour."""
    return _full(found.grid.size, margin)


def is_part(region: FlipRegion, found: Map) -> bool:
    """There is an answer in a part of the image, not only in the whole."""
    flips = region.flips or bool(region.blurred_flips)
    return flips and len(region.places) < found.grid.size


def _full(places: int, margin: float) -> float:
    return FULL * max(abs(margin), FAINT) / places


def _heat(
    size: tuple[int, int], grid: Floats, margin: float, box: Box
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Shares of the full colour at each pixel, and which pixels lie outside the box: (h, w)."""
    (width, height), (gh, gw) = size, grid.shape
    down = _weights(height, box.top, box.bottom, gh)
    across = _weights(width, box.left, box.right, gw)
    heat = down @ (grid.astype(np.float32) / _full(grid.size, margin)) @ across.T
    return heat, ~np.outer(down.any(axis=1), across.any(axis=1))


def _weights(pixels: int, start: float, end: float, places: int) -> Floats:
    """How much each place counts at each pixel: (pixels, places); all 0 outside the model's view.

    Raised cosines: smooth, and never below 0, where a cubic kernel would swing to the other sign
    beside every strong place.
    """
    at = (np.arange(pixels) + 0.5 - start) / (end - start) * places - 0.5  # in places, 0: the first
    far = np.abs(at.clip(0, places - 1)[:, None] - np.arange(places))
    weights = 1 + np.cos(np.pi * (far / REACH).clip(0, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    weights[(at < -0.5) | (at > places - 0.5)] = 0
    return weights.astype(np.float32)


def _tinted(grey: Floats, heat: Floats) -> npt.NDArray[np.uint8]:
    """Colours laid over a grey picture (h, w), which stays visible below: (h, w, 3)."""
    grey, heat = grey[..., None] / 255, heat[..., None]
    ground = 255 * (0.22 + 0.7 * grey)  # flatter, so that the colours stand out
    strength = _strength(heat)
    colours = np.where(heat > 0, EVIDENCE, AGAINST) * (0.62 + 0.38 * grey)
    return np.asarray(ground * (1 - strength) + colours * strength).round().astype(np.uint8)


def _strength(heat: Floats) -> Floats:
    """Opacity of the colours."""
    return np.asarray(STRONGEST * np.abs(heat).clip(0, 1) ** 0.75)


def _outline(drawn: Image.Image, region: FlipRegion, shape: tuple[int, int], box: Box) -> None:
    """A line around the places of a region, between them and their neighbours."""
    gh, gw = shape
    gone = np.zeros((gh + 2, gw + 2), dtype=bool)  # with a border that belongs to nothing
    for place in region.places:
        gone[place // gw + 1, place % gw + 1] = True
    xs = np.linspace(box.left, box.right, gw + 1)
    ys = np.linspace(box.top, box.bottom, gh + 1)
    flat = np.argwhere(gone[1:, 1:-1] != gone[:-1, 1:-1])  # sides between places above and below
    upright = np.argwhere(gone[1:-1, 1:] != gone[1:-1, :-1])
    sides = [(xs[x], ys[y], xs[x + 1], ys[y]) for y, x in flat]
    sides += [(xs[x], ys[y], xs[x], ys[y + 1]) for y, x in upright]
    _lines(drawn, sides, OUTLINE)


def _frame(drawn: Image.Image, box: Box) -> None:
    """A line around the part of a picture that a view shows."""
    thin, (width, height) = max(1.0, min(drawn.size) / 240), drawn.size
    left, top = max(box.left, thin), max(box.top, thin)  # a line on an edge is half outside
    right, bottom = min(box.right, width - 1 - thin), min(box.bottom, height - 1 - thin)
    sides = [(left, top, right, top), (left, bottom, right, bottom)]
    sides += [(left, top, left, bottom), (right, top, right, bottom)]
    _lines(drawn, sides, VIEWED)


def _lines(
    drawn: Image.Image, sides: Sequence[tuple[float, float, float, float]], inner: Colour
) -> None:
    """Upright and level lines, readable on any ground."""
    draw, thin = ImageDraw.Draw(drawn), max(1.0, min(drawn.size) / 240)
    for colour, half in ((INK, 1.5 * thin), (inner, 0.5 * thin)):
        for left, top, right, bottom in sides:
            draw.rectangle((left - half, top - half, right + half, bottom + half), colour)


def card(
    picture: Image.Image,
    record: Explanation,
    preprocessing: Mapping[str, Any],
    neighbour: Image.Image | None = None,
) -> Image.Image:
    """Everything about one flag on one sheet; `neighbour` is the nearest counterfactual image."""
    first, second, third = (GAP + i * (PANEL + GAP) for i in range(3))
    wide, top = 2 * PANEL + GAP, round(4.4 * LINE)
    below = top + PANEL + LINE
    lines = [line for s in _sentences(record) for line in (*_broken(s, 16, wide), "")]
    steps = [22 if line else 8 for line in lines]
    words = record.words[0].words[:MOST_WORDS] if record.words else ()
    height = below + max(sum(steps), round(LINE * (len(words) + 1.4))) + LINE // 2
    sheet = Image.new("RGB", (third + PANEL + GAP, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (first, 46), _broken(record.class_name, 28, PANEL)[0], 28, anchor="ls")
    _scale(draw, record, (second, 38), wide)
    _panel(sheet, (first, top), "submitted", _fitted(picture))
    _panel(sheet, (second, top), "evidence", _evidence(picture, record, preprocessing))
    _panel(sheet, (third, top), *_nearest(record, neighbour))
    if record.map is not None and record.faithful:
        _legend(sheet, full_colour(record.map, record.margin), (second + PANEL, top))
    if words:
        _write(draw, (first, below), f"words of “{record.words[0].prompt}”", 15, PALE)
        _bars(draw, words, (first, below + LINE))
    for line, y in zip(lines, np.cumsum([below, *steps]), strict=False):
        _write(draw, (second, float(y)), line, 16)
    return sheet


def _panel(sheet: Image.Image, at: tuple[int, int], title: str, shown: Image.Image | str) -> None:
    """A titled square with a picture in its middle, or with the sentence that says why not."""
    (left, top), draw = at, ImageDraw.Draw(sheet)
    _write(draw, (left, top - 8), title, 15, PALE, "ls")
    draw.rectangle((left, top, left + PANEL - 1, top + PANEL - 1), EMPTY)
    if isinstance(shown, Image.Image):
        sheet.paste(shown, (left + (PANEL - shown.width) // 2, top + (PANEL - shown.height) // 2))
        return
    for i, line in enumerate(_broken(shown, 16, PANEL - 2 * GAP)):
        _write(draw, (left + GAP, top + GAP + 22 * i), line, 16, PALE)


def _evidence(
    picture: Image.Image, record: Explanation, preprocessing: Mapping[str, Any]
) -> Image.Image | str:
    if record.map is None:
        return record.no_map or "There is no map."
    if not record.faithful:
        return f"{proven_claims.NO_BETTER} So the map is not shown."
    fitted = _fitted(picture)
    return overlay(fitted, record.map, record.margin, preprocessing, record.region, record.part)


def _nearest(record: Explanation, neighbour: Image.Image | None) -> tuple[str, Image.Image | str]:
    title = "nearest with the other answer"
    if not record.images:
        return title, record.no_images or "None was looked for."
    title = f"{title}, {record.images[0].degrees:.0f}° away"
    return title, _fitted(neighbour) if neighbour else "Its picture is not at hand."


def _fitted(picture: Image.Image) -> Image.Image:
    """As large as a panel allows."""
    scale = PANEL / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _scale(draw: ImageDraw.ImageDraw, record: Explanation, at: Point, wide: int) -> None:
    """Probability and threshold on a line from 0 to 1."""
    left, y = at
    for share, colour in ((1.0, EMPTY), (record.probability, EVIDENCE)):
        draw.rounded_rectangle((left, y - 3, left + max(6, wide * share), y + 3), 3, colour)
    t = left + wide * record.threshold
    draw.line((t, y - 9, t, y + 9), INK, 2)
    state = "" if record.calibrated else ", not calibrated"
    for share, dy, colour, text in (
        (record.probability, -20, EVIDENCE, f"probability {record.probability:.3f}{state}"),
        (record.threshold, 20, INK, f"flagged from {record.threshold:.3f}"),
    ):
        half = draw.textlength(text, _font(15)) / 2
        x = min(max(left + wide * share, left + half), left + wide - half)
        _write(draw, (x, y + dy), text, 15, colour, "mm")


def _legend(sheet: Image.Image, full: float, at: tuple[int, int]) -> None:
    """What the colours mean, right-aligned over a panel: logits of one place."""
    (right, top), draw = at, ImageDraw.Draw(sheet)
    _write(draw, (right, top - 8), f"{full:+.1f} logits", 13, EVIDENCE, "rs")
    ramp = _tinted(np.full((10, 84), 200.0), np.tile(np.linspace(-1, 1, 84), (10, 1)))
    sheet.paste(Image.fromarray(ramp), (right - 158, top - 18))
    _write(draw, (right - 164, top - 8), f"{-full:+.1f}", 13, AGAINST, "rs")


def _bars(draw: ImageDraw.ImageDraw, words: Sequence[Word], at: Point) -> None:
    """What each word adds to the logit of its prompt."""
    left, top = at
    largest = max(abs(w.shapley) for w in words) or 1.0
    zero, most = left + 205, 95
    for i, word in enumerate(words):
        y = top + LINE * (i + 0.5)
        _write(draw, (left, y), _broken(word.word, 15, 105)[0], 15, anchor="lm")
        ends = sorted((zero, zero + most * word.shapley / largest))
        colour = EVIDENCE if word.shapley > 0 else AGAINST
        draw.rectangle((ends[0], y - 5, ends[1], y + 5), colour)
        mark = " ?" if _unsure(word) else ""
        _write(draw, (left + 345, y), _signed(word.shapley), 15, anchor="rm")
        _write(draw, (left + 345, y), mark, 15, PALE, "lm")
    draw.line((zero, top, zero, top + LINE * len(words)), PALE)


def _sentences(record: Explanation) -> list[str]:
    """What the record says besides the pictures, the proof first."""
    proof, said = record.proof, []
    if proof.top_drop is not None and proof.random_drops:
        random = -sum(proof.random_drops) / len(proof.random_drops)
        said.append(
            f"{proven_claims.tested(record)} Without the map's top tenth the margin changes by "
            f"{_signed(-proof.top_drop)} logits, without a random tenth by {_signed(random)}."
        )
    if necessary := proven_claims.necessary(record, outlined=record.faithful):
        said.append(necessary)
    for text in record.texts[:1]:
        said.append(f"With “{text.text}” in place of “{text.replaces}” it would not be flagged.")
    if record.boundary_degrees is not None:
        said.append(f"The boundary of the class is {record.boundary_degrees:.1f}° away.")
    if record.words and any(map(_unsure, record.words[0].words)):
        said.append("?: whether this word speaks for the class depends on how it is taken away.")
    if record.part is not None:
        said.append("All of this is about the part of the picture that is framed in yellow.")
    by = record.provenance
    said.append(
        f"Encoder {by.encoder} {by.fingerprint[:8]}, policy {by.policy} {by.policy_digest[:8]}."
    )
    return said


def _unsure(word: Word) -> bool:
    return word.doubtful and abs(word.shapley) >= MATTERS


def _signed(logits: float) -> str:
    return f"{round(logits, 1) or 0.0:+.1f}"  # never "-0.0"


def _broken(text: str, size: int, wide: float) -> list[str]:
    """Lines of at most this width, in pixels; a word that is longer by itself is cut."""
    lines = [""]
    for word in _writable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(longer) <= wide:
            lines[-1] = longer
            continue
        while len(word) > 1 and _font(size).getlength(word) > wide:
            word = f"{word.removesuffix('…')[:-1]}…"  # noqa: PLW2901
        lines = [*filter(None, lines), word]
    return lines


def _write(
    draw: ImageDraw.ImageDraw,
    at: Point,
    text: str,
    size: int,
    colour: Colour = INK,
    anchor: str = "la",
) -> None:
    draw.text(at, _writable(text), colour, _font(size), anchor)


def _writable(text: str) -> str:
    """In letters that the font has: accents are dropped, and what is not Latin becomes "?"."""
    plain = unicodedata.normalize("NFD", text)
    bare = (c for c in plain if not unicodedata.combining(c))
    return "".join(c if c.isascii() or c in LETTERS else "?" for c in bare)


@cache
def _font(size: int) -> Any:  # noqa: ANN401  (one of Pillow's two font classes)
    """Pillow's own font: no file is needed."""
    return ImageFont.load_default(size)
