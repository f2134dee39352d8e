"""The page with the form of an export: its filters, formats and columns."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from filter_service import accounts
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.audit.exports import COLUMNS, Format, PeriodBasis
from filter_service.audit.exports.export_filter import DECISIONS
from filter_service.db.policies import policy_names
from filter_service.reviews.row_access import may_see
from filter_service.verdicts import Verdict
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter()

FORMATS = {
    Format.CSV: ("CSV", "for spreadsheets"),
    Format.JSONL: ("JSON Lines", "for programs"),
    Format.PARQUET: ("Parquet", "for analysis; by far the smallest"),
}


@router.get("/exports")
def page(
    request: Request,
    here: Annotated[Service, Depends(service)],
    caller: Annotated[Caller, Depends(able(Ability.EXPORT))],
) -> Response:
    """What can be exported, and how."""
    somebody(caller)
    return render(
        request,
        "exports.html",
        columns=COLUMNS,
        formats=FORMATS,
        moments=list(PeriodBasis),
        verdicts=list(Verdict),
        decisions=DECISIONS,
        policies=policy_names(here.sessions),
        classes=[c for c in accounts.known_classes(here.sessions) if may_see(caller, c)],
    )
