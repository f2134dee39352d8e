"""The form with which people here report a picture that was missed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from filter_service import retention
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.errors import InvalidRequest
from filter_service.reviews import reports
from filter_service.reviews.case_file import casefile
from filter_service.reviews.report_input import ReportInput
from filter_service.web.console.queue import address, somebody
from filter_service.web.http.access import able
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/items/{item_id}")


@router.post("/reports")
def report(
    item_id: int,
    caller: Annotated[Caller, Depends(able(Ability.REPORT))],
    service: Annotated[Service, Depends(service)],
    source: Annotated[str, Form()],
    reason: Annotated[str, Form()],
    class_name: Annotated[str, Form()] = "",
    queue: Annotated[str, Form()] = "",
) -> Response:
    """Put a picture before people, or learn that it counts as forbidden already."""
    casefile(service.sessions, somebody(caller), item_id, None)  # whoever may not see it may not
    with service.sessions.begin() as session:
        retention.require_here(session, item_id)
    cap = service.settings.reports_per_hour
    said = _said(source=source, reason=reason, class_name=class_name or None)
    reports.report(service.sessions, item_id, said, caller.actor, cap)
    return RedirectResponse(address(item_id, queue), status_code=303)


def _said(**given: str | None) -> ReportInput:
    try:
        return ReportInput.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = fault["loc"][0] if fault["loc"] else "report"
        raise InvalidRequest(f"The {field} of the report: {fault['msg']}. Mend it.") from error
