"""Serves pictures: blurred ones, revealed originals, and layers with explanations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from PIL.Image import Image as Picture
from sqlalchemy.orm import Session

from filter_service import accounts, retention
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.errors import ImageError, NotAllowed, UnknownEntry
from filter_service.images.views import View
from filter_service.rendering import overlay, renditions
from filter_service.reviews.row_access import item_for, may_see
from filter_service.reviews.sightings import some_item_of
from filter_service.reviews.stored_explanations import (
    class_of,
    digest_of,
    scored_view,
    standing_explanation,
    views_of,
)
from filter_service.verdicts.explanation import Explanation
from filter_service.web.console.picture_answers import (
    kept,
    original_of,
    points_of,
    sentence,
    unchanged,
)
from filter_service.web.http.access import able
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/pictures")

UNKNOWN = "There is no such picture here: it was erased, or you may not see it."
NONE_KEPT = "The bytes of this file are not here: it could not be read, or they were deleted."
BROKEN = "This image cannot be decoded, or its bytes are missing."

Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
ClassName = Annotated[str | None, Query(alias="class", max_length=64)]


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """Which frame of which image stands for an item, and in which reading."""

    digest: str | None  # None: nothing is kept
    view: View
    classes: frozenset[str]  # that the item is flagged for, as far as it was explained
    gone: str | None = None  # why nothing is kept any more


@dataclass(frozen=True)
class DrawableExplanation:
    """An explanation with what is needed to draw it over its picture."""

    digest: str
    record: Explanation
    preprocessing: dict[str, Any]
    tag: str = field(repr=False)  # names this record among all


@router.get("/image/{digest}/blurred")
def image_blurred(
    request: Request,
    here: Here,
    caller: Reader,
    digest: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
) -> Response:
    """A neighbour or a precedent, by its digest."""
    try:
        with here.sessions.begin() as session:
            shown = _of_image(session, caller, digest)
    except UnknownEntry:
        if "image/" in request.headers.get("accept", ""):  # as part of a page, which goes on
            return sentence(UNKNOWN, status=404)
        raise
    return _blurred(request, here, shown, renditions.SHOWN)


@router.get("/{item_id}/blurred")
def item_blurred(
    request: Request, here: Here, caller: Reader, item_id: ItemId, class_name: ClassName = None
) -> Response:
    """So few grey points of the image that nothing can be recognised."""
    with here.sessions.begin() as session:
        shown = _of_item(session, caller, item_id, class_name)
    return _blurred(request, here, shown, renditions.SHOWN)


@router.get("/{item_id}/thumbnail")
def thumbnail(request: Request, here: Here, caller: Reader, item_id: ItemId) -> Response:
    """The same, small, for lists."""
    with here.sessions.begin() as session:
        shown = _of_item(session, caller, item_id, None)
    return _blurred(request, here, shown, renditions.THUMBNAIL)


@router.get("/{item_id}/original")
def original(
    here: Here,
    caller: Annotated[Caller, Depends(able(Ability.REVEAL))],
    item_id: ItemId,
    class_name: ClassName = None,
) -> Response:
    """The image itself, encoded anew, for a person who has revealed it."""
    with here.sessions.begin() as session:
        shown = _of_item(session, caller, item_id, class_name)
        _require_revealed(session, caller, item_id, shown)
    if shown.digest is None:
        return sentence(shown.gone or NONE_KEPT)
    try:
        picture = original_of(here, shown.digest, shown.view)
    except ImageError:
        return sentence(BROKEN)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@router.get("/{item_id}/map")
def evidence(
    request: Request, here: Here, caller: Reader, item_id: ItemId, class_name: ClassName = None
) -> Response:
    """The map that passed its test, as a transparent layer: warm for the class, blue against."""
    found = _explained(here, caller, item_id, class_name)
    record = found.record
    if record.map is None or not record.faithful:
        raise UnknownEntry(
            f"The map of item {item_id} for {record.class_name!r} is not shown: "
            f"{record.no_map or 'it did no better than chance when it was tested.'}"
        )
    grid, margin = record.map.grid, record.margin
    return _layer(
        request,
        here,
        found,
        "map",
        lambda s: overlay.map_layer(s, grid, margin, found.preprocessing, found.record.part),
    )


@router.get("/{item_id}/region")
def region(
    request: Request, here: Here, caller: Reader, item_id: ItemId, class_name: ClassName = None
) -> Response:
    """The outline of the part without which the image would not be flagged."""
    found = _explained(here, caller, item_id, class_name)
    where, over = found.record.region, found.record.map
    if where is None or over is None or not overlay.is_part(where, over):
        raise UnknownEntry(
            f"No part of item {item_id} decides about {found.record.class_name!r} by itself, so "
            "there is no region to outline."
        )
    return _layer(
        request,
        here,
        found,
        "region",
        lambda s: overlay.region_layer(s, where, over, found.preprocessing, found.record.part),
    )


@router.get("/{item_id}/word/{n}")
def word(
    request: Request,
    here: Here,
    caller: Reader,
    item_id: ItemId,
    n: Annotated[int, Path(ge=0, le=10_000)],
    class_name: ClassName = None,
) -> Response:
    """Where the n-th word of all the explanation's prompts, from 0, finds its evidence."""
    found = _explained(here, caller, item_id, class_name)
    words = [(prompt, w) for prompt in found.record.words for w in prompt.words]
    grid = words[n][1].grid if n < len(words) else None
    if grid is None or not found.record.faithful:  # parts of a map that failed are no better
        raise UnknownEntry(
            f"Item {item_id} has no regions for word {n} of {found.record.class_name!r}: they "
            "are kept where the method gives them, and shown where the map passed its test."
        )
    prompt = words[n][0]
    margin = prompt.logit - prompt.empty  # one scale for all the words of a prompt
    return _layer(
        request,
        here,
        found,
        f"word-{n}",
        lambda s: overlay.map_layer(s, grid, margin, found.preprocessing, found.record.part),
    )


def _of_item(session: Session, caller: Caller, item_id: int, class_name: str | None) -> ShownFrame:
    """Raises UnknownItem or NotAllowed."""
    item = item_for(session, caller, item_id)
    # Read for every picture: what a process or a browser remembers is of no use to anybody once the
    # row says that the image is gone.
    renditions.forget_erased(retention.last_erasure(session))
    gone = retention.why_gone(session, item_id)
    views = views_of(session, item)
    view = views.get(class_name or class_of(session, item_id) or "") or scored_view(session, item)
    return ShownFrame(None if gone else digest_of(session, item), view, frozenset(views), gone)


def _of_image(session: Session, caller: Caller, digest: str) -> ShownFrame:
    """An image that came with some item that the caller may see."""
    item_id = some_item_of(session, caller, [digest]).get(digest)
    if item_id is None:
        raise UnknownEntry(
            f"There is no image {digest} that {caller.actor} may see: look for it by a search."
        )
    return _of_item(session, caller, item_id, None)


def _require_revealed(session: Session, caller: Caller, item_id: int, shown: ShownFrame) -> None:
    if caller.person is None or not accounts.has_revealed(session, caller.person, item_id):
        raise NotAllowed(
            f"{caller.actor} has not revealed item {item_id} today: reveal it first, so that the "
            "look is written down."
        )
    if closed := sorted(name for name in shown.classes if not may_see(caller, name)):
        raise NotAllowed(
            f"Item {item_id} shows {', '.join(closed)}, too, which {caller.actor} may not see: an "
            "admin can change that."
        )


def _explained(
    here: Service, caller: Caller, item_id: int, class_name: str | None
) -> DrawableExplanation:
    """The explanation for one class, or for the worst; raises UnknownEntry."""
    with here.sessions.begin() as session:
        item = item_for(session, caller, item_id)
        retention.require_here(session, item_id)
        retention.require_here(session, item_id, retention.RetainedPart.EXPLANATIONS)
        found = standing_explanation(session, item, class_name)
    if found is None or found.digest is None:
        raise UnknownEntry(f"Item {item_id} has no explanation for {class_name or 'its class'!r}.")
    stored, name = found.stored, found.class_name
    if not may_see(caller, name):
        raise NotAllowed(f"{caller.actor} may not see {name!r}: an admin can change that.")
    record = Explanation.model_validate(stored.record)
    tag = f"{item_id}-{stored.class_id}-{stored.encoder_id}-{stored.created_at.timestamp():.0f}"
    return DrawableExplanation(found.digest, record, found.preprocessing, tag)


def _blurred(request: Request, here: Service, shown: ShownFrame, longest: int) -> Response:
    if shown.digest is None:
        return sentence(shown.gone or NONE_KEPT, longest)
    view = shown.view
    tag = "-".join(filter(None, (shown.digest[:32], str(view.frame), str(longest), _in(view))))
    if same := unchanged(request, tag):
        return same
    try:
        known = points_of(here, shown.digest, view)
    except ImageError:
        return sentence(BROKEN, longest)
    return kept(renditions.blurred(known, longest), "image/jpeg", tag)


def _layer(
    request: Request,
    here: Service,
    found: DrawableExplanation,
    kind: str,
    draw: Callable[[renditions.Size], Picture],
) -> Response:
    """Drawn in the shape of the picture that it is laid over; nothing of it is in the layer."""
    tag = f"{found.tag}-{kind}"
    if same := unchanged(request, tag):
        return same
    try:
        known = points_of(here, found.digest, found.record.seen)
    except ImageError as error:
        raise UnknownEntry(f"There is no picture to draw over: {error}") from error
    drawn = draw(renditions.fitted(known.size, renditions.SHOWN))
    return kept(renditions.layer(drawn), "image/webp", tag)


def _in(view: View) -> str:
    """A reading as part of a tag, which takes letters alone."""
    return view.reading.replace(",", "").replace(" ", "-")
