"""Counterfactual search in plain arrays, by brute force and without a database."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filter_service.policy import Policy
from filter_service.scoring import FloatArray, PolicyVectors
from filter_service.verdicts import Verdict, threshold_margin
from filter_service.verdicts.neighbours import Neighbour, Phrase


@dataclass(frozen=True)
class ArrayMemory:
    """Images of one policy's batch and a phrase bank, searched one by one (`Memory`)."""

    policy: PolicyVectors
    digests: Sequence[str]
    vectors: FloatArray  # (n, d) unit
    exact: npt.NDArray[np.bool_]  # (n,)
    wordings: Sequence[str] = ()
    wording_vectors: FloatArray | None = None  # (m, d) unit

    def images(
        self,
        z: FloatArray,
        *,
        policy: Policy,
        class_name: str,
        side: Verdict,
        beyond: float,
        limit: int,
    ) -> list[Neighbour]:
        if policy.digest != self.policy.policy.digest:
            return []  # never judged by this policy, as in a store
        threshold = threshold_margin(policy.forbidden(class_name))
        names = [c.name for c in self.policy.classes]
        margins = self.policy.classes[names.index(class_name)].margins(self.vectors)  # (n,)
        if side is Verdict.CLEAR:
            there = margins < threshold - beyond
        else:
            there = margins >= threshold + beyond
        order = np.argsort(-(self.vectors @ z), kind="stable")  # (n,)
        return [
            Neighbour(self.digests[i], self.vectors[i], float(margins[i]), bool(self.exact[i]))
            for i in order[there[order]][:limit]
        ]

    def phrases(
        self, z: FloatArray, *, near: FloatArray, side: Verdict, level: float, limit: int
    ) -> list[Phrase]:
        if self.wording_vectors is None:
            return []
        logits = self.policy.classes[0].logit_scale.factor * (self.wording_vectors @ z)  # (m,)
        there = logits < level if side is Verdict.CLEAR else logits >= level
        order = np.argsort(-(self.wording_vectors @ near), kind="stable")  # (m,)
        return [
            Phrase(self.wordings[i], self.wording_vectors[i]) for i in order[there[order]][:limit]
        ]
