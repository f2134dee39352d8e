"""Builds explanation records by hand, without any model."""

from typing import Any

import numpy as np

from filter_service.verdicts.explanation import (
    CounterfactualImage,
    Explanation,
    FlipRegion,
    Map,
    PromptWords,
    Provenance,
    Word,
)
from tests.support.proofs import PASSED

SQUASH = {"size": [64, 64], "resize_mode": "squash"}


MARGIN = 5.0


def map_of(*places: int, value: float = 4.0, side: int = 8) -> Map:
    grid = np.zeros(side * side)
    grid[list(places)] = value
    total = float(grid.sum())
    return Map(
        method="by hand",
        grid=grid.reshape(side, side),
        total=total,
        remainder=MARGIN - total,
        high_norm=0,
    )


def record(**changes: Any) -> Explanation:
    whole = Explanation(
        class_name="weapons",
        frame=0,
        margin=MARGIN,
        probability=0.99,
        threshold=0.9,
        calibrated=False,
        boundary_degrees=3.0,
        map=map_of(0, 1),
        no_map=None,
        words=(
            PromptWords(
                prompt="a gun",
                weight=1.0,
                logit=9.0,
                empty=1.0,
                words=(
                    Word(
                        word="gun",
                        shapley=8.0,
                        standard_error=0.0,
                        substituted=7.0,
                        leave_one_out=8.0,
                    ),
                ),
            ),
        ),
        images=(CounterfactualImage(digest="0" * 64, degrees=30.0, margin=-1.0),),
        no_images=None,
        texts=(),
        region=FlipRegion(
            places=(0, 1), flips=True, margin=0.5, blurred_margin=0.4, blurred_flips=True
        ),
        proof=PASSED,
        provenance=Provenance(
            encoder="bundled",
            fingerprint="f" * 64,
            policy="demo",
            policy_digest="d" * 64,
            code="0",
            seed=0,
        ),
    )
    return whole.model_copy(update=changes)
