"""Serves pictures: blurred ones, revealed originals, and layers with explanations."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from PIL.Image import Image as Picture

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID
from filter_service.errors import ImageError, UnknownEntry
from filter_service.images.views import View
from filter_service.rendering import overlay, renditions
from filter_service.web.console.picture_answers import (
    kept,
    original_of,
    points_of,
    sentence,
    unchanged,
)
from filter_service.web.console.shown_pictures import (
    DrawableExplanation,
    ShownFrame,
    explained,
    of_image,
    of_item,
    require_revealed,
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
            shown = of_image(session, caller, digest)
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
        shown = of_item(session, caller, item_id, class_name)
    return _blurred(request, here, shown, renditions.SHOWN)


@router.get("/{item_id}/thumbnail")
def thumbnail(request: Request, here: Here, caller: Reader, item_id: ItemId) -> Response:
    """The same, small, for lists."""
    with here.sessions.begin() as session:
        shown = of_item(session, caller, item_id, None)
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
        shown = of_item(session, caller, item_id, class_name)
        require_revealed(session, caller, item_id, shown)
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
    found = explained(here, caller, item_id, class_name)
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
    found = explained(here, caller, item_id, class_name)
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
    found = explained(here, caller, item_id, class_name)
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
