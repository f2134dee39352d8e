"""Reports over HTTP: `/v1/items/{id}/reports`, about pictures that were missed."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field

from filter_service import retention
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.db.tables import Report
from filter_service.reviews import reports
from filter_service.reviews.report_input import ReportInput, ReportSource
from filter_service.reviews.row_access import item_for
from filter_service.verdicts import Verdict
from filter_service.web.http.access import able
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["reports"],
    dependencies=[Depends(only_described)],
    responses=answers(401, 403, 404, 422, 503),
)
Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


class ReportAnswer(BaseModel):
    """A picture was said to be forbidden."""

    id: uuid.UUID
    item: int
    source: ReportSource
    reason: str = Field(description="Empty: it was erased.")
    class_name: str | None = Field(description="That it is said to show; null: not said.")
    reference: str | None = Field(description="Of whoever reported it.")
    reported_by: str
    reported_at: datetime
    closed_at: datetime | None = Field(description="Null: it waits for an answer.")
    final: Verdict | None = Field(
        description="How the picture is to be treated; null: not known yet, or it was erased."
    )

    @classmethod
    def of(cls, found: Report) -> "ReportAnswer":
        names = ("id", "source", "reason", "class_name", "reference", "reported_by", "reported_at")
        told = {name: getattr(found, name) for name in (*names, "closed_at", "final")}
        return cls(item=found.item_id, **told)


class ReportList(BaseModel):
    """Everything that was reported about one item, oldest first."""

    reports: list[ReportAnswer]


@router.post(
    "/items/{item}/reports",
    status_code=201,
    summary="Report a picture",
    operation_id="report_item",
    responses=answers(400, 409, 410, 429)
    | {201: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
def report(
    item: ItemId,
    said: ReportInput,
    by: Annotated[Caller, Depends(able(Ability.REPORT))],
    here: Here,
    response: Response,
) -> ReportAnswer:
    """Somebody looks at it, unless it is known to be forbidden; `report.closed` tells the answer.

    What trusted flaggers and authorities report comes first. Reports of the same picture wait for
    one decision. The same `reference` about the same item is the same report.
    """
    with here.sessions.begin() as session:
        item_for(session, by, item)
        retention.require_here(session, item)
    cap = here.settings.reports_per_hour
    made = reports.report(here.sessions, item, said, by.actor, cap)
    response.headers["Location"] = f"/v1/reports/{made}"
    return ReportAnswer.of(reports.report_of(here.sessions, made, by.scope))


@router.get("/items/{item}/reports", summary="Reports about an item", operation_id="list_reports")
def reports_of(item: ItemId, by: Reader, here: Here) -> ReportList:
    """Open and answered ones, oldest first."""
    with here.sessions.begin() as session:
        item_for(session, by, item)
    found = reports.reports_of(here.sessions, item)
    return ReportList(reports=[ReportAnswer.of(each) for each in found])


@router.get("/reports/{report}", summary="One report", operation_id="get_report")
def one_report(report: uuid.UUID, by: Reader, here: Here) -> ReportAnswer:
    """Whether it was answered, and how."""
    found = reports.report_of(here.sessions, report, by.scope)
    with here.sessions.begin() as session:
        item_for(session, by, found.item_id)
    return ReportAnswer.of(found)
