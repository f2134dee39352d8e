"""Custodians' pages for restricted items, whose files are given out for a reason."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Query, Request, Response

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID, id_of, page_of
from filter_service.errors import InvalidRequest, NotAllowed
from filter_service.reviews import restricted
from filter_service.reviews.restricted import RestrictedItem
from filter_service.reviews.row_access import may_see
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/sealed")

ROWS = 40  # of one page

Here = Annotated[Service, Depends(service)]
Custodian = Annotated[Caller, Depends(able(Ability.CUSTODY))]
ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


@router.get("")
def show_all(
    request: Request,
    here: Here,
    caller: Custodian,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Everything that is locked away for a class that they may see, the newest first."""
    theirs = caller.person.classes if caller.person else None
    found = restricted.restricted_items(here.sessions, id_of(after), ROWS + 1, theirs)
    page = page_of(found, ROWS, lambda row: (row.item.id,))
    return render(request, "restricted.html", found=page.rows, next=page.next)


@router.get("/{item_id}")
def show(request: Request, here: Here, caller: Custodian, item_id: ItemId) -> Response:
    """What is known of one item; there is no picture."""
    return _page(request, here, _found(here, caller, item_id))


@router.post("/{item_id}/file")
def fetch(
    request: Request,
    here: Here,
    caller: Custodian,
    item_id: ItemId,
    reason: Annotated[str, Form()] = "",
) -> Response:
    """The file as it was submitted, to be kept elsewhere: no browser is to draw it."""
    found = _found(here, caller, item_id)
    try:
        digest, data = restricted.original(
            here.sessions, here.storage, item_id, reason, caller.actor
        )
    except InvalidRequest as error:
        return _page(request, here, found, str(error), reason, 422)
    headers = {
        "Content-Disposition": f'attachment; filename="{digest}.bin"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type="application/octet-stream", headers=headers)


def _found(here: Service, caller: Caller, item_id: int) -> RestrictedItem:
    """Raises UnknownItem or NotAllowed."""
    found = restricted.kept_item(here.sessions, item_id)
    if not may_see(caller, found.restriction.class_name):
        raise NotAllowed(
            f"Item {item_id} is locked away for a class that {caller.actor} may not see: an admin "
            "can change that."
        )
    return found


def _page(
    request: Request,
    here: Service,
    found: RestrictedItem,
    problem: str = "",
    reason: str = "",
    status: int = 200,
) -> Response:
    return render(
        request,
        "restricted_item.html",
        status,
        kept=found,
        problem=problem,
        reason=reason,
        shortest=restricted.SHORTEST,
        longest=restricted.LONGEST,
    )
