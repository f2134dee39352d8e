"""The search page: blurred stored images similar to words, to a file or to an item."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from filter_service import ledger, retention
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.accounts.clients import client_named, client_names
from filter_service.db.keyset import LARGEST_ID
from filter_service.db.query_encoder import QueryVector
from filter_service.db.scope import OPERATOR, Scope, only
from filter_service.db.session import Sessions
from filter_service.db.vectors import StoredMemory
from filter_service.errors import (
    FilterServiceError,
    ImageTooLarge,
    InvalidRequest,
    UnknownItem,
    for_clients,
)
from filter_service.images import digest
from filter_service.ledger import Entry, Event
from filter_service.reviews.row_access import item_for
from filter_service.reviews.sightings import Sighting, items_of, stored_vector
from filter_service.web.console.model_warmup import Warm, warming
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.problems import status_of
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/search")

FIRST, STEP, MOST = 24, 24, 240  # images shown at first, with each "more", and at most
LIKE_A_FILE = 60  # likewise for a file, which would have to be sent again for more
AT_ONCE = 0.5  # seconds that a search for words waits for the model before it says so
PATIENCE = 20.0  # seconds that a search for a file does, since the file would be sent again
AGAIN = 2  # seconds after which a page that waits for the model is asked for again
LONGEST = 300  # letters, as a prompt
FORM = 2**16  # bytes of a form besides its file

Here = Annotated[Service, Depends(service)]
Searcher = Annotated[Caller, Depends(able(Ability.SEARCH))]
Limit = Annotated[int, Query(alias="limit", ge=1, le=MOST)]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What somebody looks for."""

    words: str = ""
    like: int | None = None  # an item
    image: str | None = None  # digest of an uploaded file
    limit: int = FIRST
    client: str = ""  # only this one's images, by name

    @property
    def told(self) -> dict[str, object]:
        """For the ledger."""
        what = {
            "words": self.words or None,
            "like": self.like,
            "image": self.image,
            "limit": self.limit,
            "client": self.client or None,
        }
        return {name: value for name, value in what.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SearchResults:
    """The nearest images that somebody may see."""

    sightings: tuple[Sighting, ...] = ()
    more: int | None = None  # the limit that shows more; None: there are no more
    hidden: int = 0  # images near by that this person may not see


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """The uploaded file, and the client that the search is narrowed to."""

    data: bytes
    client: str


async def uploaded(request: Request, here: Here) -> UploadedFile:
    """The form, refused before it is read if it is too large."""
    most = here.settings.max_bytes
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > most + FORM:
        raise ImageTooLarge(
            f"The request has {length or 'an unknown number of'} bytes, the limit is {most:,}: "
            "search with a smaller image."
        )
    async with request.form() as form:
        file, client = form.get("image"), form.get("client")
        data = await file.read() if isinstance(file, UploadFile) else b""
    if not data:
        raise InvalidRequest("No image was chosen: choose a file and search again.")
    return UploadedFile(data, client.strip() if isinstance(client, str) else "")


@router.get("")
def search(
    request: Request,
    here: Here,
    caller: Searcher,
    q: Annotated[str, Query(max_length=LONGEST)] = "",
    like: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
    limit: Limit = FIRST,
    client: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """The form; with words or an item, what is like them, of one client or all."""
    asked = SearchQuery(words=q.strip(), like=like, limit=limit, client=client.strip())
    somebody(caller)
    if like is not None:
        sought, own = vector_of(here.sessions, caller, like)
        found = _found(here, caller, sought, asked, own)
        return _page(request, asked, found)
    warm = warming(request, here)  # opening the page is enough to begin with it
    if not asked.words:
        return _page(request, asked, None)
    return _answered(request, asked, warm, AT_ONCE, lambda: here.seeker.text(asked.words))


@router.post("")
def search_by_image(
    request: Request,
    here: Here,
    sent: Annotated[UploadedFile, Depends(uploaded)],
    caller: Searcher,
) -> Response:
    """What is like an uploaded file, which is not kept."""
    somebody(caller)
    asked = SearchQuery(image=digest(sent.data), limit=LIKE_A_FILE, client=sent.client)
    warm = warming(request, here)
    return _answered(request, asked, warm, PATIENCE, lambda: here.seeker.image(sent.data))


def _answered(
    request: Request,
    asked: SearchQuery,
    warm: Warm,
    seconds: float,
    seek: Callable[[], QueryVector],
) -> Response:
    """The page with what was found, with the sentence that says why not, or asking for patience."""
    here: Service = request.app.state.service
    caller: Caller = request.state.caller
    try:
        if not warm.ready(seconds):
            return _loading(request, asked)
        found = _found(here, caller, seek(), asked)
    except FilterServiceError as error:
        return _page(request, asked, None, status_of(error), problem=for_clients(error))
    return _page(request, asked, found)


def _loading(request: Request, asked: SearchQuery) -> Response:
    """Says that the model is being loaded; the browser asks again by itself where it can."""
    page = _page(request, asked, None, loading=True)
    if asked.image is None:
        page.headers["Refresh"] = str(AGAIN)
    return page


def _page(
    request: Request,
    asked: SearchQuery,
    found: SearchResults | None,
    status: int = 200,
    *,
    problem: str = "",
    loading: bool = False,
) -> Response:
    return render(
        request,
        "search.html",
        status,
        asked=asked,
        found=found,
        problem=problem,
        clients=client_names(request.app.state.service.sessions, asked.client),
        loading=loading,
        longest=LONGEST,
    )


def _found(
    here: Service, caller: Caller, sought: QueryVector, asked: SearchQuery, own: str | None = None
) -> SearchResults:
    """Search, say so in the ledger, and leave out what this person may not see."""
    memory = StoredMemory(here.sessions, sought.encoder_id, len(sought.vector), sought.scale)
    # One may be its own, and one shows that there is more.
    scope = _scope(here, asked)
    near = [h for h in memory.search(sought.vector, asked.limit + 2, scope) if h.digest != own]
    shown = near[: asked.limit]
    with here.sessions.begin() as session:
        ledger.append(session, [Entry(Event.SEARCHED, caller.actor, details=asked.told)])
        items = items_of(session, caller, [h.digest for h in shown], scope)
    sightings = tuple(
        Sighting(h.digest, h.similarity, tuple(items[h.digest])) for h in shown if h.digest in items
    )
    more = len(near) > asked.limit and asked.limit < MOST
    return SearchResults(
        sightings,
        min(asked.limit + STEP, MOST) if more else None,
        len(shown) - len(sightings),
    )


def vector_of(sessions: Sessions, caller: Caller, item_id: int) -> tuple[QueryVector, str]:
    """What an item's image looks like to the model, and its digest; raises UnknownItem."""
    with sessions.begin() as session:
        found = stored_vector(session, item_for(session, caller, item_id))
        if found is None:
            retention.require_here(session, item_id, retention.RetainedPart.EMBEDDINGS)
            raise UnknownItem(
                f"Item {item_id} has no stored vector, since it was not judged or was deleted "
                "since: search by its file."
            )
    return found


def _scope(here: Service, asked: SearchQuery) -> Scope:
    """Whose images are looked through; raises UnknownEntry."""
    return only(client_named(here.sessions, asked.client).id) if asked.client else OPERATOR
