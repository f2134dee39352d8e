"""A judge and a policy's texts in one small space: margins follow from the images' vectors."""

from dataclasses import dataclass, replace

import numpy as np

from filter_service.policy import Policy
from filter_service.scoring import ClassVectors, LogitScale, PolicyVectors
from filter_service.verdicts import Outcome
from tests.support.simple_classifier import DIM, SimpleJudge, Subject, vector


class Placed(SimpleJudge):
    """A judge whose margins are those of the vectors of its images."""

    def _outcome(self, subject: Subject, policy: Policy) -> Outcome:
        z = vector(subject.digest)[None]
        margin = placed(policy).classes[0].margins(z)[0]
        return super()._outcome(
            Subject(subject.digest, [str(margin), *subject.words], subject.known), policy
        )


@dataclass
class Seeker:
    """Puts policies into the space of the simple judge's encoder."""

    band: float = 0.0

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        return 1, replace(placed(policy), bands=self.band)


def placed(policy: Policy) -> PolicyVectors:
    axis = np.eye(DIM, dtype=np.float32)[:1]
    logit_scale = LogitScale(2.0)  # margins of -4 to 4
    classes = tuple(ClassVectors(c.name, axis, -axis, logit_scale) for c in policy.classes)
    return PolicyVectors(policy, classes)
