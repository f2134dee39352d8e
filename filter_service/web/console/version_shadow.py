"""The page of a shadow: what a version would have flagged, and what people found of that."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from filter_service import rollout
from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.rollout.shadow_report import shadow_of, shadow_report
from filter_service.rollout.shadows import end_shadow, start_shadow
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/policies/version/{digest}/shadow")

Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
Editor = Annotated[Caller, Depends(able(Ability.POLICIES))]


@router.get("")
def page(request: Request, here: Here, caller: Reader, digest: str) -> Response:
    """What the newest shadow of a version found, as far as this person may see it."""
    somebody(caller)
    stored = rollout.version_of(here.sessions, digest)
    shadow = shadow_of(here.sessions, digest)
    return render(
        request,
        "shadow.html",
        stored=stored,
        report=None if shadow is None else shadow_report(here.sessions, shadow, caller),
        edits=Ability.POLICIES in ABILITIES[caller.role],
    )


@router.post("/start")
def start(here: Here, caller: Editor, digest: str) -> Response:
    """Let it look on from now on."""
    somebody(caller)
    start_shadow(here.sessions, digest, caller.actor)
    return RedirectResponse(f"/policies/version/{digest}/shadow", status_code=303)


@router.post("/end")
def stop(here: Here, caller: Editor, digest: str) -> Response:
    """End it; what it would have flagged stays."""
    somebody(caller)
    end_shadow(here.sessions, digest, caller.actor)
    return RedirectResponse(f"/policies/version/{digest}/shadow", status_code=303)
