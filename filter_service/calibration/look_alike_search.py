"""Seeks look-alikes for a policy's classes among the phrases of a bank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from filter_service.calibration.look_alike_choice import harmless, look_alikes, shortlist
from filter_service.calibration.picture_stream import PictureStream
from filter_service.policy import ForbiddenClass
from filter_service.scoring import ClassVectors, EncodeTexts, FloatArray, PolicyVectors, ensemble

MOST_OF_A_CLASS = 100  # look-alikes that a policy takes
ALREADY = 0.99  # cosine to a neutral prompt from which a phrase adds nothing
BARE = ("{}",)


@dataclass(frozen=True)
class LookAlikeSearch:
    """A policy, one's own pictures, and a bank of phrases.

    The bank's phrases are shortlisted bare, and judged as the policy words them: wording all of
    them by every template would cost more than the pictures did.
    """

    vectors: PolicyVectors
    stream: PictureStream
    encode_texts: EncodeTexts
    bank: Sequence[str]

    def of(self, c: ForbiddenClass, v: ClassVectors, most: int) -> dict[str, int]:
        """At most so many phrases, each with how many of the top pictures fit it best.

        None for a restricted class, whose pictures are to tell nobody anything, and none where the
        model contrasts with nothing.
        """
        room = min(most, MOST_OF_A_CLASS - len(c.look_alikes or ()))
        if c.sealed is not None or v.logit_scale.sigmoid or room <= 0:
            return {}
        top = self.stream.top(v)  # (t, d)
        bare, vectors = self._harmless(c, self.bank, BARE)
        listed = [bare[i] for i in shortlist(top, vectors)]
        texts, vectors = self._harmless(c, listed, self.vectors.policy.templates_of(c))
        return {texts[a.phrase]: a.won for a in look_alikes(top, v.prompts, vectors, room)}

    def _harmless(
        self, c: ForbiddenClass, phrases: Sequence[str], templates: Sequence[str]
    ) -> tuple[list[str], FloatArray]:
        """Those that are no synonym of what is forbidden or said already, and their vectors."""
        policy = self.vectors.policy
        prompts = [p for other in policy.classes for p in other.prompts]
        ordinary, against = policy.ordinary_of(c), policy.neutral_of(c)
        wanted = [*prompts, *against, *phrases]
        vectors = ensemble(wanted, templates, self.encode_texts)
        p, n, found = np.split(vectors, [len(prompts), len(prompts) + len(against)])
        if not len(found):
            return [], found
        new = (found @ n.T).max(axis=1) < ALREADY
        kept = np.flatnonzero(harmless(found, p, n[: len(ordinary)]) & new)
        return [phrases[int(i)] for i in kept], found[kept]
