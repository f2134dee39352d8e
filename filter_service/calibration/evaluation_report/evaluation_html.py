"""Renders an evaluation as one self-contained HTML page.

Pictures near the boundary are blurred and grey until somebody points at them.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from filter_service.calibration.evaluation import ClassComparison, ClassEvaluation
from filter_service.calibration.evaluation_report import evaluation_text
from filter_service.rendering import calibration_charts as charts
from filter_service.rendering.templates import environment

HERE = Path(__file__).parent
NEAREST = 6  # pictures on either side of a threshold


@dataclass(frozen=True, slots=True)
class EvaluatedPictures:
    """What was evaluated, and how a picture of it is had: row -> JPEG, or None."""

    title: str  # policy and encoder
    names: Sequence[str]  # of each row
    thumbnail: Callable[[int], bytes | None]
    unreadable: Sequence[str] = ()  # sentences


@dataclass(frozen=True, slots=True)
class BoundaryPicture:
    """A picture near a threshold."""

    name: str
    source: str  # data: URI; empty where it cannot be had
    over: float  # logits above the threshold
    shows: bool  # what people say


@dataclass(frozen=True, slots=True)
class _Section:
    """One class on the page."""

    evaluation: ClassEvaluation
    curve: Markup | None
    reliability: Markup
    histogram: Markup
    over: list[BoundaryPicture]
    under: list[BoundaryPicture]


def page(
    pictures: EvaluatedPictures,
    evaluations: Sequence[ClassEvaluation],
    comparisons: Sequence[ClassComparison] = (),
) -> str:
    """The whole page: classes in the policy's order."""
    made = environment(HERE)
    made.globals |= {"share": evaluation_text.share, "measured": evaluation_text.measured}
    return made.get_template("evaluation.html").render(
        pictures=pictures,
        sections=[_section(e, pictures) for e in evaluations],
        comparisons=comparisons,
        style=Markup((HERE / "evaluation.css").read_text(encoding="utf-8")),  # ours
    )


def _section(e: ClassEvaluation, pictures: EvaluatedPictures) -> _Section:
    recall, precision = e.curve()
    c = e.confusion
    at = (c.recall.value, c.precision.value) if c.recall.of and c.precision.of else None
    over, under = e.nearest(NEAREST)
    return _Section(
        e,
        charts.precision_recall(recall, precision, at) if e.average_precision else None,
        charts.reliability([(b.promised, b.found, b.count) for b in e.agreement.bins]),
        charts.margin_histogram(e.margins[e.truths], e.margins[~e.truths], e.threshold_margin),
        [_picture(int(row), e, pictures) for row in over],
        [_picture(int(row), e, pictures) for row in under],
    )


def _picture(row: int, e: ClassEvaluation, pictures: EvaluatedPictures) -> BoundaryPicture:
    data = pictures.thumbnail(row)
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""
    over = float(e.margins[row] - e.threshold_margin)
    return BoundaryPicture(pictures.names[row], source, over, bool(e.truths[row]))
