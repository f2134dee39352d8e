"""Makes a first policy version of one's own stream: thresholds by its share, and look-alikes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from filter_service.calibration.look_alike_search import LookAlikeSearch
from filter_service.calibration.picture_stream import PictureStream
from filter_service.calibration.starting_thresholds import (
    StartingThreshold,
    require_enough,
    starting_threshold,
)
from filter_service.policy import ForbiddenClass, Policy
from filter_service.scoring import EncodeTexts, LogitScale, policy_vectors
from filter_service.verdicts import probability, threshold_margin

LOWEST, HIGHEST = 1e-12, math.nextafter(1.0, 0.0)  # a policy's threshold lies between 0 and 1
NEAR = 1e-3  # logits
LOOK_ALIKES = 5  # of a class, unless told otherwise


@dataclass(frozen=True, slots=True)
class StartingClass:
    """What was found for one class."""

    name: str
    threshold: StartingThreshold
    above: int  # pictures of the stream
    proposed: dict[str, int]  # look-alikes: how many of the top pictures fit each best
    dropped: tuple[str, ...]  # what was learnt of margins without these look-alikes


@dataclass(frozen=True, slots=True)
class StartingPolicy:
    """A policy version that nobody has proposed yet, and how it came about."""

    policy: Policy
    classes: tuple[StartingClass, ...]
    pictures: int
    above: int  # of these, for any class
    sought: int  # of these, the top ones of each class, for which look-alikes were sought


def starting_policy(
    policy: Policy,
    stream: PictureStream,
    share: float,
    logit_scale: LogitScale,
    encode_texts: EncodeTexts,
    bank: Sequence[str] = (),
    most: int = LOOK_ALIKES,
) -> StartingPolicy:
    """Thresholds above which a share of the stream lies, once look-alikes of the bank are added.

    Raises InvalidRequest for too few pictures, and for pictures that do not differ.
    """
    require_enough(len(stream), share)
    before = policy_vectors(policy, encode_texts, logit_scale)
    search = LookAlikeSearch(before, stream, encode_texts, bank)
    pairs = zip(policy.classes, before.classes, strict=True)
    proposed = [search.of(c, v, most) for c, v in pairs]
    worded = [_with(c, texts) for c, texts in zip(policy.classes, proposed, strict=True)]
    after = policy_vectors(_of_classes(policy, worded), encode_texts, logit_scale)
    margins = [stream.margins(v) for v in after.classes]
    thresholds = [starting_threshold(m, share) for m in margins]
    ready = [
        c.model_copy(update={"threshold": readable(probability(t.margin, c))})
        for c, t in zip(worded, thresholds, strict=True)
    ]
    above = [m >= threshold_margin(c) for m, c in zip(margins, ready, strict=True)]
    found = zip(policy.classes, ready, thresholds, above, proposed, strict=True)
    return StartingPolicy(
        _of_classes(policy, ready),
        tuple(
            StartingClass(old.name, t, int(a.sum()), p, _dropped(old, new))
            for old, new, t, a, p in found
        ),
        pictures=len(stream),
        above=int(np.any(above, axis=0).sum()),
        sought=stream.sought,
    )


def readable(p: float) -> float:
    """A probability in as few digits as move its margin by less than a thousandth of a logit."""
    p = min(max(p, LOWEST), HIGHEST)
    for digits in range(2, 17):
        rounded = round(p, digits)
        if 0 < rounded < 1 and abs(_logit(rounded) - _logit(p)) < NEAR:
            return rounded
    return p


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _with(c: ForbiddenClass, proposed: dict[str, int]) -> ForbiddenClass:
    """With look-alikes more; what was learnt was for margins that are others then."""
    if not proposed:
        return c
    more = (*(c.look_alikes or ()), *proposed)
    return c.model_copy(update={"look_alikes": more, "calibration": None, "head": None})


def _dropped(old: ForbiddenClass, new: ForbiddenClass) -> tuple[str, ...]:
    learnt = ("head", "calibration")
    return tuple(name for name in learnt if getattr(old, name) != getattr(new, name))


def _of_classes(policy: Policy, classes: Sequence[ForbiddenClass]) -> Policy:
    return policy.model_copy(update={"classes": tuple(classes)})
