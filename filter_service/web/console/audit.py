"""The auditor's pages: the state of the ledger, its entries with their proofs, decision records."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.orm import Session

from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.audit import ledger_browser
from filter_service.audit import record as records
from filter_service.audit.ledger_browser import JournalFilter
from filter_service.audit.record.event_descriptions import sentence
from filter_service.audit.record.log_positions import places_of
from filter_service.audit.record.record_file import shown_beside, written_down
from filter_service.audit.record.record_pictures import PagePictures
from filter_service.audit.record.record_view import Record
from filter_service.db.keyset import LARGEST_ID
from filter_service.errors import InvalidRequest, UnknownEntry
from filter_service.images import Limits
from filter_service.ledger import Event
from filter_service.ledger.checkpoints import newest_checkpoint
from filter_service.reviews.row_access import item_for, visible
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.pages import render, style
from filter_service.web.http.service import Service, service

router = APIRouter()

FURTHER = (  # where else auditors look
    ("Exports", "/exports", Ability.EXPORT),
    ("Transparency figures", "/figures", Ability.EXPORT),
    ("Versions of the policies", "/policies", Ability.READ),
    ("Overview", "/overview", Ability.READ),
)

Here = Annotated[Service, Depends(service)]
Auditor = Annotated[Caller, Depends(able(Ability.AUDIT))]
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("/audit")
def audit(
    request: Request,
    here: Here,
    caller: Auditor,
    event: str = "",
    actor: Annotated[str, Query(max_length=100)] = "",
    since: str = "",
    until: str = "",
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
) -> Response:
    """How far the ledger is sealed, and its newest entries."""
    somebody(caller)
    last = _day("until", until)
    wanted = JournalFilter(
        _event(event), actor.strip(), _day("since", since), last and last + timedelta(days=1)
    )
    page = ledger_browser.recent(here.sessions, wanted, visible(caller), caller.actor, before)
    asked = {"event": event, "actor": actor, "since": since, "until": until}
    query = {name: value for name, value in asked.items() if value} | {"before": page.next}
    return render(
        request,
        "audit.html",
        state=ledger_browser.state(here.sessions),
        many=ledger_browser.MANY,
        where=here.settings.ledger_at,
        page=page,
        wanted=wanted,
        until=until,
        events=list(Event),
        says=sentence,
        further=[(n, to) for n, to, needs in FURTHER if needs in ABILITIES[caller.role]],
        further_query=urlencode(query),
    )


@router.get("/audit/record")
def open_record(caller: Auditor, item: Annotated[int, Query(ge=1, le=LARGEST_ID)]) -> Response:
    """The record of an item by its number."""
    return RedirectResponse(f"/items/{item}/record", status_code=303)


@router.get("/audit/entries/{entry_id}")
def entry(request: Request, here: Here, caller: Auditor, entry_id: Id) -> Response:
    """One entry: what it says, its leaf, and the proof that it is in the signed tree."""
    somebody(caller)
    with here.sessions.begin() as session:
        found = ledger_browser.entry_of(session, entry_id)
        if found is None:
            raise UnknownEntry(f"The ledger has no entry {entry_id}: look through its entries.")
        if found.item_id is not None:
            item_for(session, caller, found.item_id)
        place = places_of(session, [entry_id])[entry_id]
        checkpoint = newest_checkpoint(session)
    return render(
        request,
        "record_entry.html",
        entry=found,
        said=sentence(found),
        place=place,
        checkpoint=checkpoint,
    )


@router.get("/items/{item_id}/record")
def record(request: Request, here: Here, caller: Auditor, item_id: Id) -> Response:
    """One item's whole life on one page; reading it is written down."""
    somebody(caller)
    life = records.read(
        here.sessions, item_id, caller.actor, "page", _allowed(caller, item_id), visible(caller)
    )
    return render(
        request,
        "record.html",
        r=Record(life),
        pics=PagePictures(item_id),
        ref=lambda number: f"/audit/entries/{number}",
    )


@router.get("/items/{item_id}/record.html")
def record_file(here: Here, caller: Auditor, item_id: Id) -> Response:
    """The same as one file that can be kept and checked where no network is."""
    somebody(caller)
    life = records.read(
        here.sessions, item_id, caller.actor, "file", _allowed(caller, item_id), visible(caller)
    )
    with here.sessions.begin() as session:
        others = shown_beside(session, life, visible(caller))
    return HTMLResponse(
        written_down(here.storage, Limits.of(here.settings), life, others, style()),
        headers={"Content-Disposition": f'attachment; filename="record-{item_id}.html"'},
    )


def _allowed(caller: Caller, item_id: int) -> Callable[[Session], object]:
    return lambda session: item_for(session, caller, item_id)


def _event(name: str) -> Event | None:
    if not name:
        return None
    try:
        return Event(name)
    except ValueError as error:
        raise InvalidRequest(
            f"event={name[:80]!r} never happens here: choose one of {', '.join(Event)}."
        ) from error


def _day(field: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError as error:
        raise InvalidRequest(
            f"{field}={text[:80]!r} is no day: write it as {date.today():%Y-%m-%d}."
        ) from error
