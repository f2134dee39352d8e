"""The page of an item's statement of reasons: the user's notice and the document."""

import json
import uuid
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import RedirectResponse, Response

from filter_service import ledger
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.db.tables import StoredStatement
from filter_service.errors import InvalidStatement, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.reviews.row_access import item_for
from filter_service.statements import database_files, issuance, wording
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/items/{item_id}/statement")

Here = Annotated[Service, Depends(service)]
Exporter = Annotated[Caller, Depends(able(Ability.EXPORT))]
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]


class StatementFormat(StrEnum):
    """As what a statement can be fetched."""

    JSON = "json"
    TEXT = "txt"
    HTML = "html"


@router.get("")
def statement(
    request: Request,
    item_id: Id,
    caller: Exporter,
    here: Here,
    which: uuid.UUID | None = None,
    failed: str = "",
) -> Response:
    """The notice as its user gets it, the document beside it, and older ones."""
    somebody(caller)
    _allowed(here, caller, item_id)
    found = issuance.statements_of(here.sessions, item_id)
    shown = _chosen(found, item_id, which) if found else None
    return render(
        request,
        "statement.html",
        item_id=item_id,
        shown=shown,
        notices=_notices(shown) if shown else [],
        others=[s for s in found if s is not shown],
        problem=failed or issuance.problem_of(here.sessions, item_id),
    )


@router.post("")
def issue(request: Request, item_id: Id, caller: Exporter, here: Here) -> Response:
    """Issue the statement now, if there has to be one."""
    somebody(caller)
    _allowed(here, caller, item_id)
    try:
        issuance.issue(here.sessions, item_id)
    except InvalidStatement as error:
        return statement(request, item_id, caller, here, failed=str(error))
    return RedirectResponse(f"/items/{item_id}/statement", status_code=303)


@router.get("/{puid}.{kind}")
def fetch(
    item_id: Id, puid: uuid.UUID, kind: StatementFormat, caller: Exporter, here: Here
) -> Response:
    """The document for the database, or the notice as a text or a page; the ledger remembers."""
    somebody(caller)
    batch = _allowed(here, caller, item_id)
    found = _chosen(issuance.statements_of(here.sessions, item_id), item_id, puid)
    body, media = _body(found, kind)
    details = {"what": "statement", "format": kind, "puid": str(puid)}
    with here.sessions.begin() as session:
        entry = Entry(Event.EXPORTED, caller.actor, item_id, batch, details)
        ledger.append(session, [entry])
    name = f'attachment; filename="statement-{puid}.{kind}"'
    return Response(body, media_type=media, headers={"Content-Disposition": name})


def _allowed(here: Service, caller: Caller, item_id: int) -> uuid.UUID:
    """The item's batch; UnknownItem or NotAllowed."""
    with here.sessions.begin() as session:
        return item_for(session, caller, item_id).batch_id


def _chosen(
    found: Sequence[StoredStatement], item_id: int, which: uuid.UUID | None
) -> StoredStatement:
    """The one that was asked for, else the one that stands."""
    for one in found:
        if which in (None, one.puid):
            return one
    raise UnknownEntry(f"Item {item_id} has no statement {which}: look at its page.")


def _body(found: StoredStatement, kind: StatementFormat) -> tuple[str, str]:
    if kind is StatementFormat.JSON:
        whole = database_files.content([found])
        return json.dumps(whole, indent=2, ensure_ascii=False), "application/json"
    if kind is StatementFormat.HTML:
        return wording.page(found.notice, found.language.split(",")), "text/html; charset=utf-8"
    return found.notice, "text/plain; charset=utf-8"


def _notices(shown: StoredStatement) -> list[tuple[str, list[wording.NoticePart]]]:
    return list(zip(shown.language.split(","), wording.parts(shown.notice), strict=True))
