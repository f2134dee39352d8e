"""The pages on which policies are sent and proposed: names with a form, a draft of a version."""

from fastapi import Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel

from filter_service import rollout
from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.errors import InvalidPolicy, InvalidRequest
from filter_service.policy import Policy
from filter_service.policy.policy_yaml import field_path
from filter_service.rollout import Flags
from filter_service.rollout.diff import PolicyDiff, differ, read
from filter_service.rollout.named_policies import written_policy
from filter_service.rollout.stored_vectors import MOST
from filter_service.web.console.policy_checks import checked_words
from filter_service.web.console.policy_effects import changes
from filter_service.web.http.drafts import NOTHING, PendingForm
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service

ROWS = 50  # names of one page
PATIENCE = 2.0  # seconds that a draft waits for the model, so that it can be checked


class ProposalForm(BaseModel):
    """The form of a proposal, as it was sent."""

    text: str = ""
    flags: str = ""
    reason: str = ""

    @property
    def choice(self) -> Flags:
        """Raises InvalidRequest."""
        if self.flags not in list(Flags):
            raise InvalidRequest(
                f"flags={self.flags[:40]!r}: choose what becomes of existing flags, one of "
                f"{', '.join(Flags)}."
            )
        return Flags(self.flags)


def sent_policy(text: str, file: UploadFile | None) -> tuple[str, Policy]:
    """The text that was pasted or is in the file; raises InvalidPolicy."""
    source = "policy"
    data = file.file.read() if file is not None else b""
    if file is not None and data:
        source = file.filename or source
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise InvalidPolicy(
                f"{source}:1: is not UTF-8 ({error.reason}): save it so."
            ) from error
    return text, written_policy(text, source)


def names_page(
    request: Request,
    here: Service,
    caller: Caller,
    *,
    after: str = "",
    text: str = "",
    tried: PendingForm = NOTHING,
) -> Response:
    found = rollout.names(here.sessions, after, ROWS + 1)
    return render(
        request,
        "policies.html",
        tried.status,
        names=found[:ROWS],
        next=found[ROWS - 1].name if len(found) > ROWS else None,
        edits=Ability.POLICIES in ABILITIES[caller.role],
        text=text,
        problems=tried.said.splitlines(),
    )


def draft_page(
    request: Request,
    here: Service,
    caller: Caller,
    draft: ProposalForm,
    policy: Policy,
    tried: PendingForm = NOTHING,
) -> Response:
    """What is about to be proposed, what it would change, and the form to propose it."""
    before = rollout.meant_version(here.sessions, policy.name)
    difference: PolicyDiff = read(policy) if before is None else differ(before.policy, policy)
    counted, trouble = (None, None)
    if before is not None and before.digest != policy.digest and tried.error is None:
        counted, trouble = changes(here, caller, before.policy, policy)
    remarks, note = checked_words(here, request, policy, PATIENCE)
    return render(
        request,
        "policy_draft.html",
        tried.status,
        policy=policy,
        before=before,
        draft=draft,
        difference=difference,
        counted=counted,
        most=MOST,
        four_eyes=here.settings.four_eyes,
        problem=tried.said,
        remarks=[(field_path(r.place), r) for r in remarks],
        unchecked=note,
        trouble=str(trouble) if trouble else "",
    )
