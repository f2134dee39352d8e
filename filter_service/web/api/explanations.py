"""Explanations over HTTP: the stored records, and what is drawn from them without a model."""

import io
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import PIL.Image
from fastapi import APIRouter, Depends, Path, Response
from sqlalchemy.orm import Session

from filter_service import accounts, ledger, retention
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.audit.record.stored_json import explanation_in
from filter_service.db.keyset import LARGEST_ID
from filter_service.errors import FilterServiceError, NotAllowed, NotExplainable
from filter_service.images import Limits, decode
from filter_service.ledger import Entry, Event
from filter_service.rendering.overlay import overlay
from filter_service.rendering.summary_card import card
from filter_service.retention import RetainedPart
from filter_service.reviews.row_access import item_for, may_see
from filter_service.reviews.sightings import kept_item_of, known_images
from filter_service.reviews.stored_explanations import (
    explained_classes,
    explanations_of,
    newest_explanation,
)
from filter_service.verdicts.explanation import Explanation
from filter_service.web.api.responses import ExplanationAnswer
from filter_service.web.http.access import able
from filter_service.web.http.described_requests import StrictRoute, only_described
from filter_service.web.http.problems import answers
from filter_service.web.http.service import Service, service

router = APIRouter(
    prefix="/v1",
    route_class=StrictRoute,
    tags=["explanations"],
    dependencies=[Depends(only_described)],
    responses=answers(401, 403, 404, 410, 422, 503),
)
Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
ItemId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
ClassName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]

_DIGEST = re.compile(r"[0-9a-f]{64}")
LARGEST = 1024  # pixels of a drawn picture's longer side
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get(
    "/items/{item}/explanations",
    summary="Why an item was flagged",
    operation_id="list_explanations",
)
def explanations(item: ItemId, by: Reader, here: Here) -> list[ExplanationAnswer]:
    """One record for each class that it was flagged for, as written when it was judged."""
    with here.sessions.begin() as session:
        item_for(session, by, item)
        retention.require_here(session, item, RetainedPart.EXPLANATIONS)
        rows = [row for row in explanations_of(session, item) if may_see(by, row[1])]
        known = _known_digests(session, by, [found.record for found, _ in rows])
        return [
            ExplanationAnswer(
                class_name=name,
                faithful=found.faithful,
                specific=_specific(found.record),
                created_at=found.created_at,
                record=_as_known(found.record, known),
            )
            for found, name in rows
        ]


def _specific(record: dict[str, Any]) -> bool | None:
    """What a record says; None also where somebody made it unreadable."""
    found = explanation_in(json.dumps(record))
    return None if found is None else found.specific


def _known_digests(
    session: Session, by: Caller, records: Sequence[dict[str, Any]]
) -> frozenset[str]:
    """Which of the other images that the records name are of items that they see."""
    named = {image["digest"] for record in records for image in _images(record)}
    return known_images(session, by.scope, named)


def _as_known(record: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """A record without the images of which only others know."""
    if "images" not in record:
        return record
    return record | {"images": [i for i in _images(record) if i["digest"] in known]}


def _images(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The other images that a record names, as far as it can be read."""
    named = record.get("images")
    found = [i for i in named if isinstance(i, dict)] if isinstance(named, list) else []
    return [i for i in found if _DIGEST.fullmatch(str(i.get("digest")))]


@router.get(
    "/items/{item}/explanations/{class_name}/overlay",
    summary="The map over its picture",
    operation_id="get_overlay",
    response_class=Response,
    responses=PICTURE,
)
def drawn_overlay(item: ItemId, class_name: ClassName, by: Reader, here: Here) -> Response:
    """Warm where the image speaks for the class, blue where against, the flip region outlined.

    A map that failed its test is not drawn. People reveal the image in the console first.
    """
    told = _Told.of(here, by, item, class_name)
    record = told.record
    if record.map is None or not record.faithful:
        raise NotExplainable(
            f"The map of item {item} for {class_name!r} is not drawn: "
            f"{record.no_map or 'it did no better than chance when it was tested.'}"
        )
    picture = told.picture(here)
    region, part = record.region, record.part
    return _png(overlay(picture, record.map, record.margin, told.preprocessing, region, part))


@router.get(
    "/items/{item}/explanations/{class_name}/card",
    summary="Everything about a flag on one sheet",
    operation_id="get_card",
    response_class=Response,
    responses=PICTURE,
)
def drawn_card(item: ItemId, class_name: ClassName, by: Reader, here: Here) -> Response:
    """Picture, map if it passed its test, words, nearest other image, and the test's result."""
    told = _Told.of(here, by, item, class_name)
    # The nearest other image is another item's, which a person may not have been shown.
    other = told.neighbour(here, by, item) if by.person is None else None
    return _png(card(told.picture(here), told.record, told.preprocessing, other))


class _Told:
    """An explanation with what its drawing needs."""

    def __init__(self, digest: str, record: Explanation, preprocessing: dict[str, Any]) -> None:
        self.digest = digest
        self.record = record
        self.preprocessing = preprocessing

    @classmethod
    def of(cls, here: Service, by: Caller, item: int, class_name: str) -> "_Told":
        """Raises for what is not there or not for them to see; that they look is written down."""
        with here.sessions.begin() as session:
            found = item_for(session, by, item)
            for part in (RetainedPart.BYTES, RetainedPart.EXPLANATIONS):
                retention.require_here(session, item, part)
            told = newest_explanation(session, item, class_name)
            if told is None or told.digest is None or not may_see(by, class_name):
                raise NotExplainable(f"Item {item} has no explanation for {class_name!r}.")
            _require_all_open(session, by, item)
            if by.person is None:
                seen = Entry(Event.REVEALED, by.actor, item, found.batch_id, {"class": class_name})
                ledger.append(session, [seen])
            elif not accounts.has_revealed(session, by.person, item):
                raise NotAllowed(
                    f"{by.actor} has not revealed item {item} today: reveal it in the console "
                    "first, which counts it."
                )
            record = told.stored.record
            record = _as_known(record, _known_digests(session, by, [record]))
        return cls(told.digest, Explanation.model_validate(record), told.preprocessing)

    def picture(self, here: Service) -> PIL.Image.Image:
        """The frame that was flagged, small enough to draw on; raises ImageError."""
        data = here.storage.get(self.digest)
        seen, limits = self.record.seen, Limits.of(here.settings)
        (frame,) = decode(data, limits, only=seen.frame, reading=seen.reading).frames
        frame.picture.thumbnail((LARGEST, LARGEST))
        return frame.picture

    def neighbour(self, here: Service, by: Caller, item: int) -> PIL.Image.Image | None:
        """The nearest counterfactual image, if they may see it; that they do is its own entry.

        It may have been locked away or deleted since this record was written.
        """
        if not self.record.images:
            return None
        digest = self.record.images[0].digest
        with here.sessions.begin() as session:
            other = kept_item_of(session, by, digest)
            if other is None:
                return None
            seen = {"class": self.record.class_name, "beside": item}
            ledger.append(session, [Entry(Event.REVEALED, by.actor, *other, seen)])
        try:
            data = here.storage.get(digest)
            return decode(data, Limits.of(here.settings), only=0).frames[0].picture
        except FilterServiceError:  # the card says so
            return None


def _require_all_open(session: Session, by: Caller, item: int) -> None:
    """A picture shows everything that it is flagged for, whichever class was asked about."""
    if closed := [name for name in explained_classes(session, item) if not may_see(by, name)]:
        raise NotAllowed(
            f"Item {item} shows {', '.join(closed)}, too, which {by.actor} may not see: an admin "
            "can change that."
        )


def _png(picture: PIL.Image.Image) -> Response:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Response(file.getvalue(), media_type="image/png")
