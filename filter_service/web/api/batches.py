"""Batches and items over HTTP: `/v1/batches`, `/v1/items`."""

import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from filter_service.accounts import ABILITIES, Ability
from filter_service.db.scope import OPERATOR
from filter_service.db.tables import (
    Batch,
    Item,
    PolicyClass,
    ReviewOutcome,
    StoredEncoder,
    StoredExplanation,
    StoredImage,
)
from filter_service.db.unjudged import UnjudgedReason, unjudged
from filter_service.errors import InvalidRequest, NotAllowed, NotSignedIn, UnknownBatch
from filter_service.intake import manifests, submissions
from filter_service.intake.manifests import Label, ManifestResult
from filter_service.intake.submissions import CHUNK, Once
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
    batch_rows,
    item_answers,
    item_rows,
)
from filter_service.web.api.submission_requests import Order
from filter_service.web.http.access import SAFE, Caller, able, caller
from filter_service.web.http.described_requests import only_described
from filter_service.web.http.paging import LARGEST_ID, After, Limit, cursor, key_of
from filter_service.web.http.problems import answers
from filter_service.web.http.row_access import answered, item_for
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
    dependencies=[Depends(no_forms_of_strangers), Depends(only_described)],
    responses=answers(401, 403, 422, 503),
)
Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
Submitter = Annotated[Caller, Depends(able(Ability.SUBMIT))]
ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID)]

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
                    "priority": {
                        "type": "integer",
                        "minimum": -submission_requests.URGENT,
                        "maximum": submission_requests.URGENT,
                    },
                },
            }
        },
        submission_requests.JSON: {
            "schema": submission_requests.AddressBatch.model_json_schema(),
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
    responses=answers(400, 404, 409, 413, 415)
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
    policy = submission_requests.policy_for(here.sessions, order.terms.policy, by.scope)
    once = idempotency_key and Once(by.owner, idempotency_key, order.request())
    batch = submissions.accept(
        here.sessions,
        here.storage,
        here.notify_workers,
        order.submissions(here.settings),
        policy,
        label=order.terms.label,
        priority=order.terms.priority,
        actor=by.actor,
        once=once or None,
        scope=by.scope,
    )
    response.headers["Location"] = f"/v1/batches/{batch}"
    return AcceptedBatch(batch=batch, policy=_policy_of(here, batch))


@router.get("/batches", summary="List batches")
def batches(by: Reader, here: Here, after: After = None, limit: Limit = 100) -> BatchPage:
    """The newest first."""
    query = batch_rows(by.scope).order_by(Batch.submitted_at.desc(), Batch.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(Batch.submitted_at, Batch.id) < _place(after))
    with here.sessions.begin() as session:
        rows = session.execute(query).all()
    last = rows[-1][0] if len(rows) == limit else None
    return BatchPage(
        batches=[BatchAnswer.of(b, PolicyReference(name=n, digest=d)) for b, n, d in rows],
        next=last and cursor(last.submitted_at.isoformat(), last.id),
    )


@router.get("/batches/{batch}", summary="How far a batch has come", responses=answers(404))
def batch(batch: uuid.UUID, by: Reader, here: Here) -> BatchWithProgress:
    """Its items are counted by verdict."""
    status = submissions.status(here.sessions, batch, by.scope)
    with here.sessions.begin() as session:
        found, name, digest = session.execute(batch_rows(by.scope).where(Batch.id == batch)).one()
    told = BatchAnswer.of(found, PolicyReference(name=name, digest=digest))
    return BatchWithProgress(**dict(told), progress=Progress.of(status), finished=status.finished)


@router.post("/batches/{batch}/cancel", summary="Cancel a batch", responses=answers(404))
def cancel(batch: uuid.UUID, by: Submitter, here: Here) -> CancellationResult:
    """Take back its items that have no verdict yet; again changes nothing."""
    return CancellationResult(
        cancelled=submissions.cancel(here.sessions, batch, by.actor, by.scope)
    )


def retrier(by: Annotated[Caller, Depends(caller)]) -> Caller:
    """Who submits may try again, and so may those who look after undetermined items."""
    if not ABILITIES[by.role] & {Ability.SUBMIT, Ability.RETRY}:
        raise NotAllowed(f"{by.actor} may not retry items: an admin can give another role.")
    return by


@router.post("/batches/{batch}/retry", summary="Retry a batch", responses=answers(404))
def retry(batch: uuid.UUID, by: Annotated[Caller, Depends(retrier)], here: Here) -> RetryResult:
    """Queue its undetermined items again; those whose bytes never came stay as they are."""
    again = submissions.retry(here.sessions, here.notify_workers, batch, by.actor, by.scope)
    return RetryResult(retried=again)


@router.get("/batches/{batch}/items", summary="List items", responses=answers(404))
def items(
    batch: uuid.UUID,
    by: Reader,
    here: Here,
    verdict: Annotated[Verdict | None, Query(description="Only these.")] = None,
    after: After = None,
    limit: Limit = 100,
) -> ItemPage:
    """In the order in which they came."""
    query = item_rows().where(Item.batch_id == batch, answered(by)).order_by(Item.id).limit(limit)
    if verdict is not None:
        query = query.where(Item.verdict == verdict)
    if after is not None:
        query = query.where(Item.id > key_of(after, int)[0])
    with here.sessions.begin() as session:
        _require(session.execute(batch_rows(by.scope).where(Batch.id == batch)).first(), batch)
        found = item_answers(session.execute(query))
    return ItemPage(items=found, next=cursor(found[-1].id) if len(found) == limit else None)


@router.get(
    "/batches/{batch}/manifest",
    summary="The result manifest",
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
        found = session.execute(batch_rows(by.scope).where(Batch.id == batch)).one_or_none()
    _require(found, batch)
    assert found is not None
    policy = PolicyReference(name=found[1], digest=found[2])
    lines = manifests.write(_results(here, by, batch, policy))
    return StreamingResponse(
        lines,
        media_type=manifests.MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{batch}.jsonl"'},
    )


@router.get("/items/{item}", summary="One item", responses=answers(404))
def item(item: ItemId, by: Reader, here: Here) -> ItemAnswer:
    """Its verdict, and how moderators decided."""
    with here.sessions.begin() as session:
        item_for(session, by, item)
        return item_answers(session.execute(item_rows().where(Item.id == item)))[0]


def _policy_of(here: Service, batch: uuid.UUID) -> PolicyReference:
    """The version that a batch is judged under: the first try's, where this one is not the first.

    What was meant by its name may have changed since.
    """
    with here.sessions.begin() as session:
        _, name, digest = session.execute(batch_rows(OPERATOR).where(Batch.id == batch)).one()
    return PolicyReference(name=name, digest=digest)


def _place(after: str) -> Any:  # noqa: ANN401  (a row value of SQL)
    at, name = key_of(after, str, str)
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError
        return tuple_(moment, uuid.UUID(name))
    except ValueError as error:
        raise InvalidRequest(f"after={after[:80]!r} is no cursor of a list of batches.") from error


def _require(found: object, batch: uuid.UUID) -> None:
    if found is None:
        raise UnknownBatch(f"There is no batch {batch}: check the id that submitting it gave.")


def _results(
    here: Service, by: Caller, batch: uuid.UUID, policy: PolicyReference
) -> Iterator[ManifestResult]:
    """Some hundred items at a time, each time in a transaction of its own."""
    after, columns = 0, (Item, StoredImage.digest, PolicyClass.name, StoredEncoder.name)
    query = (
        select(*columns, ReviewOutcome.decision, unjudged())
        .outerjoin(StoredImage, StoredImage.id == Item.image_id)
        .outerjoin(PolicyClass, PolicyClass.id == Item.class_id)
        .outerjoin(StoredEncoder, StoredEncoder.id == Item.encoder_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == Item.id)
        .where(Item.batch_id == batch, answered(by))
        .order_by(Item.id)
        .limit(CHUNK)
    )
    while True:
        with here.sessions.begin() as session:
            rows = session.execute(query.where(Item.id > after)).all()
            flagged = [i.id for i, *_ in rows if i.verdict is Verdict.FLAGGED]
            labels = _labels(session, flagged)
        for found, digest, worst, encoder, decision, why in rows:
            own = labels.get(found.id) or _worst(found, worst)
            yield ManifestResult(
                item=found.id,
                source=found.source,
                digest=digest,
                verdict=found.verdict,
                unjudged=UnjudgedReason(why) if why else None,
                reason=found.reason,
                labels=own,
                encoder=encoder,
                policy=policy.name,
                policy_digest=policy.digest,
                judged_at=found.judged_at,
                review=decision,
            )
        if len(rows) < CHUNK:
            return
        after = rows[-1][0].id


def _labels(session: Session, items: list[int]) -> dict[int, list[Label]]:
    """Every class that each item was flagged for."""
    probability = StoredExplanation.record["probability"].as_float()
    rows = session.execute(
        select(StoredExplanation.item_id, PolicyClass.name, probability)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(StoredExplanation.item_id.in_(items))
        .order_by(StoredExplanation.item_id, probability.desc())
    )
    found: dict[int, list[Label]] = defaultdict(list)
    for item_id, name, share in rows:
        found[item_id].append(Label(name, share or 0.0))
    return found


def _worst(item: Item, class_name: str | None) -> list[Label]:
    """What a list flagged has no explanation."""
    if item.verdict is not Verdict.FLAGGED or class_name is None:
        return []
    return [Label(class_name, 1.0 if item.probability is None else item.probability)]
