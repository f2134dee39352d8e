"""How often people look at items: flags, second looks, and what rules draw."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from filter_service.reviews.review_rules import CERTAIN_SHARE, RuleKind, SamplingRule, any_of

Floats = npt.NDArray[np.float64]


def expected_looks(
    rules: Sequence[SamplingRule], class_name: str, above: Floats, certain: float = math.inf
) -> Floats:
    """How often each item is looked at on average, by its logits over the threshold: (n,).

    A flag is looked at, and a second time as the rules say; a clear item only if it is drawn, and
    so is a flag that acts by itself: one that is `certain` logits over the threshold, or more.
    """
    mine = [rule for rule in rules if rule.class_name in (None, class_name)]
    drawn = _chance(mine, RuleKind.CLEAR_SAMPLE, above)
    second = _chance(mine, RuleKind.SECOND_LOOK, above)
    shares = [rule.share for rule in mine if rule.kind is RuleKind.CERTAIN_SAMPLE]
    first = np.where(above >= certain, any_of(shares or [CERTAIN_SHARE]), 1.0)
    return np.where(above >= 0, first * (1 + second), drawn)


def _chance(rules: Sequence[SamplingRule], kind: RuleKind, above: Floats) -> Floats:
    """Of being drawn by any rule of a kind: (n,)."""
    missed = np.ones(len(above))
    for rule in rules:
        if rule.kind is kind:
            near = True if rule.margin_below is None else np.abs(above) < rule.margin_below
            missed *= np.where(near, 1 - rule.share, 1.0)
    return 1 - missed
