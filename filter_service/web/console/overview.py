"""The overview page: waiting, flagged, overturned and undetermined items, in figures."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from filter_service import accounts
from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.accounts.clients import client_names
from filter_service.calibration.standing_estimates import standing_estimates
from filter_service.db.keyset import LARGEST_ID, Page, cursor, id_of, key_of, page_of
from filter_service.db.session import Sessions
from filter_service.db.tables import Person
from filter_service.intake import item_answers, retries
from filter_service.rendering import charts
from filter_service.rendering.formats import span as lasting
from filter_service.reviews import tallies
from filter_service.reviews.tallies import Day, DecisionTally, Waiting
from filter_service.rollout.drift_alarms import alarms
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service
from filter_service.webhooks.endpoints import Endpoint, endpoints

router = APIRouter()

DAYS = tallies.DAYS
CHARTS = 12  # classes whose course is drawn; the table has all of them
ROWS = 50  # undetermined items of one page
LATEST = 5  # of them on the overview

Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]


@dataclass(frozen=True, slots=True)
class ClassOverview:
    """Everything that is counted about one class."""

    name: str
    days: dict[date, Day]
    flagged: int
    share: float  # of all that was judged on the days that are drawn
    waiting: int
    overturned: DecisionTally
    seconds: float | None  # mean time to decide

    @property
    def shares(self) -> dict[date, float]:
        return {day: found.share for day, found in self.days.items()}

    @property
    def course(self) -> str:
        """The chart in a sentence."""
        if not self.days:
            return f"Nothing was flagged for {self.name} in the last {DAYS} days."
        highest = max(self.days.values(), key=lambda d: d.share)
        return (
            f"{self.flagged:,} items, {charts.written(self.share)} of what was judged; most on "
            f"{highest.day:%d %B} with {charts.written(highest.share)}."
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """What the overview draws."""

    waiting: Waiting
    rows: list[ClassOverview]
    judged: dict[date, int]
    undetermined: int

    @property
    def days(self) -> list[date]:
        """On which something was flagged, the newest first."""
        return sorted({day for row in self.rows for day in row.days}, reverse=True)


@router.get("/overview")
def overview(request: Request, here: Here, caller: Reader) -> Response:
    """Waiting, flagged, overturned, undetermined, one's own reveals, and what is in trouble."""
    person = somebody(caller)
    may = ABILITIES[caller.role]
    cap = person.reveal_cap
    return render(
        request,
        "overview.html",
        figures=figures(here.sessions, person),
        estimated=standing_estimates(here.sessions, person.classes),
        drifted=alarms(here.sessions, person.classes),
        today=datetime.now(UTC).date(),
        span=DAYS,
        drawn=CHARTS,
        charts=charts,
        lasting=lasting,
        revealed=accounts.revealed_today(here.sessions, person) if Ability.REVEAL in may else None,
        cap=here.settings.reveal_cap if cap is None else cap,
        failed=failed(here.sessions, None, LATEST).rows,
        in_trouble=_in_trouble(here.sessions) if Ability.WEBHOOKS in may else [],
    )


@router.get("/undetermined")
def undetermined(
    request: Request,
    here: Here,
    caller: Reader,
    after: str | None = None,
    retried: int = -1,
    client: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Items that could not be judged, with the reasons, newest first; of one client or all."""
    somebody(caller)
    return render(
        request,
        "undetermined.html",
        page=failed(here.sessions, after, ROWS, client),
        after=after or "",
        chosen=client,
        clients=client_names(here.sessions, client),
        may_retry=Ability.RETRY in ABILITIES[caller.role],
        retried=retried,
    )


@router.post("/undetermined/retry")
def retry(
    here: Here,
    caller: Annotated[Caller, Depends(able(Ability.RETRY))],
    item: Annotated[list[Annotated[int, Form(ge=1, le=LARGEST_ID)]], Form(max_length=ROWS)],
    after: Annotated[str, Form()] = "",
    client: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Judge one of them, or all that were shown, again."""
    retried = retries.retry_items(here.sessions, here.notify_workers, item, caller.actor)
    place = {"client": client, "after": cursor(*key_of(after, int)) if after else ""}
    query = urlencode({"retried": retried} | {k: v for k, v in place.items() if v})
    return RedirectResponse(f"/undetermined?{query}", status_code=303)


def figures(sessions: Sessions, person: Person) -> Figures:
    """Everything that is counted, of the classes that this person may see."""
    classes = person.classes
    waiting = tallies.waiting_now(sessions, classes)
    flagged: defaultdict[str, dict[date, Day]] = defaultdict(dict)
    for day in tallies.flagged_by_day(sessions, classes, DAYS):
        flagged[day.class_name][day.day] = day
    judged = tallies.judged_by_day(sessions, DAYS)
    overturned = tallies.overturned_by_class(sessions, classes, DAYS)
    seconds = tallies.seconds_to_decide(sessions, classes, DAYS)
    rows = []
    for name in {*flagged, *waiting.by_class, *overturned, *seconds}:
        number = sum(d.flagged for d in flagged[name].values())
        rows.append(
            ClassOverview(
                name=name,
                days=flagged[name],
                flagged=number,
                share=number / max(1, sum(judged.values())),
                waiting=waiting.by_class.get(name, 0),
                overturned=overturned.get(name, DecisionTally(0, 0)),
                seconds=seconds.get(name),
            )
        )
    rows.sort(key=lambda row: (-row.flagged, row.name))
    failures = tallies.undetermined_by_day(sessions, DAYS)
    return Figures(waiting, rows, judged, sum(failures.values()))


def failed(
    sessions: Sessions, after: str | None, limit: int, client: str = ""
) -> Page[item_answers.FailureRow]:
    """Undetermined items, of one client if it is named, newest first; raises UnknownEntry."""
    found = item_answers.undetermined(sessions, client, id_of(after), limit + 1)
    return page_of(found, limit, lambda row: (row.item.id,))


def _in_trouble(sessions: Sessions) -> list[Endpoint]:
    """Webhook endpoints that nothing reaches."""
    return [e for e in endpoints(sessions) if e.failing_since or e.disabled_at]
