"""Search over HTTP: `/v1/search`."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from filter_service import images, ledger
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.query_encoder import QueryVector
from filter_service.db.vectors import StoredMemory
from filter_service.ledger import Entry, Event
from filter_service.policy.spelling import unknown
from filter_service.policy.strict import WORDS
from filter_service.reviews import sightings
from filter_service.web.api.batches import no_forms_of_strangers
from filter_service.web.api.responses import FoundItem, SearchHit, Sightings
from filter_service.web.http.access import able
from filter_service.web.http.described_requests import StrictRoute, fault, only_described
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service
from filter_service.web.http.uploads import FormPart, RequestLimits, spooled

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["search"],
    dependencies=[Depends(no_forms_of_strangers), Depends(only_described)],
    responses=answers(401, 403, 422, 503),
)
Here = Annotated[Service, Depends(service)]
Searcher = Annotated[Caller, Depends(able(Ability.SEARCH))]
Count = Annotated[int, Query(ge=1, le=100, description="At most so many.")]

FORM = "multipart/form-data"
OVERHEAD = 64 * 1024  # bytes of a form around its image
IMAGES = tuple(f"image/{form.lower()}" for form in images.FORMATS)
BINARY = {"type": "string", "format": "binary"}
BODY = {
    "required": True,
    "content": {
        FORM: {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": BINARY},
            },
            "example": {"image": "the bytes of photo.jpg"},
        },
        **{kind: {"schema": BINARY, "example": "the bytes of the file"} for kind in IMAGES},
    },
}


@router.get("/search", summary="Search by words", operation_id="search_by_text")
def by_text(
    by: Searcher,
    here: Here,
    text: Annotated[
        str,
        Query(min_length=1, max_length=500, pattern=WORDS, examples=["a red car"]),
    ],
    limit: Count = 20,
) -> Sightings:
    """The stored images nearest to a text, in the served model's own space."""
    return _found(here, by, here.seeker.text(text), limit, {"text": text})


async def sent_image(request: Request, here: Here) -> AsyncIterator[bytes]:
    """The bytes of an image, as the body or as the file of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FORM, *IMAGES):
        raise HTTPException(415, f"{kind or 'no type'!r} is not taken: send an image, or a form.")
    most = here.settings.max_bytes
    async for parts in spooled(request, RequestLimits(files=1, bytes=most + OVERHEAD)):
        sent = _image_of(parts) if kind == FORM else parts[0]
        images.check_bytes(sent.size, images.Limits.of(here.settings))
        yield sent.read()


def _image_of(parts: Iterable[FormPart]) -> FormPart:
    """The one file of a form; raises RequestValidationError for whatever else there is."""
    fields = [part for part in parts if part.name != "csrf_token"]
    if others := {part.name for part in fields} - {"image"}:
        raise RequestValidationError([fault("body", n, unknown(n, ["image"])) for n in others])
    if [part.filename is None for part in fields] != [False]:
        raise RequestValidationError([fault("body", "image", "is not there as one file; send it")])
    return fields[0]


@router.post(
    "/search",
    summary="Search by an image",
    operation_id="search_by_image",
    responses=answers(400, 413, 415),
    openapi_extra={"requestBody": BODY},
)
def by_image(
    by: Searcher, data: Annotated[bytes, Depends(sent_image)], here: Here, limit: Count = 20
) -> Sightings:
    """The stored images nearest to one that is sent and not kept."""
    told = {"image": images.digest(data)}
    return _found(here, by, here.seeker.image(data), limit, told)


def _found(
    here: Service, by: Caller, sought: QueryVector, limit: int, told: dict[str, str]
) -> Sightings:
    memory = StoredMemory(here.sessions, sought.encoder_id, len(sought.vector), sought.scale)
    hits = memory.search(sought.vector, limit, by.scope)
    digests = [hit.digest for hit in hits]
    with here.sessions.begin() as session:
        ledger.append(session, [Entry(Event.SEARCHED, by.actor, details=told)])
        hidden = sightings.closed_images(session, by, digests)
        items = sightings.newest_items_of(session, by.scope, digests)
    return Sightings(
        images=[
            SearchHit(
                digest=hit.digest,
                frame=hit.view.frame,
                view=hit.view.name,
                similarity=hit.similarity,
                items=[FoundItem(**asdict(item)) for item in items[hit.digest]],
            )
            for hit in hits
            if hit.digest not in hidden
        ]
    )
