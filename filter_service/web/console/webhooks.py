"""Webhooks, for admins: endpoints, what was sent to them, and sending it again."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from filter_service import webhooks
from filter_service.accounts import Ability, clients
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import cursor, id_of, page_of
from filter_service.errors import InvalidRequest, UnsafeAddress
from filter_service.web.api.webhooks import LARGEST
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service
from filter_service.webhooks import DeliveryState, EventType
from filter_service.webhooks.endpoints import ON_REQUEST

PAGE = 50

router = APIRouter(prefix="/webhooks")
Here = Annotated[Service, Depends(service)]
By = Annotated[Caller, Depends(able(Ability.WEBHOOKS))]
WebhookId = Annotated[int, Path(ge=1, le=LARGEST)]


@router.get("")
def show(request: Request, by: By, here: Here, after: str = "") -> Response:
    """Those in use."""
    return _page(request, here, after)


@router.post("")
def add(
    request: Request,
    by: By,
    here: Here,
    url: Annotated[str, Form(max_length=2000)] = "",
    events: Annotated[list[str], Form()] = [],  # noqa: B006  (FastAPI copies it)
) -> Response:
    """The page with the new secret, which no other page shows."""
    try:
        wanted = None if set(events) == set(EventType) - ON_REQUEST else events
        added, secret = webhooks.add_endpoint(
            here.sessions, here.settings, url.strip(), wanted, by.actor
        )
    except (InvalidRequest, UnsafeAddress) as error:
        return _page(request, here, problem=str(error), url=url, status=422)
    return _page(request, here, added=added, secret=secret)


@router.get("/{webhook}")
def log(
    request: Request,
    webhook: WebhookId,
    by: By,
    here: Here,
    after: str = "",
    state: Annotated[str, Query(pattern="^(|waiting|delivered|given_up)$")] = "",
) -> Response:
    """What was sent to an endpoint, and what waits."""
    wanted = DeliveryState(state) if state else None
    page = webhooks.deliveries(here.sessions, webhook, id_of(after), PAGE, wanted)
    return render(
        request,
        "deliveries.html",
        endpoint=webhooks.endpoint(here.sessions, webhook),
        deliveries=page.deliveries,
        next=None if page.next is None else cursor(page.next),
        state=state,
        states=list(DeliveryState),
    )


@router.post("/{webhook}/ping")
def ping(webhook: WebhookId, by: By, here: Here) -> Response:
    webhooks.ping(here.sessions, webhook, by.actor)
    return _to(webhook)


@router.post("/{webhook}/retry")
def retry(webhook: WebhookId, by: By, here: Here) -> Response:
    webhooks.retry(here.sessions, webhook, by.actor)
    return _to(webhook)


@router.post("/{webhook}/remove")
def remove(webhook: WebhookId, by: By, here: Here) -> Response:
    webhooks.remove(here.sessions, webhook, by.actor)
    return RedirectResponse("/webhooks", status_code=303)


@router.post("/{webhook}/deliveries/{message_id}/redeliver")
def redeliver(webhook: WebhookId, message_id: uuid.UUID, by: By, here: Here) -> Response:
    webhooks.redeliver(here.sessions, webhook, message_id, by.actor)
    return _to(webhook)


def _page(
    request: Request, here: Service, after: str = "", status: int = 200, **known: object
) -> Response:
    found = webhooks.endpoints(here.sessions, id_of(after) or 0, PAGE + 1)
    page = page_of(found, PAGE, lambda endpoint: (endpoint.id,))
    shown = {"added": None, "secret": None, "problem": None, "url": ""} | known
    return render(
        request,
        "webhooks.html",
        status,
        endpoints=page.rows,
        whose=clients.named_by_id(here.sessions, (e.client_id or 0 for e in page.rows)),
        next=page.next,
        events=list(EventType),
        on_request=ON_REQUEST,
        **shown,
    )


def _to(webhook: int) -> Response:
    return RedirectResponse(f"/webhooks/{webhook}", status_code=303)
