"""The page of figures by slices: by an attribute that came with items, or by prompts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.audit.slices import SliceReport, attribute_names, by_attribute, by_prompts
from filter_service.audit.slices.slice_report import LONGEST_PROMPT
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.rendering import charts
from filter_service.web.console.queue import somebody
from filter_service.web.console.transparency import ThePeriod
from filter_service.web.http.access import able_any
from filter_service.web.http.described_requests import only
from filter_service.web.http.drafts import NOTHING, PendingForm
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/accuracy/slices")

Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able_any(Ability.POLICIES, Ability.AUDIT))]
By = Annotated[str, Query(max_length=64)]
Prompts = Annotated[str, Query(max_length=12 * LONGEST_PROMPT, description="One on each line.")]
PolicyName = Annotated[str, Query(max_length=64)]


@router.get("", dependencies=[Depends(only("from", "to", "by", "prompts", "policy"))])
def page(
    request: Request,
    here: Here,
    caller: Reader,
    period: ThePeriod,
    by: By = "",
    prompts: Prompts = "",
    policy: PolicyName = "",
) -> Response:
    """A form, and what was found for it."""
    report, tried = None, NOTHING
    if by or prompts:
        try:
            report = _report(here, caller, period, by, prompts, policy)
        except FilterServiceError as error:
            tried = PendingForm(error)
    return render(
        request,
        "slices.html",
        tried.status,
        report=report,
        problem=tried.said,
        attributes=attribute_names(here.sessions),
        period=period,
        chosen={"by": by, "prompts": prompts, "policy": policy},
        charts=charts,
    )


@router.get(".json", dependencies=[Depends(only("from", "to", "by", "prompts", "policy"))])
def document(
    here: Here,
    caller: Reader,
    period: ThePeriod,
    by: By = "",
    prompts: Prompts = "",
    policy: PolicyName = "",
) -> dict[str, Any]:
    """The same for programs."""
    return _report(here, caller, period, by, prompts, policy).document()


def _report(
    here: Service, caller: Caller, period: ThePeriod, by: str, prompts: str, policy: str
) -> SliceReport:
    """Of the classes that somebody may see; InvalidRequest for both ways, or none."""
    if bool(by) == bool(prompts):
        raise InvalidRequest("Choose an attribute or give prompts, one of the two.")
    named, classes = policy.strip() or None, somebody(caller).classes
    if by:
        return by_attribute(here.sessions, period, by, policy=named, classes=classes)
    texts = prompts.splitlines()
    return by_prompts(here.sessions, here.seeker, period, texts, policy=named, classes=classes)
