"""Appeals over HTTP: `/v1/items/{id}/appeals`."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import ConfigDict, Field

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.db.tables import Appeal
from filter_service.policy.strict import WORDS, StrictModel
from filter_service.reviews import appeals
from filter_service.reviews.row_access import item_for
from filter_service.web.api.responses import AppealAnswer, AppealList
from filter_service.web.http.access import able
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["appeals"],
    dependencies=[Depends(only_described)],
    responses=answers(401, 403, 404, 422, 503),
)
Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


class AppealStatement(StrictModel):
    """Why somebody disagrees."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"statement": "This is a kitchen knife in a shop."}},
    )

    statement: str = Field(
        min_length=1,
        max_length=appeals.LONGEST_STATEMENT,
        pattern=WORDS,
        description="In the words of whoever submitted the image; moderators read it.",
        examples=["This is a kitchen knife in an advertisement for cookware."],
    )


@router.post(
    "/items/{item}/appeals",
    status_code=201,
    summary="Open an appeal",
    operation_id="open_appeal",
    responses=answers(400, 409) | {201: {"headers": {"Location": {"schema": {"type": "string"}}}}},
)
def open_appeal(
    item: ItemId,
    said: AppealStatement,
    by: Annotated[Caller, Depends(able(Ability.APPEAL))],
    here: Here,
    response: Response,
) -> AppealAnswer:
    """Somebody who has not decided about the item yet decides again; one appeal at a time."""
    with here.sessions.begin() as session:
        item_for(session, by, item)
    opened = appeals.open_appeal(here.sessions, item, said.statement, by.actor)
    response.headers["Location"] = f"/v1/appeals/{opened}"
    return _answer(appeals.appeal(here.sessions, opened, by.scope))


@router.get("/items/{item}/appeals", summary="Appeals about an item", operation_id="list_appeals")
def appeals_of(item: ItemId, by: Reader, here: Here) -> AppealList:
    """Open and closed ones, oldest first."""
    with here.sessions.begin() as session:
        item_for(session, by, item)
    return AppealList(appeals=[_answer(a) for a in appeals.appeals_of(here.sessions, item)])


@router.get("/appeals/{appeal}", summary="One appeal", operation_id="get_appeal")
def appeal(appeal: uuid.UUID, by: Reader, here: Here) -> AppealAnswer:
    """Whether it is closed, and how it was decided."""
    found = appeals.appeal(here.sessions, appeal, by.scope)
    with here.sessions.begin() as session:
        item_for(session, by, found.item_id)
    return _answer(found)


def _answer(found: Appeal) -> AppealAnswer:
    return AppealAnswer(
        id=found.id,
        item=found.item_id,
        statement=found.statement,
        opened_by=found.opened_by,
        opened_at=found.opened_at,
        closed_at=found.closed_at,
        upheld=found.upheld,
    )
