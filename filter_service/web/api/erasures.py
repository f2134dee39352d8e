"""Erasure over HTTP: a platform has its item's image erased, and gets a receipt."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, Field

from filter_service import retention
from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.errors import NotAllowed
from filter_service.policy.strict import WORDS
from filter_service.retention import Receipt
from filter_service.web.http.access import caller
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["erasures"],
    dependencies=[Depends(only_described)],
    responses=answers(401, 403, 404, 422, 503),
)
Here = Annotated[Service, Depends(service)]


def eraser(found: Annotated[Caller, Depends(caller)]) -> Caller:
    """Who retains erases; a platform does what it submitted."""
    mine = Ability.RETAIN if found.person else Ability.SUBMIT
    if mine not in ABILITIES[found.role]:
        raise NotAllowed(f"{found.actor} may not erase as {found.role.value}: ask an admin.")
    return found


By = Annotated[Caller, Depends(eraser)]


class ErasureAccepted(BaseModel):
    """Nothing leads to the image any more; `Location` leads to the receipt."""

    erasure: uuid.UUID


class MentionAnswer(BaseModel):
    """Where the ledger says that an item was erased."""

    entry: int
    item: int
    checkpoint: int | None = Field(description="Size of the first one that covers it; null: none.")
    root: str | None


class ReceiptAnswer(BaseModel):
    """What was erased, what stays and why, and where the ledger says so.

    A client reads of its own items only, and never whether others had the same image.
    """

    id: uuid.UUID
    item: int
    image: int | None = Field(description="The operator's number for it; null for clients.")
    items: list[int] = Field(description="All of the reader's that the image came with.")
    reason: str
    requested_by: str
    requested_at: datetime
    done_at: datetime | None = Field(description="Null: the bytes are being deleted.")
    bytes: str = Field(description="What became of the image's file.")
    size: int = Field(description="Of that file, in bytes.")
    removed: dict[str, int] = Field(description="Rows of each kind.")
    stays: list[str]
    mentions: list[MentionAnswer]
    blanked: list[int] = Field(description="Entries of the ledger whose payloads are gone.")


@router.delete(
    "/items/{item}",
    status_code=202,
    summary="Erase an image",
    operation_id="erase_item",
    responses=answers(409) | {202: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
def erase(
    item: Annotated[int, Path(ge=1, le=LARGEST_ID)],
    by: By,
    here: Here,
    response: Response,
    reason: Annotated[
        str,
        Query(max_length=500, pattern=WORDS, description="Kept for good: name nobody in it."),
    ] = "requested by the platform",
) -> ErasureAccepted:
    """In all items of the client (of all clients for the operator), with all that was computed.

    A legal hold or an appeal forbids it.
    """
    erasure = retention.request(here.sessions, item, reason, by.actor, by.scope)
    response.headers["Location"] = f"/v1/erasures/{erasure}"
    return ErasureAccepted(erasure=erasure)


@router.get("/erasures/{erasure}", summary="The receipt of an erasure", operation_id="get_erasure")
def receipt(erasure: uuid.UUID, by: By, here: Here) -> ReceiptAnswer:
    """Platforms read those of their own items."""
    return _answer(retention.receipt(here.sessions, erasure, by.scope))


def _answer(found: Receipt) -> ReceiptAnswer:
    told: dict[str, Any] = found.json
    return ReceiptAnswer.model_validate(told)
