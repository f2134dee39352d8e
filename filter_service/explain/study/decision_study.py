"""Runs every analysis of one decision: the record, and those too costly for every flag.

Each part stands by itself: what cannot be told of a model is left out, and a sentence says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from torch import Tensor

from filter_service.errors import NotExplainable
from filter_service.explain.counterfactual import Memory
from filter_service.explain.study import perturbation
from filter_service.explain.study.decision_audit import Agreement, Audit, MethodMap
from filter_service.explain.study.decision_parts import PARTS, StudyCase, direction_map
from filter_service.explain.study.methods import METHODS, ByMasking, Method
from filter_service.explain.study.perturbation import MaskedAnswers
from filter_service.images import Image
from filter_service.scoring import PolicyVectors
from filter_service.verdicts import threshold_margin

if TYPE_CHECKING:
    from filter_service.encoder import Encoder


def audit(
    encoder: "Encoder",
    vectors: PolicyVectors,
    class_name: str,
    image: Image,
    memories: Sequence[Memory] = (),
    methods: Mapping[str, Method] = METHODS,
    whole: bool = True,
    masks: int = perturbation.COUNT,
) -> Audit:
    """Explain an image for one class, be it flagged or not, by the worst of its views.

    Maps are made by `methods`; without `whole` they are all that is added to the record. `masks` is
    how many masked images the regressions learn from.
    """
    case = StudyCase.of(encoder, vectors, class_name, image, memories, masks)
    maps = tuple(_drawn(case, name, method) for name, method in methods.items())
    parts: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, part in PARTS.items() if whole else ():
        try:
            parts[name] = part(case)
        except NotExplainable as error:
            refused[name] = str(error)
    if whole:
        parts["agreement"] = _agreement([m for m in maps if m.name.startswith("ig-")])
        if parts["agreement"] is None:
            refused["agreement"] = "Fewer than two maps of integrated gradients can be compared."
    forbidden, policy = case.forbidden, vectors.policy
    return Audit(
        digest=image.digest,
        flagged=case.score.flagged,
        clause=forbidden.clause,
        prompts=forbidden.prompts,
        neutral=policy.ordinary_of(forbidden),
        look_alikes=forbidden.look_alikes or (),
        templates=policy.templates_of(forbidden),
        threshold_margin=threshold_margin(forbidden),
        preprocessing=encoder.details["preprocessing"],
        record=case.record,
        maps=maps,
        refused=refused,
        **parts,
    )


@dataclass(frozen=True)
class _Sharing(ByMasking):
    """A regression on masked images that are there already."""

    known: MaskedAnswers | None = None

    def answers(self, encoder: "Encoder", x: Tensor, grid: tuple[int, int]) -> MaskedAnswers:
        assert self.known is not None
        return self.known


def _drawn(case: StudyCase, name: str, method: Method) -> MethodMap:
    try:
        if isinstance(method, ByMasking):
            method = _Sharing(method.name, method.values, case.masks, case.answers)
        u = case.vectors.direction(case.z)  # (d,)
        (relevance,) = method(case.encoder, case.pixels[None], u[None, None])
    except NotExplainable as error:
        return MethodMap(name=name, map=None, refusal=str(error))
    return MethodMap(name=name, map=direction_map(relevance, 0, case.score.margin))


def _agreement(maps: Sequence[MethodMap]) -> Agreement | None:
    drawn = [(m.name, m.map.grid.ravel()) for m in maps if m.map is not None]
    if len(drawn) < 2:
        return None
    ranks = rankdata([grid for _, grid in drawn], axis=1)  # (maps, places)
    with np.errstate(invalid="ignore"):  # a flat map agrees with none: NaN
        correlations: npt.NDArray[np.float64] = np.asarray(np.corrcoef(ranks))
    return Agreement(
        names=tuple(name.removeprefix("ig-").replace("-", " ") for name, _ in drawn),
        correlations=tuple(map(tuple, correlations.tolist())),
    )
