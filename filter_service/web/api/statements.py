"""Statements of reasons over HTTP: what the platform sends to its user and to the database."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.db.tables import StoredStatement
from filter_service.errors import NotAllowed, UnknownEntry
from filter_service.reviews.row_access import item_for
from filter_service.statements import issuance, wording
from filter_service.web.http.access import caller
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["statements"],
    dependencies=[Depends(only_described)],
    responses=answers(401, 403, 404, 422, 503),
)
Here = Annotated[Service, Depends(service)]


def recipient(found: Annotated[Caller, Depends(caller)]) -> Caller:
    """Who exports reads statements; a platform those of what it submitted."""
    mine = Ability.EXPORT if found.person else Ability.READ
    if mine not in ABILITIES[found.role]:
        raise NotAllowed(f"{found.actor} may not read statements as {found.role.value}.")
    return found


class StatementAnswer(BaseModel):
    """Why a picture is restricted, as it was issued."""

    puid: uuid.UUID = Field(description="Of the decision, in the Transparency Database, too.")
    item: int
    language: str = Field(description="Of the notice; of several, one after another: en,de.")
    issued_at: datetime
    withdrawn_at: datetime | None = Field(description="The restriction was lifted; null: it holds.")
    document: dict[str, Any] = Field(
        description="For the Union's Transparency Database (version 2), without personal data."
    )
    notice: str = Field(description="For the user who is affected, with redress, as plain text.")
    page: str = Field(description="The notice as an HTML page of its own.")

    @classmethod
    def of(cls, found: StoredStatement) -> "StatementAnswer":
        return cls(
            puid=found.puid,
            item=found.item_id,
            language=found.language,
            issued_at=found.issued_at,
            withdrawn_at=found.withdrawn_at,
            document=found.document,
            notice=found.notice,
            page=wording.page(found.notice, found.language.split(",")),
        )


@router.get(
    "/items/{item}/statement", summary="The statement of reasons", operation_id="get_statement"
)
def statement(
    item: Annotated[int, Path(ge=1, le=LARGEST_ID)],
    by: Annotated[Caller, Depends(recipient)],
    here: Here,
) -> StatementAnswer:
    """The one that stands, or the last that was withdrawn; 404 says why there is none.

    It is issued some seconds after the decision; `review.decided` has it at once.
    """
    with here.sessions.begin() as session:
        item_for(session, by, item)
    found = issuance.statements_of(here.sessions, item)
    if not found:
        why = issuance.problem_of(here.sessions, item)
        raise UnknownEntry(
            f"No statement was issued for item {item}"
            + (f", since something is wrong with it: {why}" if why else ".")
            + ("" if why else " One is when it is restricted, if its policy has notices.")
        )
    return StatementAnswer.of(found[0])
