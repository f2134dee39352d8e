"""Chooses what is shown of an item: which frame of which image, and which explanation over it."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from filter_service import accounts, retention
from filter_service.accounts.callers import Caller
from filter_service.errors import NotAllowed, UnknownEntry
from filter_service.images.views import View
from filter_service.rendering import renditions
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
from filter_service.web.http.service import Service


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


def of_item(session: Session, caller: Caller, item_id: int, class_name: str | None) -> ShownFrame:
    """What is shown of an item, for a class or its worst; raises UnknownItem or NotAllowed."""
    item = item_for(session, caller, item_id)
    # Read for every picture: what a process or a browser remembers is of no use to anybody once the
    # row says that the image is gone.
    renditions.forget_erased(retention.last_erasure(session))
    gone = retention.why_gone(session, item_id)
    views = views_of(session, item)
    view = views.get(class_name or class_of(session, item_id) or "") or scored_view(session, item)
    return ShownFrame(None if gone else digest_of(session, item), view, frozenset(views), gone)


def of_image(session: Session, caller: Caller, digest: str) -> ShownFrame:
    """An image that came with some item that the caller may see."""
    item_id = some_item_of(session, caller, [digest]).get(digest)
    if item_id is None:
        raise UnknownEntry(
            f"There is no image {digest} that {caller.actor} may see: look for it by a search."
        )
    return of_item(session, caller, item_id, None)


def require_revealed(session: Session, caller: Caller, item_id: int, shown: ShownFrame) -> None:
    """Raises NotAllowed for what somebody has not revealed today, or may not see all of."""
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


def explained(
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
