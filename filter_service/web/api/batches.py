"""Batches and items over HTTP: `/v1/batches`, `/v1/items`."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID, cursor, id_of, moment_of
from filter_service.errors import NotAllowed, NotSignedIn
from filter_service.intake import item_answers, manifests, retries, submissions
from filter_service.intake.batches import batch_row, newest, status
from filter_service.intake.batches import cancel as cancel_batch
from filter_service.intake.idempotency import Once, is_known
from filter_service.policy import Policy
from filter_service.reviews.reports import require_class, require_room
from filter_service.reviews.row_access import item_for
from filter_service.rollout.named_policies import policy_for
from filter_service.verdicts import Verdict
from filter_service.web.api import submission_requests
from filter_service.web.api.responses import (
    AcceptedBatch,
    BatchAnswer,
    BatchPage,
    BatchWithProgress,
    CancellationResult,
    ItemAnswer,
    ItemPage,
    PolicyReference,
    Progress,
    RetryResult,
)
from filter_service.web.api.submission_requests import Order
from filter_service.web.http.access import SAFE, able, caller
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.paging import After, Limit
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service


def no_forms_of_strangers(request: Request) -> None:
    """A body is read only for somebody who brings a key, or a session's token in a header."""
    known = {"authorization", "x-csrf-token"} & set(request.headers)
    if request.method not in SAFE and not known:
        raise NotSignedIn(
            "Nobody is signed in: send an API key as a bearer token, or a session's cookie with "
            "its CSRF token in X-CSRF-Token."
        )


router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["batches"],
    dependencies=[Depends(no_forms_of_strangers), Depends(only_described)],
    responses=answers(401, 403, 422, 503),
)
Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
Submitter = Annotated[Caller, Depends(able(Ability.SUBMIT))]
ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID)]

_ADDRESSES = submission_requests.AddressBatch.model_json_schema(
    ref_template="#/components/schemas/{model}"
)
_ADDRESSES.pop("$defs", None)  # they are with the operations of reports
KEY = r"^[\x21-\x7e]{1,255}$"
EXAMPLE = {
    "uris": ["https://images.example.org/1.jpg"],
    "policy": "shop",
    "label": "Tuesday",
}
BODY = {
    "required": True,
    "content": {
        submission_requests.FORM: {
            "schema": {
                "type": "object",
                "required": ["policy"],
                "properties": {
                    "files": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": "Images, under any field's name.",
                    },
                    "manifest": {
                        "type": "string",
                        "format": "binary",
                        "description": "Instead of files: JSON Lines with a source-ref each.",
                    },
                    "policy": {
                        "type": "string",
                        "description": "A stored policy's name or digest, or a policy as YAML.",
                    },
                    "label": {"type": "string", "maxLength": 200},
                    "reports": {
                        "type": "string",
                        "description": "As in the JSON body: what was reported, by files' names.",
                    },
                    "priority": {
                        "type": "integer",
                        "minimum": -submission_requests.URGENT,
                        "maximum": submission_requests.URGENT,
                    },
                },
            },
            "example": {"policy": "shop", "label": "Tuesday", "files": ["the bytes of 1.jpg"]},
        },
        submission_requests.JSON: {
            "schema": _ADDRESSES,
            "example": EXAMPLE,
        },
        manifests.MEDIA_TYPE: {
            "schema": {"type": "string"},
            "example": '{"source-ref": "https://images.example.org/1.jpg"}\n',
        },
    },
}


@router.post(
    "/batches",
    status_code=202,
    summary="Submit images",
    operation_id="submit_batch",
    responses=answers(400, 404, 409, 413, 415, 429)
    | {202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
    openapi_extra={"requestBody": BODY},
)
def submit(
    by: Submitter,
    order: Annotated[Order, Depends(submission_requests.order)],
    here: Here,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(pattern=KEY, description="Sent again with the same request: the same batch."),
    ] = None,
) -> AcceptedBatch:
    """Files, addresses or a manifest become a batch, each image an item.

    An image that cannot be taken spoils no other: its item is undetermined and says why. Archives
    are not unpacked. With an `Idempotency-Key` the request may be sent again until it is answered,
    also after this service was restarted in the midst of it: there is one batch, and it is whole.
    Without one, an answer that did not come leaves it open whether there is a batch.
    """
    policy = policy_for(here.sessions, order.terms.policy, by.scope)
    once = Once(by.owner, idempotency_key, order.request()) if idempotency_key else None
    _require_reportable(here, by, order, policy, once)
    batch = submissions.accept(
        here.sessions,
        here.storage,
        here.notify_workers,
        order.submissions(here.settings),
        policy,
        label=order.terms.label,
        priority=order.terms.priority,
        actor=by.actor,
        once=once,
        scope=by.scope,
    )
    response.headers["Location"] = f"/v1/batches/{batch}"
    return AcceptedBatch(batch=batch, policy=_policy_of(here, batch))


@router.get("/batches", summary="List batches", operation_id="list_batches")
def batches(by: Reader, here: Here, after: After = None, limit: Limit = 100) -> BatchPage:
    """The newest first."""
    rows = newest(here.sessions, by.scope, moment_of(after), limit)
    last = rows[-1].batch if len(rows) == limit else None
    return BatchPage(
        batches=[BatchAnswer.of(row) for row in rows],
        next=last and cursor(last.submitted_at.isoformat(), last.id),
    )


@router.get(
    "/batches/{batch}",
    summary="How far a batch has come",
    operation_id="get_batch",
    responses=answers(404),
)
def batch(batch: uuid.UUID, by: Reader, here: Here) -> BatchWithProgress:
    """Its items are counted by verdict."""
    found = status(here.sessions, batch, by.scope)
    with here.sessions.begin() as session:
        told = BatchAnswer.of(batch_row(session, batch, by.scope))
    return BatchWithProgress(**dict(told), progress=Progress.of(found), finished=found.finished)


@router.post(
    "/batches/{batch}/cancel",
    summary="Cancel a batch",
    operation_id="cancel_batch",
    responses=answers(404),
)
def cancel(batch: uuid.UUID, by: Submitter, here: Here) -> CancellationResult:
    """Take back its items that have no verdict yet; again changes nothing."""
    return CancellationResult(cancelled=cancel_batch(here.sessions, batch, by.actor, by.scope))


def retrier(by: Annotated[Caller, Depends(caller)]) -> Caller:
    """Who submits may try again, and so may those who look after undetermined items."""
    if not ABILITIES[by.role] & {Ability.SUBMIT, Ability.RETRY}:
        raise NotAllowed(f"{by.actor} may not retry items: an admin can give another role.")
    return by


@router.post(
    "/batches/{batch}/retry",
    summary="Retry a batch",
    operation_id="retry_batch",
    responses=answers(404),
)
def retry(batch: uuid.UUID, by: Annotated[Caller, Depends(retrier)], here: Here) -> RetryResult:
    """Queue its undetermined items again; those whose bytes never came stay as they are."""
    again = retries.retry(here.sessions, here.notify_workers, batch, by.actor, by.scope)
    return RetryResult(retried=again)


@router.get(
    "/batches/{batch}/items",
    summary="List items",
    operation_id="list_items",
    responses=answers(404),
)
def items(
    batch: uuid.UUID,
    by: Reader,
    here: Here,
    verdict: Annotated[Verdict | None, Query(description="Only these.")] = None,
    after: After = None,
    limit: Limit = 100,
) -> ItemPage:
    """In the order in which they came."""
    with here.sessions.begin() as session:
        batch_row(session, batch, by.scope)
        states = item_answers.states_in(session, by, batch, verdict, id_of(after) or 0, limit)
    found = [ItemAnswer.of(state) for state in states]
    return ItemPage(items=found, next=cursor(found[-1].id) if len(found) == limit else None)


@router.get(
    "/batches/{batch}/manifest",
    summary="The result manifest",
    operation_id="get_manifest",
    response_class=StreamingResponse,
    responses=answers(404)
    | {
        200: {
            "description": "JSON Lines: one result for each item.",
            "content": {manifests.MEDIA_TYPE: {"schema": {"type": "string"}}},
        }
    },
)
def manifest(batch: uuid.UUID, by: Reader, here: Here) -> StreamingResponse:
    """What became of each image, in the form of AWS's bulk image analysis, as it stands now."""
    with here.sessions.begin() as session:
        found = batch_row(session, batch, by.scope)
    lines = manifests.write(item_answers.results(here.sessions, by, found))
    return StreamingResponse(
        lines,
        media_type=manifests.MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{batch}.jsonl"'},
    )


@router.get("/items/{item}", summary="One item", operation_id="get_item", responses=answers(404))
def item(item: ItemId, by: Reader, here: Here) -> ItemAnswer:
    """Its verdict, and how moderators decided."""
    with here.sessions.begin() as session:
        item_for(session, by, item)
        return ItemAnswer.of(item_answers.state_of(session, item))


def _require_reportable(
    here: Service, by: Caller, order: Order, policy: Policy, once: Once | None
) -> None:
    """Raises InvalidRequest for classes that nobody reviews, TooManyTries beyond an hour's reports.

    In a request that is sent again, none is new.
    """
    if not (count := order.reports):
        return
    for said in order.terms.reports.values():
        require_class(policy, said)
    with here.sessions.begin() as session:
        if not is_known(session, once):
            require_room(session, by.actor, count, here.settings.reports_per_hour)


def _policy_of(here: Service, batch: uuid.UUID) -> PolicyReference:
    """The version that a batch is judged under: the first try's, where this one is not the first.

    What was meant by its name may have changed since.
    """
    with here.sessions.begin() as session:
        return PolicyReference.of(batch_row(session, batch))
