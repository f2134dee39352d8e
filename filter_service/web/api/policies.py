"""Policies over HTTP: what names mean, and for keys of the operator's own, what is proposed."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from filter_service import rollout
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID, cursor, key_of
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation
from filter_service.errors import InvalidRequest, NotAllowed
from filter_service.policy import Policy
from filter_service.policy.strict import WORDS, StrictModel
from filter_service.rollout.activation import LONGEST_REASON, Flags
from filter_service.rollout.named_policies import policy_for
from filter_service.rollout.versions import digest_of
from filter_service.rollout.visible_policies import (
    VisiblePolicy,
    visible_policies,
    visible_policy,
)
from filter_service.web.http.access import able, caller
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.paging import After, Limit
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["policies"],
    dependencies=[Depends(only_described)],
    responses=answers(401, 403, 422, 503),
)
Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
Anybody = Annotated[Caller, Depends(caller)]
PolicyName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
ProposalId = Annotated[int, Path(ge=1, le=LARGEST_ID)]

_CLASS: dict[str, Any] = {"name": "weapons", "prompts": ["a gun"], "threshold": 0.9}
_DOCUMENT: dict[str, Any] = {"name": "shop", "neutral": ["a photo"], "classes": [_CLASS]}


class PolicyProposal(StrictModel):
    """A version that is to be what its name means."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"policy": _DOCUMENT, "flags": "keep", "reason": "Fewer toys are flagged."}
        },
    )

    policy: str | dict[str, Any] = Field(description="The document: an object, or YAML as a text.")
    flags: Flags = Field(
        Flags.KEEP, description="What becomes of what was judged under the version before."
    )
    reason: str = Field(
        min_length=1, max_length=LONGEST_REASON, pattern=WORDS, description="Kept with the version."
    )


class ProposalAnswer(BaseModel):
    """A version that was proposed, and what became of it."""

    id: int
    name: str
    digest: str
    flags: Flags
    reason: str
    proposed_by: str
    proposed_at: datetime
    activated_by: str | None
    activated_at: datetime | None = Field(description="Null: its name does not mean it yet.")
    withdrawn_at: datetime | None

    @classmethod
    def of(cls, sessions: Sessions, made: Activation) -> "ProposalAnswer":
        digest = digest_of(sessions, made.policy_id)
        names = cls.model_fields.keys() - {"digest"}
        return cls(digest=digest, **{name: getattr(made, name) for name in names})


class ClassAnswer(BaseModel):
    """A class that a policy forbids."""

    name: str
    threshold: float = Field(description="A probability, 0 to 1: what reaches it is flagged.")
    severity: str
    clause: str


class PolicyAnswer(BaseModel):
    """What a policy's name means."""

    name: str
    digest: str | None = Field(description="Of the version; null: the first is proposed still.")
    classes: list[ClassAnswer] = Field(description="Those that are not restricted.")
    document: dict[str, Any] | None = Field(
        description="All of its words; null for a client, of a policy that is not its own."
    )
    proposal: ProposalAnswer | None = Field(description="That waits; the operator is told.")

    @classmethod
    def of(cls, here: Service, found: VisiblePolicy, by: Caller) -> "PolicyAnswer":
        policy, waits = found.policy, found.proposal
        whole = policy is not None and (found.own or by.scope.everyone)
        return cls(
            name=found.name,
            digest=policy and policy.digest,
            classes=_classes(policy),
            document=policy.model_dump(mode="json") if policy and whole else None,
            proposal=waits and ProposalAnswer.of(here.sessions, waits),
        )


class PolicyPage(BaseModel):
    """Policies in the order of their names."""

    policies: list[PolicyAnswer]
    next: str | None = Field(description="Give it as `after` for the next page; null: no more.")


@router.get("/policies", summary="List policies", operation_id="list_policies")
def policies(by: Reader, here: Here, after: After = None, limit: Limit = 100) -> PolicyPage:
    """A client's own, and the operator's."""
    last = key_of(after, str)[0] if after else ""
    found = visible_policies(here.sessions, by.scope, last, limit)
    return PolicyPage(
        policies=[PolicyAnswer.of(here, each, by) for each in found],
        next=cursor(found[-1].name) if len(found) == limit else None,
    )


@router.get(
    "/policies/{policy}", summary="One policy", operation_id="get_policy", responses=answers(404)
)
def one_policy(policy: PolicyName, by: Reader, here: Here) -> PolicyAnswer:
    """The version that its name means to whoever asks."""
    return PolicyAnswer.of(here, visible_policy(here.sessions, by.scope, policy), by)


@router.post(
    "/policies/{policy}/proposals",
    status_code=201,
    summary="Propose a version",
    operation_id="propose_policy",
    responses=answers(400, 404, 409),
)
def propose(policy: PolicyName, sent: PolicyProposal, by: Anybody, here: Here) -> ProposalAnswer:
    """It is active at once, unless the operator wants four eyes: then a person activates it.

    For people who edit policies, and keys that were made with `--policies`.
    """
    _require_right(here, by, policy)
    written = policy_for(here.sessions, sent.policy, by.scope)
    if written.name != policy:
        raise InvalidRequest(
            f"The document is of the policy {written.name!r}, not of {policy!r}: send it there."
        )
    eyes = here.settings.four_eyes
    made = rollout.propose(
        here.sessions, written, sent.flags, sent.reason, by.actor, four_eyes=eyes
    )
    return ProposalAnswer.of(here.sessions, made)


@router.post(
    "/policies/{policy}/proposals/{proposal}/activate",
    summary="Activate what is proposed",
    operation_id="activate_policy",
    responses=answers(404, 409),
)
def activate(policy: PolicyName, proposal: ProposalId, by: Anybody, here: Here) -> ProposalAnswer:
    """Where the operator wants four eyes, another person does so: nobody knows who holds a key."""
    _require_right(here, by, policy)
    eyes = here.settings.four_eyes
    if eyes and by.person is None:
        raise NotAllowed(
            f"A key cannot tell who approves of {policy!r}: approve it on its page, "
            f"/policies/{policy}."
        )
    made = rollout.activate(here.sessions, policy, by.actor, proposal, four_eyes=eyes)
    return ProposalAnswer.of(here.sessions, made)


@router.delete(
    "/policies/{policy}/proposals/{proposal}",
    summary="Withdraw what is proposed",
    operation_id="withdraw_policy",
    responses=answers(404, 409),
)
def withdraw(policy: PolicyName, proposal: ProposalId, by: Anybody, here: Here) -> ProposalAnswer:
    """Take a proposal back, or refuse it."""
    _require_right(here, by, policy)
    made = rollout.withdraw(here.sessions, policy, by.actor, proposal)
    return ProposalAnswer.of(here.sessions, made)


def _require_right(here: Service, by: Caller, name: str) -> None:
    """Raises NotAllowed; UnknownPolicy for who may not even know of the name."""
    if by.can(Ability.POLICIES):
        return
    visible_policy(here.sessions, by.scope, name)
    raise NotAllowed(
        f"{by.actor} may not propose or activate policies: an admin makes a key that may, with "
        "`key add NAME --all-clients --policies`."
    )


def _classes(policy: Policy | None) -> list[ClassAnswer]:
    return [
        ClassAnswer(name=c.name, threshold=c.threshold, severity=c.severity.value, clause=c.clause)
        for c in (policy.classes if policy else ())
        if c.sealed is None
    ]
