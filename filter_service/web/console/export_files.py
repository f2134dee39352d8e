"""Exports over HTTP, streamed to the browser while they are being written."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.audit import exports
from filter_service.audit.exports import MEDIA, Export, ExportFilter, Format
from filter_service.reviews.row_access import visible
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.described_requests import only
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/exports")

Here = Annotated[Service, Depends(service)]
Exporter = Annotated[Caller, Depends(able(Ability.EXPORT))]
Narrowed = Annotated[str, Query(max_length=200)]


def wanted(
    *,
    since: Annotated[str, Query(max_length=200, alias="from")] = "",
    until: Annotated[str, Query(max_length=200, alias="to")] = "",
    by: Narrowed = "",
    class_name: Annotated[str, Query(max_length=200, alias="class")] = "",
    policy: Narrowed = "",
    decision: Narrowed = "",
    verdict: Narrowed = "",
    batch: Narrowed = "",
) -> ExportFilter:
    """What the form narrows; raises InvalidRequest."""
    return ExportFilter.parse(
        since=since,
        until=until,
        by=by,
        class_name=class_name,
        policy=policy,
        decision=decision,
        verdict=verdict,
        batch=batch,
    )


class ExportStream(StreamingResponse):
    """An export on its way to somebody, whose end is written down however it comes."""

    def __init__(self, export: Export, form: Format) -> None:
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        name = f'attachment; filename="items-{day}.{form}"'
        super().__init__(
            iter(export), media_type=MEDIA[form], headers={"Content-Disposition": name}
        )
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await run_in_threadpool(self._export.close)


NARROWS = ("from", "to", "by", "class", "policy", "decision", "verdict", "batch")


@router.get("/items.{form}", dependencies=[Depends(only(*NARROWS))])
def items(
    form: Format, here: Here, caller: Exporter, narrowed: Annotated[ExportFilter, Depends(wanted)]
) -> ExportStream:
    """A row for every item that this person may see and that the form does not leave out."""
    somebody(caller)
    export = exports.begin(here.sessions, narrowed, form, caller.actor, visible(caller))
    return ExportStream(export, form)
