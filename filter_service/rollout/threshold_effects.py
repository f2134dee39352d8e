"""What a threshold would do: flags and reviews a day, how right it is, what crosses it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from filter_service.calibration.estimates import Estimate, class_estimates
from filter_service.calibration.intervals import wilson
from filter_service.calibration.labelled_margins import Bools, Floats, LabelledMargins
from filter_service.reviews.expected_looks import expected_looks
from filter_service.reviews.review_rules import SamplingRule
from filter_service.rollout.class_margins import ClassMargins, ImageMargins
from filter_service.verdicts import Z_90

CROSSING = 96  # images on either side that may be shown, if somebody may see them


@dataclass(frozen=True, slots=True)
class DailyCount:
    """So many a day, with a 90 % interval that knows of the sample alone."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CrossingImage:
    """An image that one version flags and the other does not."""

    image_id: int
    margin: float  # as edited, logits over the threshold
    truth: bool | None  # None: nobody has said


@dataclass(frozen=True, slots=True)
class KnownChange:
    """Labelled images that would no longer be flagged, or newly, by what people said of them."""

    forbidden: int
    clear: int


@dataclass(frozen=True, slots=True)
class ThresholdEffects:
    """Everything that is said of one threshold."""

    margin: float  # of the threshold, logits
    images: int  # that were looked at
    labels: int  # with a known chance
    flagged: int  # of the images
    flags: DailyCount | None  # None: nothing was judged lately
    reviews: DailyCount | None
    acting: DailyCount | None  # flags that act by themselves; None as well: none would
    acting_precision: Estimate | None
    precision: Estimate
    recall: Estimate
    lost: KnownChange  # flagged by the active version only
    won: KnownChange  # by the edited one only
    crossing_down: tuple[CrossingImage, ...]  # what people have judged first, then the nearest
    crossing_up: tuple[CrossingImage, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes in a day, and who looks at it."""

    images_a_day: float  # 0: nothing was judged lately
    class_name: str
    rules: Sequence[SamplingRule]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where an edited class flags, as margins in logits, and where the active version does."""

    margin: float
    active: float | None = None  # None: it has no such class
    certain: float = math.inf  # from there on a flag acts by itself


def effects(found: ClassMargins, at: Thresholds, traffic: Traffic) -> ThresholdEffects:
    """Of an edited class's thresholds, beside the active version's."""
    margin, active_margin = at.margin, at.active
    stream, drawn = found.stream, found.labelled.drawn()
    estimates = class_estimates(drawn.margins, drawn.truths, drawn.chances, margin)
    flagged = stream.edited >= margin
    looks = expected_looks(
        traffic.rules, traffic.class_name, stream.edited - margin, at.certain - margin
    )
    down, up = _crossing(found.known, margin, active_margin)
    truths = found.labelled.truths
    return ThresholdEffects(
        margin=margin,
        images=len(stream),
        labels=len(drawn),
        flagged=int(flagged.sum()),
        flags=_daily(flagged.astype(np.float64), traffic.images_a_day),
        reviews=_daily(looks, traffic.images_a_day),
        acting=_daily((stream.edited >= at.certain).astype(np.float64), traffic.images_a_day)
        if math.isfinite(at.certain)
        else None,
        acting_precision=_acting_precision(drawn, at.certain),
        precision=estimates.precision,
        recall=estimates.recall,
        lost=KnownChange(int((down & truths).sum()), int((down & ~truths).sum())),
        won=KnownChange(int((up & truths).sum()), int((up & ~truths).sum())),
        crossing_down=_examples(found, margin, active_margin, 0),
        crossing_up=_examples(found, margin, active_margin, 1),
    )


def _acting_precision(drawn: LabelledMargins, certain: float) -> Estimate | None:
    """Of what acts by itself, how much is right; None where nothing does."""
    if not math.isfinite(certain):
        return None
    return class_estimates(drawn.margins, drawn.truths, drawn.chances, certain).precision


def _daily(each: Floats, images_a_day: float) -> DailyCount | None:
    """The mean of a sample (n,), with Wilson's interval, as a number a day."""
    if not len(each) or not images_a_day:
        return None
    mean = float(each.mean())
    share = wilson(min(mean, 1.0) * len(each), len(each), Z_90)
    assert share is not None, "there are images"
    more = mean / share.value if share.value else 1.0  # some are looked at twice
    return DailyCount(
        images_a_day * mean, images_a_day * share.low * more, images_a_day * share.high * more
    )


def _crossing(
    images: ImageMargins, margin: float, active_margin: float | None
) -> tuple[Bools, Bools]:
    """Which images are flagged by the active version alone, and which by the edited one: (n,)."""
    new = images.edited >= margin
    old = np.zeros(len(images), np.bool_)
    if images.active is not None and active_margin is not None:
        old = images.active >= active_margin
    return old & ~new, new & ~old


def _examples(
    found: ClassMargins, margin: float, active_margin: float | None, side: int
) -> tuple[CrossingImage, ...]:
    """Labelled images first, the forbidden before the others; then the nearest to the threshold."""
    chosen: dict[int, CrossingImage] = {}
    for images, truths in ((found.known, found.labelled.truths), (found.stream, None)):
        rows = np.flatnonzero(_crossing(images, margin, active_margin)[side])
        far = np.abs(images.edited[rows] - margin)
        order = np.argsort(far, kind="stable")
        if truths is not None:
            order = np.lexsort((far, ~truths[rows]))
        for row in rows[order[:CROSSING]].tolist():
            truth = None if truths is None else bool(truths[row])
            image = int(images.images[row])
            over = float(images.edited[row]) - margin
            chosen.setdefault(image, CrossingImage(image, over, truth))
    return tuple(chosen.values())[:CROSSING]
