"""Draws everything about one flag on one sheet: pictures, scale, words, and what was proved."""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from filter_service.rendering.overlay import (
    AGAINST,
    EMPTY,
    EVIDENCE,
    INK,
    PALE,
    PAPER,
    Colour,
    fit,
    full_colour,
    overlay,
    tinted,
)
from filter_service.verdicts import proven_claims
from filter_service.verdicts.explanation import Explanation, Word

PANEL, GAP, LINE = 360, 24, 24  # pixels of a card
MOST_WORDS = 8  # on a card
LETTERS = {"“", "”", "…", "°"}  # of Pillow's own font, besides ASCII
Point = tuple[float, float]


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
    _panel(sheet, (first, top), "submitted", fit(picture, PANEL))
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
    fitted = fit(picture, PANEL)
    return overlay(fitted, record.map, record.margin, preprocessing, record.region, record.part)


def _nearest(record: Explanation, neighbour: Image.Image | None) -> tuple[str, Image.Image | str]:
    title = "nearest with the other answer"
    if not record.images:
        return title, record.no_images or "None was looked for."
    title = f"{title}, {record.images[0].degrees:.0f}° away"
    return title, fit(neighbour, PANEL) if neighbour else "Its picture is not at hand."


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
    ramp = tinted(np.full((10, 84), 200.0), np.tile(np.linspace(-1, 1, 84), (10, 1)))
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
        mark = " ?" if word.unsure else ""
        _write(draw, (left + 345, y), _signed(word.shapley), 15, anchor="rm")
        _write(draw, (left + 345, y), mark, 15, PALE, "lm")
    draw.line((zero, top, zero, top + LINE * len(words)), PALE)


def _sentences(record: Explanation) -> list[str]:
    """What the record says besides the pictures, the proof first."""
    proof, sentences = record.proof, []
    if proof.top_drop is not None and proof.random_drops:
        random = -sum(proof.random_drops) / len(proof.random_drops)
        sentences.append(
            f"{proven_claims.tested(record)} Without the map's top tenth the margin changes by "
            f"{_signed(-proof.top_drop)} logits, without a random tenth by {_signed(random)}."
        )
    if necessary := proven_claims.necessary(record, outlined=record.faithful):
        sentences.append(necessary)
    for text in record.texts[:1]:
        sentences.append(
            f"With “{text.text}” in place of “{text.replaces}” it would not be flagged."
        )
    if record.boundary_degrees is not None:
        sentences.append(f"The boundary of the class is {record.boundary_degrees:.1f}° away.")
    if record.words and any(word.unsure for word in record.words[0].words):
        sentences.append(
            "?: whether this word speaks for the class depends on how it is taken away."
        )
    if record.part is not None:
        sentences.append("All of this is about the part of the picture that is framed in yellow.")
    by = record.provenance
    sentences.append(
        f"Encoder {by.encoder} {by.fingerprint[:8]}, policy {by.policy} {by.policy_digest[:8]}."
    )
    return sentences


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
