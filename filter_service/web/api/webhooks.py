"""Webhooks over HTTP: endpoints, deliveries, redelivery."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from filter_service import webhooks
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import cursor, id_of, page_of
from filter_service.policy.strict import StrictModel
from filter_service.web.http.access import able
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.paging import After, Limit
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service
from filter_service.webhooks import DeliveryEntry, DeliveryState, Endpoint, EventType

LARGEST = 2**31 - 1  # id of an endpoint

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    dependencies=[Depends(only_described)],
    responses=answers(401, 403, 404, 422, 503),
    tags=["webhooks"],
)
Here = Annotated[Service, Depends(service)]
By = Annotated[Caller, Depends(able(Ability.WEBHOOKS))]
WebhookId = Annotated[int, Path(ge=1, le=LARGEST)]


class WebhookOrder(StrictModel):
    """Where somebody wants to be told, and of what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "url": "https://example.org/moderation",
                "events": ["item.flagged", "review.decided"],
            }
        },
    )

    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/moderation"])
    events: list[EventType] | None = Field(
        None, min_length=1, max_length=20, description="All but `item.clear`, if left out."
    )


class WebhookAnswer(BaseModel):
    """An endpoint, as it fares."""

    id: int
    url: str
    events: list[EventType] | None = Field(description="Null: all but `item.clear`.")
    created_by: str
    created_at: datetime
    failing_since: datetime | None = Field(description="No delivery has succeeded since then.")
    disabled_at: datetime | None = Field(description="It answered 410 Gone.")

    @classmethod
    def of(cls, endpoint: Endpoint) -> "WebhookAnswer":
        return cls.model_validate(endpoint, from_attributes=True)


class NewWebhook(WebhookAnswer):
    """An endpoint, with the secret that its messages are signed with."""

    secret: str = Field(description="whsec_…, shown this once.")


class WebhookPage(BaseModel):
    """Endpoints in the order of their ids."""

    webhooks: list[WebhookAnswer]
    next: str | None


class AttemptAnswer(BaseModel):
    """One try at a delivery."""

    at: datetime
    status: int | None = Field(description="HTTP status; null: no answer.")
    problem: str | None
    seconds: float = Field(description="Until it was over.")


class DeliveryAnswer(BaseModel):
    """One event on its way to an endpoint, or there."""

    message_id: uuid.UUID = Field(description="webhook-id, the same on every attempt.")
    type: str
    subject: str = Field(description="Events of one subject are sent in order.")
    at: datetime = Field(description="When it happened.")
    data: dict[str, Any]
    state: DeliveryState
    due_at: datetime | None = Field(description="The next attempt, while it waits.")
    attempts: list[AttemptAnswer] = Field(description="The newest first.")

    @classmethod
    def of(cls, found: DeliveryEntry) -> "DeliveryAnswer":
        return cls(
            message_id=found.message_id,
            type=found.type,
            subject=found.subject,
            at=found.at,
            data=found.payload,
            state=found.state,
            due_at=found.due_at,
            attempts=[
                AttemptAnswer.model_validate(a, from_attributes=True) for a in found.attempts
            ],
        )


class DeliveryPage(BaseModel):
    """Deliveries, the newest first."""

    deliveries: list[DeliveryAnswer]
    next: str | None


class PendingMessage(BaseModel):
    """What is about to be sent."""

    message_id: uuid.UUID = Field(description="webhook-id.")


@router.post(
    "/webhooks",
    status_code=201,
    summary="Add a webhook",
    operation_id="add_webhook",
    responses=answers(400) | {201: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
def add(order: WebhookOrder, by: By, here: Here, response: Response) -> NewWebhook:
    """Messages and signatures follow the Standard Webhooks specification."""
    endpoint, secret = webhooks.add_endpoint(
        here.sessions, here.settings, order.url, order.events, by.actor, by.scope
    )
    response.headers["Location"] = f"/v1/webhooks/{endpoint.id}"
    return NewWebhook(**WebhookAnswer.of(endpoint).model_dump(), secret=secret)


@router.get("/webhooks", summary="List webhooks", operation_id="list_webhooks")
def list_all(by: By, here: Here, after: After = None, limit: Limit = 100) -> WebhookPage:
    """Those in use."""
    found = webhooks.endpoints(here.sessions, id_of(after) or 0, limit + 1, by.scope)
    page = page_of(found, limit, lambda endpoint: (endpoint.id,))
    return WebhookPage(webhooks=[WebhookAnswer.of(e) for e in page.rows], next=page.next)


@router.get("/webhooks/{webhook}", summary="One webhook", operation_id="get_webhook")
def one(webhook: WebhookId, by: By, here: Here) -> WebhookAnswer:
    """How it fares."""
    return WebhookAnswer.of(webhooks.endpoint(here.sessions, webhook, by.scope))


@router.delete(
    "/webhooks/{webhook}",
    status_code=204,
    summary="Remove a webhook",
    operation_id="remove_webhook",
)
def remove(webhook: WebhookId, by: By, here: Here) -> None:
    """Nothing more is sent there."""
    webhooks.remove(here.sessions, webhook, by.actor, by.scope)


@router.get(
    "/webhooks/{webhook}/deliveries",
    summary="What was sent, and what waits",
    operation_id="list_deliveries",
)
def log(
    webhook: WebhookId,
    by: By,
    here: Here,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=200, description="At most so many.")] = 50,
    state: Annotated[DeliveryState | None, Query(description="Only those.")] = None,
) -> DeliveryPage:
    """Every event with every attempt at it."""
    page = webhooks.deliveries(here.sessions, webhook, id_of(after), limit, state, by.scope)
    return DeliveryPage(
        deliveries=[DeliveryAnswer.of(d) for d in page.deliveries],
        next=None if page.next is None else cursor(page.next),
    )


@router.post(
    "/webhooks/{webhook}/deliveries/{message_id}/redeliver",
    status_code=202,
    summary="Send an event again",
    operation_id="redeliver_event",
)
def redeliver(webhook: WebhookId, message_id: uuid.UUID, by: By, here: Here) -> PendingMessage:
    """Whatever became of it, under its old id."""
    webhooks.redeliver(here.sessions, webhook, message_id, by.actor, by.scope)
    return PendingMessage(message_id=message_id)


@router.post(
    "/webhooks/{webhook}/ping",
    status_code=202,
    summary="Send a test event",
    operation_id="ping_webhook",
    responses=answers(409),
)
def ping(webhook: WebhookId, by: By, here: Here) -> PendingMessage:
    """Of the type `webhook.ping`; the log of deliveries shows what came of it."""
    return PendingMessage(message_id=webhooks.ping(here.sessions, webhook, by.actor, by.scope))


@router.post(
    "/webhooks/{webhook}/retry",
    status_code=202,
    summary="Send what waits, now",
    operation_id="retry_webhook",
)
def retry(webhook: WebhookId, by: By, here: Here) -> WebhookAnswer:
    """Also to an endpoint that was disabled because it answered 410 Gone."""
    webhooks.retry(here.sessions, webhook, by.actor, by.scope)
    return WebhookAnswer.of(webhooks.endpoint(here.sessions, webhook, by.scope))
