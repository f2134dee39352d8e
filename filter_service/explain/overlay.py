"""Pictures of an explanation: the map over the image, the region that flips, a card with the rest.

A map is drawn on a fixed scale and never stretched to its own peak: where nothing speaks for a
class, nothing is coloured. What the model did not see, such as the margins of a centre crop, is
darkened. Only the record is needed, no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from filter_service.explain.record import Explanation, FlipRegion, Map, PromptWords, Proof

FULL = 12.0  # times its equal part of the margin: where a place reaches the full colour
FAINT = 2.0  # logits: margins below this count as this, so that noise is not drawn in full colour
STRONGEST = 0.85  # opacity of the full colour
EVIDENCE = (226, 74, 24)  # speaks for the class
AGAINST = (38, 102, 206)
INK, PALE, PAPER, OUTLINE = (28, 30, 34), (120, 124, 132), (250, 250, 248), (255, 255, 255)
PANEL, GAP, LINE = 360, 24, 24  # pixels of a card

Floats = npt.NDArray[np.floating]
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Box:
    """The part of a picture that the model saw, in the picture's pixels; may reach beyond it."""

    left: float
    top: float
    right: float
    bottom: float


def seen(width: int, height: int, preprocessing: Mapping[str, Any]) -> Box:
    """Where the model's input lies in a picture, by open_clip's own resize modes."""
    mode, size = preprocessing.get("resize_mode", "shortest"), preprocessing["size"]
    h, w = (size, size) if isinstance(size, int) else size
    if mode == "squash":
        return Box(0, 0, width, height)
    scales = width / w, height / h  # pixels of the picture per pixel of the input
    scale = max(scales) if mode == "longest" else min(scales)
    x, y = (width - scale * w) / 2, (height - scale * h) / 2
    return Box(x, y, x + scale * w, y + scale * h)


def overlay(
    picture: Image.Image,
    found: Map,
    margin: float,
    preprocessing: Mapping[str, Any],
    region: FlipRegion | None = None,
) -> Image.Image:
    """The map over its picture, greyed: warm where it speaks for the class, blue where against."""
    picture = picture.convert("RGB")
    box = seen(*picture.size, preprocessing)
    full = FULL * max(abs(margin), FAINT) / found.grid.size  # logits
    heat = _spread(found.grid.astype(np.float32) / full, box, picture.size)  # (h, w)
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]  # (h, w, 1)
    ground = 46 + 0.75 * grey  # (h, w, 1): lighter and flatter, so that colours stand out
    strength = STRONGEST * np.clip(np.abs(heat), 0, 1)[..., None] ** 0.8  # (h, w, 1)
    colours = np.where(heat[..., None] > 0, EVIDENCE, AGAINST)  # (h, w, 3)
    mixed = ground * (1 - strength) + colours * strength  # (h, w, 3)
    mixed[~_inside(box, picture.size)] *= 0.35
    drawn = Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
    if region is not None and region.flips:
        _outline(drawn, region, found.grid.shape, box)
    return drawn


def card(
    picture: Image.Image,
    record: Explanation,
    preprocessing: Mapping[str, Any],
    neighbour: Image.Image | None = None,
) -> Image.Image:
    """Everything about one flag on one sheet; `neighbour` is the nearest counterfactual image."""
    sheet = Image.new("RGB", (3 * PANEL + 4 * GAP, PANEL + 13 * LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, LINE * 0.6), record.class_name, INK, _font(26))
    _scale(draw, record, (GAP + PANEL, round(LINE * 0.9)), 2 * PANEL + 2 * GAP - 40)
    top = round(LINE * 4.2)
    panels = [
        ("submitted", picture),
        _evidence(picture, record, preprocessing),
        _nearest(record, neighbour),
    ]
    for i, (title, panel) in enumerate(panels):
        left = GAP + i * (PANEL + GAP)
        draw.text((left, top - LINE), title, PALE, _font(15))
        if panel is not None:
            sheet.paste(_fitted(panel), (left, top))
    below = top + PANEL + LINE
    _bars(draw, record.words, (GAP, below))
    _lines(draw, _sentences(record), (2 * GAP + PANEL, below), 2 * PANEL + GAP)
    return sheet


def _spread(grid: Floats, box: Box, size: tuple[int, int]) -> Floats:
    """A grid (gh, gw) over the whole picture; nothing outside the box: (h, w).

    Linear, since a smoother kernel would swing to the other sign beside every strong place.
    """
    gh, gw = grid.shape
    width, height = box.right - box.left, box.bottom - box.top
    # For every pixel of the picture, where in the grid it lies: an affine map.
    matrix = (gw / width, 0, -box.left * gw / width, 0, gh / height, -box.top * gh / height)
    # A border of its own edge keeps the interpolation from fading at the rim.
    padded = Image.fromarray(np.pad(grid.astype(np.float32), 2, mode="edge"))
    a, b, c, d, e, f = matrix
    moved = padded.transform(
        size, Image.Transform.AFFINE, (a, b, c + 2, d, e, f + 2), Image.Resampling.BILINEAR
    )
    return np.where(_inside(box, size), np.asarray(moved), 0.0)


def _inside(box: Box, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Pixels whose centre the model saw: (h, w)."""
    x, y = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    across, down = (x > box.left) & (x < box.right), (y > box.top) & (y < box.bottom)
    return np.asarray(down[:, None] & across[None])


def _outline(drawn: Image.Image, region: FlipRegion, shape: tuple[int, ...], box: Box) -> None:
    """A line around the places of a region, between them and their neighbours."""
    gh, gw = shape
    gone = np.zeros((gh + 2, gw + 2), dtype=bool)  # with a border that belongs to nothing
    for place in region.places:
        gone[place // gw + 1, place % gw + 1] = True
    xs = np.linspace(box.left, box.right, gw + 1)
    ys = np.linspace(box.top, box.bottom, gh + 1)
    sides = [
        ((xs[x], ys[y]), (xs[x + 1], ys[y]))
        for y in range(gh + 1)
        for x in range(gw)
        if gone[y, x + 1] != gone[y + 1, x + 1]
    ] + [
        ((xs[x], ys[y]), (xs[x], ys[y + 1]))
        for x in range(gw + 1)
        for y in range(gh)
        if gone[y + 1, x] != gone[y + 1, x + 1]
    ]
    draw, thin = ImageDraw.Draw(drawn), max(1, round(min(drawn.size) / 180))
    for colour, wide in ((INK, 3 * thin), (OUTLINE, thin)):  # readable on any ground
        for start, end in sides:
            draw.line([start, end], colour, wide)


def _evidence(
    picture: Image.Image, record: Explanation, preprocessing: Mapping[str, Any]
) -> tuple[str, Image.Image | None]:
    if record.map is None:
        return record.no_map or "no map", None
    if not record.faithful:
        return "the map failed its test and is not shown", None
    title = "evidence for and against"
    if record.region is not None and record.region.flips:
        title = "evidence; outlined: without it, not flagged"
    return title, overlay(picture, record.map, record.margin, preprocessing, record.region)


def _nearest(record: Explanation, neighbour: Image.Image | None) -> tuple[str, Image.Image | None]:
    if not record.images:
        return record.no_images or "no counterfactual image", None
    return f"nearest clear image, {record.images[0].degrees:.0f}° away", neighbour


def _fitted(panel: Image.Image) -> Image.Image:
    """A panel's square with the picture in its middle."""
    square = Image.new("RGB", (PANEL, PANEL), (232, 232, 228))
    scale = PANEL / max(panel.size)
    size = max(1, round(panel.width * scale)), max(1, round(panel.height * scale))
    fitted = panel.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    square.paste(fitted, ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2))
    return square


def _scale(draw: ImageDraw.ImageDraw, record: Explanation, at: tuple[int, int], wide: int) -> None:
    """Probability and threshold on a line from 0 to 1."""
    left, y = at[0] + GAP, at[1] + 8
    draw.rounded_rectangle((left, y, left + wide, y + 6), 3, (222, 222, 218))
    x = left + wide * record.probability
    draw.rounded_rectangle((left, y, x, y + 6), 3, EVIDENCE)
    t = left + wide * record.threshold
    draw.line((t, y - 6, t, y + 12), INK, 2)
    state = "" if record.calibrated else " (uncalibrated)"
    _centred(draw, f"threshold {record.threshold:.2f}{state}", t, y + 16, INK, left, left + wide)
    _centred(draw, f"{record.probability:.3f}", x, y - 24, EVIDENCE, left, left + wide)


def _centred(
    draw: ImageDraw.ImageDraw,
    text: str,
    x: float,
    y: float,
    colour: Colour,
    left: float,
    right: float,
) -> None:
    """Text in the middle over x, yet between two bounds."""
    half = draw.textlength(text, _font(14)) / 2
    draw.text((min(max(x - half, left), right - 2 * half), y), text, colour, _font(14))


def _bars(draw: ImageDraw.ImageDraw, words: Sequence[PromptWords], at: tuple[int, int]) -> None:
    """The carrying prompt's words, each with what it adds to the logit."""
    left, top = at
    if not words:
        return
    prompt = words[0]
    draw.text((left, top), f"words of “{prompt.prompt}”, in logits", PALE, _font(15))
    largest = max([abs(w.shapley) for w in prompt.words], default=1.0) or 1.0
    middle, most = left + 190, 90
    for i, word in enumerate(prompt.words[:8]):
        y = top + LINE * (i + 1.2)
        draw.text((left, y), _shortened(draw, word.word, 92), INK, _font(15))
        reach = most * word.shapley / largest
        ends = sorted((middle, middle + reach))
        colour = EVIDENCE if word.shapley > 0 else AGAINST
        draw.rectangle((ends[0], y + 4, ends[1], y + 14), colour)
        mark = " ?" if word.doubtful else ""
        draw.text((left + 290, y), f"{word.shapley:+.1f}{mark}", INK, _font(15))


def _shortened(draw: ImageDraw.ImageDraw, text: str, wide: float) -> str:
    while len(text) > 1 and draw.textlength(text, _font(15)) > wide:
        text = text[:-2] + "…"
    return text


def _sentences(record: Explanation) -> list[str]:
    """What the record says besides the pictures, the proof first."""
    found = [*_proof(record.proof)]
    if record.boundary_degrees is not None:
        found.append(f"The boundary of the class is {record.boundary_degrees:.1f}° away.")
    if record.region is not None:
        share = len(record.region.places) / (record.map.grid.size if record.map else 1)
        found.append(
            f"Without the outlined {share:.0%} of the image it would not be flagged "
            f"(margin {record.region.margin:+.1f} after {record.margin:+.1f})."
            if record.region.flips
            else "No region of the image flips the answer by itself."
        )
    if record.texts:
        text = record.texts[0]
        found.append(
            f"Had the policy said “{text.text}” instead of “{text.replaces}”, it would be clear."
        )
    found.append(
        f"Margin {record.margin:+.2f} logits. Encoder {record.provenance.encoder} "
        f"{record.provenance.fingerprint[:8]}, policy {record.provenance.policy} "
        f"{record.provenance.policy_digest[:8]}."
    )
    return found


def _proof(proof: Proof) -> list[str]:
    if proof.top_drop is None or not proof.random_drops:
        return ["There is no map, so none was tested."]
    random = sum(proof.random_drops) / len(proof.random_drops)
    kept = "Tested" if proof.faithful else "Tested and failed"
    return [
        f"{kept}: removing the marked tenth lowers the evidence by {proof.top_drop:.1f}, "
        f"a random tenth by {random:.1f}."
    ]


def _lines(
    draw: ImageDraw.ImageDraw, sentences: Sequence[str], at: tuple[int, int], wide: int
) -> None:
    """Sentences, broken where the line is full."""
    x, y = at
    for sentence in sentences:
        line = ""
        for word in sentence.split():
            if draw.textlength(f"{line} {word}", _font(16)) > wide:
                draw.text((x, y), line, INK, _font(16))
                line, y = "", y + LINE - 2
            line = f"{line} {word}".strip()
        draw.text((x, y), line, INK, _font(16))
        y += LINE + 6


@cache
def _font(size: int) -> Any:  # noqa: ANN401  (one of Pillow's two font classes)
    """Pillow's own font: no file is needed."""
    return ImageFont.load_default(size)
