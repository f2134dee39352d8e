"""The transparency figures of a period, as a page and as JSON."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.audit import transparency
from filter_service.audit.exports import moment
from filter_service.audit.transparency import Figure, Period, TransparencyReport, Unit
from filter_service.rendering import charts
from filter_service.rendering.formats import span as lasting
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.described_requests import only
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter()

DRAWN = 92  # days of a chart at most

Here = Annotated[Service, Depends(service)]
Exporter = Annotated[Caller, Depends(able(Ability.EXPORT))]
PARTS = (("by_model", "alone"), ("by_lists", "lists"), ("by_people", "people"))


def chosen(
    since: Annotated[str, Query(max_length=40, alias="from")] = "",
    until: Annotated[str, Query(max_length=40, alias="to")] = "",
) -> Period:
    """The period; raises InvalidRequest."""
    start = moment(since) if since else None
    return Period.of(start, moment(until, end=True) if until else None)


ThePeriod = Annotated[Period, Depends(chosen)]


@router.get("/figures", dependencies=[Depends(only("from", "to"))])
def page(request: Request, here: Here, caller: Exporter, period: ThePeriod) -> Response:
    """Every figure with its definition, drawn where that says more."""
    report = _report(here, caller, period)
    rates = [f for s in report.sections for f in s.figures if _is_estimate(f)]
    return render(
        request,
        "transparency.html",
        report=report,
        charts=charts,
        written=_written,
        rates=rates,
        top=charts.nice(max((f.high or 0.0 for f in rates), default=0.0)),
        parts=[(report[key].value or 0.0, kind) for key, kind in PARTS],
        days=min(period.days, DRAWN),
        before=_before(period),
    )


@router.get("/figures.json", dependencies=[Depends(only("from", "to"))])
def document(here: Here, caller: Exporter, period: ThePeriod) -> dict[str, Any]:
    """The same for programs."""
    return _report(here, caller, period).document()


def _report(here: Service, caller: Caller, period: Period) -> TransparencyReport:
    return transparency.report(here.sessions, period, somebody(caller).classes)


def _is_estimate(figure: Figure) -> bool:
    return figure.unit is Unit.SHARE and figure.low is not None


def _before(period: Period) -> dict[str, str]:
    """The form's fields for the period before this one, as long."""
    length = period.until - period.since
    last = period.since - timedelta(microseconds=1)
    return {"from": f"{period.since - length:%Y-%m-%d}", "to": f"{last:%Y-%m-%d}"}


def _written(figure: Figure, value: float | None = None) -> str:
    """A figure's value, or another in its unit, as people read it."""
    found = figure.value if value is None else value
    if found is None:
        return "none"
    if figure.unit is Unit.SHARE:
        return charts.written(found) if found >= 0.01 or not found else f"{100 * found:.2g} %"
    return lasting(found) if figure.unit is Unit.SECONDS else f"{found:,.0f}"
