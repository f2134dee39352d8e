"""Search: stored images like some words, like a file, or like an item, all of them blurred."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from sqlalchemy import exists, select, true
from sqlalchemy.orm import Session
from starlette.datastructures import UploadFile

from filter_service import ledger, retention
from filter_service.db.embeddings import unit
from filter_service.db.tables import Embedding, Image, Item, PolicyClass, ReviewOutcome, StoredScore
from filter_service.db.vectors import StoredMemory
from filter_service.errors import (
    FilterServiceError,
    ImageTooLarge,
    InvalidRequest,
    ModelUnavailable,
    UnknownItem,
    for_clients,
)
from filter_service.images import digest
from filter_service.ledger import Entry, Event
from filter_service.people import Ability
from filter_service.verdicts import Verdict
from filter_service.web.access import Caller, able
from filter_service.web.console.queue import somebody
from filter_service.web.pages import render
from filter_service.web.paging import LARGEST_ID
from filter_service.web.problems import status_of
from filter_service.web.service import Seeker, Service, Sought, service
from filter_service.web.sight import item_for, visible

router = APIRouter(prefix="/search")

FIRST, STEP, MOST = 24, 24, 240  # images shown at first, with each "more", and at most
LIKE_A_FILE = 60  # likewise for a file, which would have to be sent again for more
ITEMS = 3  # shown of one image
AT_ONCE = 0.5  # seconds that a search for words waits for the model before it says so
PATIENCE = 20.0  # seconds that a search for a file does, since the file would be sent again
AGAIN = 2  # seconds after which a page that waits for the model is asked for again
LONGEST = 300  # letters, as a prompt
FORM = 2**16  # bytes of a form besides its file

Here = Annotated[Service, Depends(service)]
Searcher = Annotated[Caller, Depends(able(Ability.SEARCH))]
Limit = Annotated[int, Query(alias="limit", ge=1, le=MOST)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody looks for."""

    words: str = ""
    like: int | None = None  # an item
    image: str | None = None  # digest of an uploaded file
    limit: int = FIRST

    @property
    def told(self) -> dict[str, object]:
        """For the ledger."""
        what = {
            "words": self.words or None,
            "like": self.like,
            "image": self.image,
            "limit": self.limit,
        }
        return {name: value for name, value in what.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SeenItem:
    """An item of an image that was found, and what became of it."""

    id: int
    source: str
    verdict: Verdict | None
    class_name: str | None
    probability: float | None
    decision: str | None
    sampled: bool | None  # it was clear when it was reviewed


@dataclass(frozen=True, slots=True)
class Sighting:
    """A stored image near to what was looked for."""

    digest: str
    similarity: float
    items: tuple[SeenItem, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest images that somebody may see."""

    sightings: tuple[Sighting, ...] = ()
    more: int | None = None  # the limit that shows more; None: there are no more
    hidden: int = 0  # images near by that this person may not see


@dataclass
class Warm:
    """The model behind the search: loaded behind somebody's back, so that nobody waits blindly."""

    seeker: Seeker
    _done: threading.Event = field(default_factory=threading.Event)
    _problem: FilterServiceError | None = None

    def __post_init__(self) -> None:
        threading.Thread(target=self._load, daemon=True).start()

    def ready(self, seconds: float) -> bool:
        """Whether it is there within this time; raises what made it fail."""
        if self._done.wait(seconds) and self._problem is not None:
            raise self._problem
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        return self._problem is not None

    def _load(self) -> None:
        try:
            self.seeker.text("a picture")
        except FilterServiceError as error:
            self._problem = error
        except Exception as error:  # it would be lost in this thread
            self._problem = ModelUnavailable(
                f"The model for the search cannot be loaded ({type(error).__name__}: {error}): "
                "try again, or tell who runs this service."
            )
        self._done.set()


async def uploaded(request: Request, here: Here) -> bytes:
    """The file of the form, refused before it is read if it is too large."""
    most = here.settings.max_bytes
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > most + FORM:
        raise ImageTooLarge(
            f"The request has {length or 'an unknown number of'} bytes, the limit is {most:,}: "
            "search with a smaller image."
        )
    async with request.form() as form:
        file = form.get("image")
        data = await file.read() if isinstance(file, UploadFile) else b""
    if not data:
        raise InvalidRequest("No image was chosen: choose a file and search again.")
    return data


@router.get("")
def search(
    request: Request,
    here: Here,
    caller: Searcher,
    q: Annotated[str, Query(max_length=LONGEST)] = "",
    like: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
    limit: Limit = FIRST,
) -> Response:
    """The form; with words or an item, what is like them."""
    asked = Asked(words=q.strip(), like=like, limit=limit)
    somebody(caller)
    if like is not None:
        with here.sessions.begin() as session:
            sought, own = _vector_of(session, caller, like)
        return _page(request, asked, _found(here, caller, sought, asked, own))
    warm = _warm(request, here)  # opening the page is enough to begin with it
    if not asked.words:
        return _page(request, asked, None)
    return _answered(request, asked, warm, AT_ONCE, lambda: here.seeker.text(asked.words))


@router.post("")
def search_by_image(
    request: Request,
    here: Here,
    data: Annotated[bytes, Depends(uploaded)],
    caller: Searcher,
) -> Response:
    """What is like an uploaded file, which is not kept."""
    somebody(caller)
    asked = Asked(image=digest(data), limit=LIKE_A_FILE)
    warm = _warm(request, here)
    return _answered(request, asked, warm, PATIENCE, lambda: here.seeker.image(data))


def _answered(
    request: Request, asked: Asked, warm: Warm, seconds: float, seek: Callable[[], Sought]
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


def _warm(request: Request, here: Service) -> Warm:
    """One for each web process; one that failed is tried again."""
    state = request.app.state
    warm: Warm | None = getattr(state, "warm", None)
    if warm is None or warm.failed or warm.seeker is not here.seeker:
        warm = state.warm = Warm(here.seeker)
    return warm


def _loading(request: Request, asked: Asked) -> Response:
    """Says that the model is being loaded; the browser asks again by itself where it can."""
    page = _page(request, asked, None, loading=True)
    if asked.image is None:
        page.headers["Refresh"] = str(AGAIN)
    return page


def _page(
    request: Request,
    asked: Asked,
    found: Found | None,
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
        loading=loading,
        longest=LONGEST,
    )


def _found(
    here: Service, caller: Caller, sought: Sought, asked: Asked, own: str | None = None
) -> Found:
    """Search, say so in the ledger, and leave out what this person may not see."""
    memory = StoredMemory(here.sessions, sought.encoder_id, len(sought.vector), sought.scale)
    # One may be its own, and one shows that there is more.
    near = [h for h in memory.search(sought.vector, asked.limit + 2) if h.digest != own]
    shown = near[: asked.limit]
    with here.sessions.begin() as session:
        ledger.append(session, [Entry(Event.SEARCHED, caller.actor, details=asked.told)])
        items = _items(session, caller, [h.digest for h in shown])
    sightings = tuple(
        Sighting(h.digest, h.similarity, tuple(items[h.digest])) for h in shown if h.digest in items
    )
    more = len(near) > asked.limit and asked.limit < MOST
    return Found(
        sightings,
        min(asked.limit + STEP, MOST) if more else None,
        len(shown) - len(sightings),
    )


def _items(session: Session, caller: Caller, digests: Sequence[str]) -> dict[str, list[SeenItem]]:
    """The newest items of each image, as far as this person may see them."""
    newest = (
        select(Item)
        .where(Item.image_id == Image.id, visible(caller))
        .order_by((Item.id + 0).desc())  # or the planner walks all items from the newest
        .limit(ITEMS)
        .lateral("newest")
    )
    query = (
        select(
            Image.digest,
            newest.c.id,
            newest.c.source,
            newest.c.verdict,
            PolicyClass.name,
            newest.c.probability,
            ReviewOutcome.decision,
            ReviewOutcome.sampled,
        )
        .select_from(Image)
        .join(newest, true())
        .outerjoin(PolicyClass, PolicyClass.id == newest.c.class_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == newest.c.id)
        .where(Image.digest.in_(digests))
        .order_by(newest.c.id.desc())
    )
    found: defaultdict[str, list[SeenItem]] = defaultdict(list)
    for name, *row in session.execute(query):
        found[name].append(SeenItem(*row))
    return dict(found)


def _vector_of(session: Session, caller: Caller, item_id: int) -> tuple[Sought, str]:
    """What is stored of the view that was judged: no model is asked. -> it, and its digest."""
    item = item_for(session, caller, item_id)
    judged = exists().where(
        StoredScore.encoder_id == item.encoder_id,
        StoredScore.class_id == item.class_id,
        StoredScore.image_id == item.image_id,
        StoredScore.frame == Embedding.frame,
        StoredScore.view == Embedding.view,
    )
    query = (
        select(Embedding, Image.digest)
        .join(Image, Image.id == Embedding.image_id)
        .where(Embedding.encoder_id == item.encoder_id, Embedding.image_id == item.image_id)
        .order_by(judged.desc(), Embedding.frame, Embedding.view)
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    if row is None or row[1] is None or item.encoder_id is None:
        retention.require_here(session, item_id, retention.Part.EMBEDDINGS)
        raise UnknownItem(
            f"Item {item_id} has no stored vector, since it was not judged or was deleted since: "
            "search by its file."
        )
    stored, name = row[0], row[1]
    exact = stored.exact_vector
    vector = unit(stored.vector) if exact is None else exact
    return Sought(item.encoder_id, vector, 1.0), name
