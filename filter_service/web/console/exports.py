"""The form of an export: what narrows it, and what its columns mean."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy import select

from filter_service.db.tables import PolicyClass, StoredPolicy
from filter_service.exports import COLUMNS, By, Format
from filter_service.exports.wanted import DECISIONS
from filter_service.people import Ability
from filter_service.verdicts import Verdict
from filter_service.web.access import Caller, able
from filter_service.web.console.queue import somebody
from filter_service.web.pages import render
from filter_service.web.service import Service, service
from filter_service.web.sight import may_see

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
    with here.sessions.begin() as session:
        policies = session.scalars(select(StoredPolicy.name).distinct()).all()
        classes = session.scalars(select(PolicyClass.name).distinct()).all()
    return render(
        request,
        "exports.html",
        columns=COLUMNS,
        formats=FORMATS,
        moments=list(By),
        verdicts=list(Verdict),
        decisions=DECISIONS,
        policies=sorted(policies),
        classes=sorted(name for name in classes if may_see(caller, name)),
    )
