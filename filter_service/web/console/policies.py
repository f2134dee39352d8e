"""Policy pages: versions, differences, proposals, activation and preview of a change."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import Response

from filter_service import rollout
from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.errors import FilterServiceError, UnknownPolicy
from filter_service.rollout.diff import differ, read
from filter_service.rollout.named_policies import written_policy
from filter_service.rollout.stored_vectors import MOST
from filter_service.web.console.policy_drafts import (
    ProposalForm,
    draft_page,
    names_page,
    sent_policy,
)
from filter_service.web.console.policy_effects import changes
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.drafts import PendingForm, taken
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/policies")

VERSIONS = 20  # of one page of a history

Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
Editor = Annotated[Caller, Depends(able(Ability.POLICIES))]
Digest = Annotated[str, Query(pattern="^([0-9a-f]{64})?$")]
Seen = Annotated[int, Form(ge=1, le=LARGEST_ID)]  # the activation that the page has shown


@router.get("")
def show(
    request: Request, here: Here, caller: Reader, after: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Every policy by its name, and what waits for somebody."""
    return names_page(request, here, caller, after=after)


@router.post("/preview")
def preview(
    request: Request,
    here: Here,
    caller: Editor,
    text: Annotated[str, Form()] = "",
    file: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """A version that nobody has proposed yet beside the one that its name means."""
    somebody(caller)
    try:
        text, policy = sent_policy(text, file)
    except FilterServiceError as error:
        return names_page(request, here, caller, text=text, tried=PendingForm(error))
    return draft_page(request, here, caller, ProposalForm(text=text), policy)


@router.post("/propose")
def propose(
    request: Request, here: Here, caller: Editor, draft: Annotated[ProposalForm, Form()]
) -> Response:
    """Propose what was looked at; without four eyes it is active at once."""
    somebody(caller)
    try:
        policy = written_policy(draft.text)
    except FilterServiceError as error:
        return names_page(request, here, caller, text=draft.text, tried=PendingForm(error))
    try:
        made = rollout.propose(
            here.sessions,
            policy,
            draft.choice,
            draft.reason,
            caller.actor,
            four_eyes=here.settings.four_eyes,
        )
    except FilterServiceError as error:
        return draft_page(request, here, caller, draft, policy, tried=PendingForm(error))
    return taken(f"/policies/{quote(policy.name)}", "active" if made.activated_at else "proposed")


@router.get("/version/{digest}")
def version(request: Request, here: Here, caller: Reader, digest: str) -> Response:
    """The permanent address of one version, in plain reading."""
    stored = rollout.version_of(here.sessions, digest)
    return render(
        request,
        "policy_version.html",
        stored=stored,
        told=read(stored.policy),
        edits=Ability.POLICIES in ABILITIES[caller.role],
    )


@router.get("/{name}")
def show_history(
    request: Request,
    here: Here,
    caller: Reader,
    name: str,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
    done: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """Every version of one policy, and who made it active when and why."""
    found = rollout.history(here.sessions, name, before, VERSIONS + 1)
    if not found and before is None:
        raise UnknownPolicy(f"There is no policy {name!r}: /policies lists all names.")
    waiting = rollout.waiting_of(here.sessions, name)
    return render(
        request,
        "policy.html",
        name=name,
        versions=found[:VERSIONS],
        next=found[VERSIONS - 1].stored.id if len(found) > VERSIONS else None,
        waiting=waiting,
        active=rollout.meant_version(here.sessions, name),
        own=waiting is not None and waiting[0].proposed_by == caller.actor,
        four_eyes=here.settings.four_eyes,
        edits=Ability.POLICIES in ABILITIES[caller.role],
        done=done,
    )


@router.get("/{name}/compare")
def show_comparison(
    request: Request,
    here: Here,
    caller: Reader,
    name: str,
    old: Digest = "",
    new: Digest = "",
    count: bool = False,
) -> Response:
    """Two versions side by side; with `count`, what the change would do to stored images."""
    newest = rollout.history(here.sessions, name, limit=VERSIONS)
    if not newest:
        raise UnknownPolicy(f"There is no policy {name!r}: /policies lists all names.")
    meant = rollout.meant_version(here.sessions, name)
    before = rollout.version_of(here.sessions, old) if old else (meant or newest[-1].stored)
    after = rollout.version_of(here.sessions, new) if new else newest[0].stored
    counted, error = None, None
    if count:
        somebody(caller)
        counted, error = changes(here, caller, before.policy, after.policy)
    tried = PendingForm(error)
    return render(
        request,
        "policy_compare.html",
        tried.status,
        name=name,
        old=before,
        new=after,
        versions=[v.stored for v in newest],
        difference=differ(before.policy, after.policy),
        counted=counted,
        most=MOST,
        problem=tried.said,
    )


@router.post("/{name}/activate")
def activate(here: Here, caller: Editor, name: str, activation: Seen) -> Response:
    """Agree with what somebody has proposed."""
    somebody(caller)
    four_eyes = here.settings.four_eyes
    rollout.activate(here.sessions, name, caller.actor, activation, four_eyes=four_eyes)
    return taken(f"/policies/{quote(name)}", "active")


@router.post("/{name}/withdraw")
def withdraw(here: Here, caller: Editor, name: str, activation: Seen) -> Response:
    """Take a proposal back, or refuse it."""
    somebody(caller)
    rollout.withdraw(here.sessions, name, caller.actor, activation)
    return taken(f"/policies/{quote(name)}", "withdrawn")
