"""The page that lists labels: what is true of which picture, and how it came to be known."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from filter_service.accounts import Ability, clients, sees
from filter_service.accounts.callers import Caller
from filter_service.accounts.clients import client_names
from filter_service.calibration.label_list import LabelFilter, ListedLabel, counted, listed
from filter_service.calibration.labels import LabelSource
from filter_service.db.keyset import cursor, key_of
from filter_service.errors import InvalidRequest
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able_any
from filter_service.web.http.described_requests import only
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/accuracy/labels")

ROWS = 100

Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able_any(Ability.POLICIES, Ability.AUDIT))]


@router.get("", dependencies=[Depends(only("class", "source", "client", "after"))])
def page(
    request: Request,
    here: Here,
    caller: Reader,
    class_name: Annotated[str, Query(max_length=64, alias="class")] = "",
    source: Annotated[str, Query(max_length=20)] = "",
    client: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """The newest labels first, and how many there are of each class and source."""
    person = somebody(caller)
    with here.sessions.begin() as session:
        client_id = clients.named(session, client).id if client else None
        wanted = LabelFilter(class_name or None, _source(source), client_id)
        rows = listed(session, wanted, person.classes, _beyond(after), ROWS + 1)
        counts = counted(session, wanted, person.classes)
        every = counted(session, LabelFilter(), person.classes)
    shown = rows[:ROWS]
    more = cursor(*_key(shown[-1])) if len(rows) > ROWS else None
    return render(
        request,
        "labels.html",
        labels=shown,
        counts=counts,
        classes=sorted({c.class_name for c in every if sees(person, c.class_name)}),
        sources=list(LabelSource),
        chosen={"class": class_name, "source": source, "client": client},
        clients=client_names(here.sessions, client or None),
        more=more,
    )


def _source(said: str) -> LabelSource | None:
    if said and said not in list(LabelSource):
        raise InvalidRequest(f"{said!r} is no source: choose {' or '.join(LabelSource)}.")
    return LabelSource(said) if said else None


def _key(label: ListedLabel) -> tuple[str, int, str]:
    return label.at.isoformat(), label.image_id, label.class_name


def _beyond(after: str) -> tuple[datetime, int, str] | None:
    if not after:
        return None
    at, image, class_name = key_of(after, str, int, str)
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or "\x00" in class_name:
            raise ValueError(at)
        return moment, image, class_name
    except ValueError as error:
        raise InvalidRequest(
            f"{after!r} is no place in this list: start again from its first page."
        ) from error
