"""Hash lists: previews, adds, removes and lists entries that block or allow images."""

import math
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.accounts import Ability, may, sees
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, ListEntry, Person, StoredImage
from filter_service.errors import InvalidRequest, NotAllowed, UnknownEntry, UnknownItem
from filter_service.images.perceptual_hash import NEAR
from filter_service.ledger import Entry, Event
from filter_service.reviews import restricted
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.reviews.list_matches import decide_matches, matched_cases
from filter_service.reviews.similar_images import CLOSE, place_of

WIDEST = {Match.PDQ: 64.0, Match.RADIUS: 45.0}  # further out lie other pictures
USUAL = {Match.PDQ: float(NEAR), Match.RADIUS: math.degrees(math.acos(CLOSE))}

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class NewListEntry:
    """What somebody puts on a list."""

    kind: ListKind
    class_name: str
    match: Match
    item_id: int | None = None  # whose image it is, or
    digest: str | None = None  # its SHA-256; to match the same bytes it need not be stored
    within: float | None = None  # bits or degrees; None: what is usual
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ListEntryView:
    """An entry of a list, as people see it."""

    id: int
    kind: ListKind
    class_name: str
    match: Match
    digest: str | None
    within: float | None
    reason: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ListAddition:
    """An entry, and how many waiting items it decided at once."""

    entry: ListEntryView
    decided: int


def preview(sessions: Sessions, person: Person, entered: NewListEntry) -> list[int]:
    """The waiting items that an entry would decide, `list_matches.AT_ONCE` at most."""
    _check(person, entered)
    with sessions.begin() as session:
        return [case.item_id for case in matched_cases(session, _known(session, entered))]


def add_entry(
    sessions: Sessions, person: Person, entered: NewListEntry, decide_waiting: bool = False
) -> ListAddition:
    """Put an image on a list; on demand it decides what waits already (see `preview`).

    What somebody works on, has decided or is to decide again is left to people.
    """
    _check(person, entered)
    actor = f"person {person.login}"
    with sessions.begin() as session:
        known = _known(session, entered)
        in_turn(session)
        row = session.scalars(
            insert(ListEntry).values(created_by=actor, **known).returning(ListEntry)
        ).one()
        listed = _listed(row)
        about = asdict(listed) | {"created_at": row.created_at.isoformat(), "entry": row.id}
        of = select(func.min(Item.id)).join(StoredImage).where(StoredImage.digest == listed.digest)
        item_id = entered.item_id or session.scalar(of)  # its payload goes when that is erased
        ledger.append(session, [Entry(Event.LISTED, actor, item_id, details=about)])
        waiting = matched_cases(session, known, lock=True) if decide_waiting else []
        decide_matches(session, row, waiting, actor)
    return ListAddition(listed, len(waiting))


def remove_entry(sessions: Sessions, person: Person, entry_id: int) -> None:
    """Take an entry off its list; what it has decided stays decided."""
    _require(person)
    gone = (
        update(ListEntry)
        .where(ListEntry.id == entry_id, ListEntry.removed_at.is_(None))
        .values(removed_at=func.clock_timestamp())
        .returning(ListEntry.id)
    )
    with sessions.begin() as session:
        in_turn(session)
        if session.scalar(gone) is None:
            raise UnknownEntry(f"There is no entry {entry_id} to remove: look at the lists.")
        actor = f"person {person.login}"
        ledger.append(session, [Entry(Event.UNLISTED, actor, details={"entry": entry_id})])


def entries(
    sessions: Sessions,
    kind: ListKind | None = None,
    class_name: str | None = None,
    after: int | None = None,
    limit: int = 50,
) -> list[ListEntryView]:
    """Active entries, newest first; give the last one's id as `after` for those that follow."""
    query = select(ListEntry).where(ListEntry.removed_at.is_(None))
    if kind is not None:
        query = query.where(ListEntry.kind == kind)
    if class_name is not None:
        query = query.where(ListEntry.class_name == class_name)
    if after is not None:
        query = query.where(ListEntry.id < after)
    with sessions.begin() as session:
        rows = session.scalars(query.order_by(ListEntry.id.desc()).limit(limit))
        return [_listed(row) for row in rows]


def _require(person: Person) -> None:
    if not may(person, Ability.RULES):
        raise NotAllowed(
            f"{person.login} may not change lists as {person.role}: ask a policy editor."
        )


def _check(person: Person, entered: NewListEntry) -> None:
    _require(person)
    if not _NAME.fullmatch(entered.class_name):
        raise InvalidRequest(
            f"{entered.class_name!r} names no class: use lower case, digits, - and _."
        )
    if not sees(person, entered.class_name):
        raise NotAllowed(
            f"{person.login} may not see class {entered.class_name!r}: an admin can allow it."
        )
    if not entered.reason.strip():
        raise InvalidRequest("An entry needs a reason: say why this image is listed.")
    if (entered.item_id is None) == (entered.digest is None):
        raise InvalidRequest("An entry is for one image: give an item's id or a digest, not both.")
    if entered.digest is not None and not _DIGEST.fullmatch(entered.digest):
        raise InvalidRequest(
            f"{entered.digest[:80]!r} is no digest: give a SHA-256 as 64 digits 0-9 and a-f."
        )
    _check_reach(entered)


def _check_reach(entered: NewListEntry) -> None:
    within, widest = entered.within, WIDEST.get(entered.match)
    if within is None:
        return
    if widest is None:
        raise InvalidRequest("A digest matches the same bytes only: leave the distance out.")
    if not 0 <= within <= widest:
        unit = "bits" if entered.match is Match.PDQ else "degrees"
        raise InvalidRequest(f"{within} is out of reach: give 0 to {widest:g} {unit}.")


def _known(session: Session, entered: NewListEntry) -> dict[str, Any]:
    """The columns of an entry, with what is known of its image."""
    columns: dict[str, Any] = {
        "kind": entered.kind,
        "class_name": entered.class_name,
        "match": entered.match,
        "within": USUAL.get(entered.match) if entered.within is None else entered.within,
        "reason": entered.reason.strip(),
    }
    if entered.item_id is None and entered.match is Match.DIGEST:
        return columns | {"image_digest": entered.digest}
    item, image = _image(session, entered)
    columns["image_digest"] = image.digest
    if entered.match is Match.PDQ:
        if image.pdq is None:
            raise InvalidRequest(
                f"The image of {_named(entered)} has no perceptual hash, since it is too plain or "
                "was never judged: list it by digest."
            )
        return columns | {"pdq": image.pdq}
    if entered.match is Match.RADIUS:
        place = place_of(session, item, entered.class_name) if item else None
        if place is None:
            raise InvalidRequest(
                f"The image of {_named(entered)} has no embedding of an item: list it by an item "
                "that was judged, or by digest."
            )
        return columns | {"encoder_id": place.encoder_id, "vector": place.z}
    return columns


def _image(session: Session, entered: NewListEntry) -> tuple[Item | None, StoredImage]:
    """What is listed; what is locked away is not there for anybody who makes lists."""
    item = None
    query = select(StoredImage).where(
        StoredImage.digest == entered.digest, ~restricted.is_locked(StoredImage.id)
    )
    if entered.item_id is not None:
        item = session.get(Item, entered.item_id)
        if item is None:
            raise UnknownItem(f"There is no item {entered.item_id}: check the id.")
        restricted.require_open(session, entered.item_id)
        query = select(StoredImage).where(StoredImage.id == item.image_id)
    image = session.scalar(query)
    if image is None:
        raise InvalidRequest(
            f"No image is stored for {_named(entered)}: list it by the digest of its bytes."
        )
    return item, image


def _named(entered: NewListEntry) -> str:
    """As whoever lists it knows it."""
    return f"item {entered.item_id}" if entered.item_id else f"digest {entered.digest}"


def in_turn(session: Session) -> None:
    """One change at a time, so that workers see by the newest that there was one."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext("filter_service lists"))))


def _listed(row: ListEntry) -> ListEntryView:
    return ListEntryView(
        id=row.id,
        kind=ListKind(row.kind),
        class_name=row.class_name,
        match=Match(row.match),
        digest=row.image_digest,
        within=row.within,
        reason=row.reason,
        created_by=row.created_by,
        created_at=row.created_at,
    )
