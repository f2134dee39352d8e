"""Heads that nobody fitted, and policies with one."""

from datetime import date

import numpy as np
import numpy.typing as npt

from filter_service.policy import Policy
from filter_service.policy.learnt_head import HeadGain, HeadWords, LearntHead, packed


def head_for(
    policy: Policy,
    name: str,
    encoder: str,
    weights: npt.NDArray[np.floating],  # (d,), logits per unit
    offset: float = 0.0,
) -> LearntHead:
    """As if a class of a policy had learnt this direction."""
    return LearntHead(
        encoder=encoder,
        wording=policy.wording(policy.forbidden(name)),
        direction=packed(weights),
        offset=offset,
        strength=3.0,
        labels=60,
        positives=20,
        until=date(2026, 11, 30),
        gain=HeadGain(value=0.2, low=0.1, high=0.3),
        words=HeadWords(prompts=0.6, unsaid=1.0),
    )


def with_head(policy: Policy, name: str, head: LearntHead) -> Policy:
    """The same policy, in which a class has this head."""
    classes = tuple(
        c.model_copy(update={"head": head}) if c.name == name else c for c in policy.classes
    )
    made = policy.model_copy(update={"classes": classes})
    return Policy.model_validate(made.model_dump(mode="json"))
