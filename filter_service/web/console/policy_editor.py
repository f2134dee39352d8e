"""The policy editor: a form of a version, checked while it is typed, that ends in a proposal."""

from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from filter_service import rollout
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.policy import Policy, Severity
from filter_service.rollout.edited_version import policy_document
from filter_service.web.console.policy_checks import CheckedForm, checked
from filter_service.web.console.policy_drafts import (
    ProposalForm,
    draft_page,
    names_page,
    sent_policy,
)
from filter_service.web.console.policy_form import PolicyForm
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.drafts import PendingForm
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/policies/editor")

PATIENCE = 2.0  # seconds that a page waits for the model, so that it can be checked whole
AT_ONCE = 0.05  # likewise while somebody types
FAULTY = 422

Here = Annotated[Service, Depends(service)]
Editor = Annotated[Caller, Depends(able(Ability.POLICIES))]
Digest = Annotated[str, Query(alias="from", pattern="^([0-9a-f]{64})?$")]


async def sent_form(request: Request) -> PolicyForm:
    """The dependency of whatever takes the form; raises InvalidRequest."""
    fields = await request.form()
    return PolicyForm.sent({k: v for k, v in fields.items() if isinstance(v, str)})


Sent = Annotated[PolicyForm, Depends(sent_form)]
Action = Annotated[str, Form()]


@router.get("/form")
def show(request: Request, here: Here, caller: Editor, digest: Digest = "") -> Response:
    """The form, filled from a version, or from none."""
    somebody(caller)
    if not digest:
        return _page(request, here, CheckedForm(PolicyForm.empty()))
    stored = rollout.version_of(here.sessions, digest)
    return _page(request, here, _checked(request, here, stored.policy))


@router.post("/form")
def edit(
    request: Request, here: Here, caller: Editor, form: Sent, action: Action = "preview"
) -> Response:
    """The form as it was sent, with what is to be said of it; or what a button asks for."""
    somebody(caller)
    if action == "add":
        return _page(request, here, checked(here, request, form.with_class(), AT_ONCE))
    if action.startswith("remove-") and action[7:].isdecimal():
        form = form.without_class(int(action[7:][:4]))
        return _page(request, here, checked(here, request, form, AT_ONCE))
    if action not in ("preview", "compare"):
        raise InvalidRequest(f"action={action[:40]!r} is no button of the editor: use one of them.")
    found = checked(here, request, form, PATIENCE)
    if action == "preview":
        return _page(request, here, found)
    if found.policy is None:
        return _page(request, here, found, FAULTY)
    draft = ProposalForm(text=policy_document(found.policy))
    return draft_page(request, here, caller, draft, found.policy)


@router.post("/check")
def check(request: Request, here: Here, caller: Editor, form: Sent) -> Response:
    """The sentences about each field, for a form that somebody types into."""
    somebody(caller)
    found = checked(here, request, form, AT_ONCE)
    said = {
        name: [{"sentence": s.sentence, "fatal": s.fatal} for s in sentences]
        for name, sentences in found.said.items()
    }
    return JSONResponse({"said": said, "note": found.note, "valid": found.policy is not None})


@router.post("/file")
def download(request: Request, here: Here, caller: Editor, form: Sent) -> Response:
    """The version as a YAML file."""
    somebody(caller)
    found = checked(here, request, form, AT_ONCE)
    if found.policy is None:
        return _page(request, here, found, FAULTY)
    named = f'attachment; filename="{found.policy.name}.yaml"'
    text = policy_document(found.policy)
    return Response(text, media_type="application/yaml", headers={"Content-Disposition": named})


@router.post("/read")
def read(
    request: Request,
    here: Here,
    caller: Editor,
    text: Annotated[str, Form()] = "",
    file: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """The form, filled from YAML that was pasted or is in a file."""
    somebody(caller)
    try:
        text, policy = sent_policy(text, file)
    except FilterServiceError as error:
        return names_page(request, here, caller, text=text, tried=PendingForm(error))
    return _page(request, here, _checked(request, here, policy))


def _checked(request: Request, here: Service, policy: Policy) -> CheckedForm:
    document = policy.model_dump(mode="json", exclude_none=True)
    return checked(here, request, PolicyForm.of(document), AT_ONCE)


def _page(request: Request, here: Service, found: CheckedForm, status: int = 200) -> Response:
    name = found.policy.name if found.policy else ""
    return render(
        request,
        "policy_editor.html",
        status,
        found=found,
        form=found.form,
        severities=[(s.value, s.value) for s in Severity],
        before=rollout.meant_version(here.sessions, name) if name else None,
        four_eyes=here.settings.four_eyes,
    )
