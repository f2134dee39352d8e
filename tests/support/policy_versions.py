"""Two versions of one policy, with different thresholds."""

from filter_service.policy import Policy
from tests.support.simple_classifier import POLICY


def with_threshold(threshold: float, policy: Policy = POLICY) -> Policy:
    knife = policy.classes[0].model_copy(update={"threshold": threshold})
    return policy.model_copy(update={"classes": (knife, *policy.classes[1:])})


STRICT, MILD = with_threshold(0.1), with_threshold(0.9)
