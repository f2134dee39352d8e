"""Says in words what a head learnt: the prompts' share, and phrases that carry the rest.

The learnt direction is projected onto phrases of the bank, chosen one after another (orthogonal
matching pursuit; Pati, Rezaiifar and Krishnaprasad 1993). Shares are those of its squared length,
so that phrases and what none of them carries add up to the whole.
"""

from collections.abc import Sequence

import numpy as np

from filter_service.calibration.labelled_margins import Floats
from filter_service.policy.learnt_head import HeadPhrase, HeadWords
from filter_service.scoring import FloatArray

MOST = 5  # phrases
LEAST = 0.01  # share of what was learnt: of less nobody needs to read
OWN = 0.3  # a phrase must keep this share of its length beside those already chosen


def head_words(
    prompts: Floats,  # (d,): the prompts' own direction, logits per unit
    learnt: Floats,  # (d,): what is added to it
    phrases: Sequence[str],
    vectors: FloatArray,  # (m, d) unit, of the phrases
) -> HeadWords:
    """What of the whole direction the prompts account for, and what phrases carry of the rest."""
    own = prompts / max(float(np.linalg.norm(prompts)), 1e-12)
    whole = prompts + learnt
    along = float((whole @ own) ** 2 / max(float(whole @ whole), 1e-12))
    rest = learnt - (learnt @ own) * own  # (d,): what no stress of the prompts says
    length = float(rest @ rest)
    chosen = _pursuit(rest / max(length**0.5, 1e-12), vectors) if length > 1e-12 else []
    return HeadWords(
        prompts=min(1.0, along),
        phrases=tuple(HeadPhrase(text=phrases[i], share=share) for i, share in chosen),
        unsaid=max(0.0, 1 - sum(abs(share) for _, share in chosen)),
    )


def _pursuit(target: Floats, vectors: FloatArray) -> list[tuple[int, float]]:
    """Phrases with the signed share that each adds of a unit target, (d,)."""
    own = _centred(vectors)  # (m, d), less what is chosen already
    chosen: list[tuple[int, float]] = []
    while len(own) and len(chosen) < MOST:
        lengths = np.linalg.norm(own, axis=1)  # (m,)
        units = np.divide(
            own, lengths[:, None], out=np.zeros_like(own), where=lengths[:, None] >= OWN
        )
        along = units @ target  # (m,)
        best = int(np.abs(along).argmax())
        share = float(along[best] ** 2)
        if share < LEAST:
            break
        chosen.append((best, float(np.copysign(share, along[best]))))
        own = own - (own @ units[best])[:, None] * units[best]
    return chosen


def _centred(vectors: FloatArray) -> Floats:
    """Unit vectors of phrases without what they have in common, which tells no images apart."""
    if not len(vectors):
        return np.zeros((0, 0))
    v = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12))
