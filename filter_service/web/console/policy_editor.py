"""The policy editor: a form of a version, checked while it is typed, that ends in a proposal."""

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from filter_service import rollout
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.calibration.separating_phrases import SeparatingPhrases
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.policy import Policy, Severity
from filter_service.rendering import charts
from filter_service.rollout.class_margins import EditedClass
from filter_service.rollout.edited_version import edited, policy_document
from filter_service.web.console.class_effects import ClassEffects, effects_of, phrases_of
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
MENDED_FIRST = "Mend what is marked, and figures are shown again."

Here = Annotated[Service, Depends(service)]
Editor = Annotated[Caller, Depends(able(Ability.POLICIES))]
Digest = Annotated[str, Query(alias="from", pattern="^([0-9a-f]{64})?$")]


async def sent_form(request: Request) -> PolicyForm:
    """The dependency of whatever takes the form; raises InvalidRequest."""
    fields = await request.form()
    return PolicyForm.sent({k: v for k, v in fields.items() if isinstance(v, str)})


Sent = Annotated[PolicyForm, Depends(sent_form)]
Action = Annotated[str, Form()]
Number = Annotated[int, Query(ge=0, le=999)]


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
    if action.startswith("phrases-") and action[8:].isdecimal():
        return _previewed(request, here, caller, form, phrases=int(action[8:][:4]))
    if action == "preview":
        return _previewed(request, here, caller, form)
    if action != "compare":
        raise InvalidRequest(f"action={action[:40]!r} is no button of the editor: use one of them.")
    found = checked(here, request, form, PATIENCE)
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


@router.post("/effects")
def show_effects(
    request: Request,
    here: Here,
    caller: Editor,
    form: Sent,
    number: Number,
    part: Literal["all", "figures", "phrases"] = "all",
) -> Response:
    """The part of the page that says what one class's threshold would do."""
    somebody(caller)
    asked = _edited_class(here, form, number)
    if part == "phrases":
        phrases = phrases_of(here, request, caller, asked)
        return render(request, "class_phrases.html", phrases=phrases)
    shown = effects_of(here, request, caller, asked, drawn=part == "all")
    if shown.why_none and part == "figures":
        raise InvalidRequest(shown.why_none)
    template = "class_effects.html" if part == "all" else "class_figures.html"
    return render(request, template, number=number, shown=shown, phrases=None, charts=charts)


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


def _previewed(
    request: Request, here: Service, caller: Caller, form: PolicyForm, phrases: int = -1
) -> Response:
    """The form with everything that scripts would have asked for."""
    found = checked(here, request, form, PATIENCE)
    if found.policy is None:
        return _page(request, here, found, FAULTY)
    asked = {c.number: _edited_class(here, form, c.number) for c in form.classes}
    effects = {
        number: effects_of(here, request, caller, one, drawn=True) for number, one in asked.items()
    }
    told = {}
    if phrases in asked and not effects[phrases].why_none:
        told = {phrases: phrases_of(here, request, caller, asked[phrases])}
    return _page(request, here, found, effects=effects, told=told)


def _edited_class(here: Service, form: PolicyForm, number: int) -> EditedClass:
    """One class of the form, beside the active version's; raises InvalidRequest."""
    places = [c.number for c in form.classes]
    if number not in places:
        raise InvalidRequest(f"number={number} is no class of this form: open the editor again.")
    version = edited(form.document(), form.base, [c.was for c in form.classes])
    if version.policy is None:
        raise InvalidRequest(MENDED_FIRST)
    place = places.index(number)
    name, was = version.policy.classes[place].name, form.classes[place].was
    meant = rollout.meant_version(here.sessions, version.policy.name)
    active = None if meant is None else meant.policy
    known = set() if active is None else {c.name for c in active.classes}
    return EditedClass(version.policy, name, active, was if was in known else name)


def _page(
    request: Request,
    here: Service,
    found: CheckedForm,
    status: int = 200,
    *,
    effects: Mapping[int, ClassEffects] | None = None,
    told: Mapping[int, SeparatingPhrases] | None = None,
) -> Response:
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
        effects=effects or {},
        told=told or {},
        charts=charts,
    )
