"""Chooses look-alikes for a class: harmless phrases that its highest-scoring pictures fit better.

No label says that a phrase is harmless. What the policy itself calls harmless, its neutral prompts,
sets the bound: a phrase that is nearer to something forbidden than the nearest of them may be a
synonym, and is left out. A good look-alike may so be missed; a synonym would cost what it names.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.scoring import FloatArray

SHORTLIST = 5  # phrases of each picture
FEWEST_WON = 2  # pictures: one alone is no kind of thing


@dataclass(frozen=True, slots=True)
class LookAlike:
    """A phrase, and how many of the top pictures fit it better than any prompt of the class."""

    phrase: int  # its row
    won: int


def shortlist(top: FloatArray, phrases: FloatArray) -> npt.NDArray[np.intp]:
    """Rows of the phrases (m, d) that come first for some picture (t, d), each once, ascending."""
    if not len(phrases) or not len(top):
        return np.zeros(0, np.intp)
    fits = top @ phrases.T  # (t, m)
    best = np.argsort(-fits, axis=1, kind="stable")[:, :SHORTLIST]
    return np.unique(best)


def harmless(
    phrases: FloatArray, prompts: FloatArray, neutral: FloatArray
) -> npt.NDArray[np.bool_]:
    """Which phrases (m, d) are no nearer to anything forbidden than the nearest neutral prompt.

    `prompts` (p, d) are those of all classes: what is harmless to one may be another.
    """
    bound = (prompts @ neutral.T).max(axis=1)  # (p,)
    return np.asarray(((phrases @ prompts.T) <= bound).all(axis=1))


def look_alikes(
    top: FloatArray, prompts: FloatArray, phrases: FloatArray, most: int
) -> list[LookAlike]:
    """Phrases (m, d) that pictures (t, d) fit better than every prompt (p, d), at most so many.

    The first is the one that most pictures fit so; of the rest the one that most of those fit for
    which none was chosen yet, as long as there are at least `FEWEST_WON`.
    """
    if not len(phrases) or not len(top):
        return []
    ahead = top @ phrases.T - (top @ prompts.T).max(axis=1, keepdims=True)  # (t, m)
    chosen: list[LookAlike] = []
    while len(chosen) < most:
        won = (ahead > 0).sum(axis=0)  # (m,)
        best = int(np.lexsort((-np.clip(ahead, 0, None).sum(axis=0), -won))[0])
        if won[best] < FEWEST_WON:
            break
        chosen.append(LookAlike(best, int(won[best])))
        ahead = ahead[ahead[:, best] <= 0]
    return chosen
