"""Finds phrases that the pictures of confirmed flags fit better than those of overturned ones.

Of some thousand phrases the best ones fit by chance, too: only what separates them better than any
phrase does in nine of ten shuffles of the decisions is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from filter_service.calibration.labelled_margins import Bools, Floats
from filter_service.scoring import FloatArray

LEAST = 10  # pictures of either kind
MOST = 1_000  # pictures of either kind, the first
SHUFFLES = 100
CHANCE = 0.9  # quantile of the best phrase among shuffles
TOLD = 5  # phrases of either kind


@dataclass(frozen=True, slots=True)
class SeparatingPhrase:
    """A phrase, and how often a confirmed picture fits it better than an overturned one."""

    text: str
    share: float  # of pairs; over .5 it is nearer to what was confirmed


@dataclass(frozen=True, slots=True)
class SeparatingPhrases:
    """Those that separate most, or a sentence that says why there are none."""

    confirmed: tuple[SeparatingPhrase, ...] = ()
    overturned: tuple[SeparatingPhrase, ...] = ()
    why_none: str = ""


def separating_phrases(
    vectors: FloatArray,  # (n, d) unit, of flagged pictures
    truths: Bools,  # (n,)
    texts: Sequence[str],
    phrases: FloatArray,  # (t, d) unit
) -> SeparatingPhrases:
    """The phrases that separate confirmed flags from overturned ones."""
    rows = np.concatenate([np.flatnonzero(truths)[:MOST], np.flatnonzero(~truths)[:MOST]])
    vectors, truths = vectors[rows], truths[rows]
    confirmed = int(truths.sum())
    overturned = len(truths) - confirmed
    if min(confirmed, overturned) < LEAST or not len(texts):
        return SeparatingPhrases(
            why_none=f"{confirmed} confirmed and {overturned} overturned flags are too few to "
            f"compare: {LEAST} of either are the least."
        )
    fits = (vectors @ phrases.T).astype(np.float64)  # (n, t)
    fits = (fits - fits.mean(axis=0)) / np.maximum(fits.std(axis=0), 1e-12)
    gaps = _gaps(fits, truths)  # (t,)
    rng = np.random.default_rng(0)
    best = [np.abs(_gaps(fits, rng.permutation(truths))).max() for _ in range(SHUFFLES)]
    limit = float(np.quantile(best, CHANCE))
    order = np.argsort(gaps)
    told = [
        tuple(
            SeparatingPhrase(texts[i], _share(fits[:, i], truths))
            for i in some.tolist()
            if abs(gaps[i]) > limit
        )
        for some in (order[::-1][:TOLD], order[:TOLD])
    ]
    if not any(told):
        return SeparatingPhrases(
            why_none=f"None of {len(texts):,} phrases tells {confirmed} confirmed from "
            f"{overturned} overturned flags better than chance would."
        )
    return SeparatingPhrases(
        tuple(p for p in told[0] if p.share > 0.5), tuple(p for p in told[1] if p.share < 0.5)
    )


def _gaps(fits: Floats, truths: Bools) -> Floats:
    """By how many deviations confirmed pictures fit each phrase better: (n, t), (n,) -> (t,)."""
    weights = np.where(truths, 1 / truths.sum(), -1 / (~truths).sum())
    return np.asarray(weights @ fits)


def _share(fits: Floats, truths: Bools) -> float:
    """Of all pairs, those in which the confirmed one fits better: (n,), (n,) -> AUC."""
    order = np.sort(fits[~truths])
    below = np.searchsorted(order, fits[truths], "left") + np.searchsorted(
        order, fits[truths], "right"
    )
    return float(below.mean() / (2 * len(order)))
