"""Reports: somebody says that a picture is forbidden, and gets an answer."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.arrivals import hold_images
from filter_service.db.policies import load_policy
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, Report, ReviewCase, StoredImage
from filter_service.db.unjudged import SENTENCES, UnjudgedReason, unjudged
from filter_service.errors import (
    Conflict,
    ContentGone,
    InvalidRequest,
    TooManyTries,
    UnknownEntry,
    UnknownItem,
)
from filter_service.ledger import Entry, Event
from filter_service.policy import Policy
from filter_service.reviews import report_cases, restricted
from filter_service.reviews.report_input import ReportInput
from filter_service.verdicts import Verdict
from filter_service.webhooks import EventType, announce

SAID = ("source", "reason", "class_name", "reference")  # of a report, by whoever makes it


def report(sessions: Sessions, item_id: int, given: ReportInput, actor: str, cap: int) -> uuid.UUID:
    """Say that an item's picture is forbidden; -> the report.

    Its case comes before others of its severity, that of a trusted flagger or an authority before
    all. The same reference about the same item is the same report. Raises UnknownItem; NotAllowed
    for what is locked away; ContentGone and InvalidRequest for what nobody can look at, a class
    that cannot be reported, or a reference of another report; TooManyTries beyond `cap` an hour.
    """
    with sessions.begin() as session:
        if (known := _known(session, item_id, given)) is not None:
            return known
        image = _lock(session, item_id)
        item = _reportable(session, item_id, image)
        require_class(_policy(session, item), given)
        require_room(session, actor, 1, cap)
        made = _add(session, item, given, actor)
        if made is None:
            raise Conflict(f"The same report about item {item_id} is being made: send it again.")
        report_cases.follow(session, [item_id], actor)
    return made


def add_submitted(session: Session, given: Mapping[int, ReportInput], actor: str) -> None:
    """Keep what came with new items; it is followed when they are judged."""
    if not given:
        return
    rows = [
        {"id": uuid.uuid4(), "item_id": item, "reported_by": actor, **said.model_dump()}
        for item, said in given.items()
    ]
    session.execute(insert(Report), rows)
    for row in rows:
        item = session.get_one(Item, row["item_id"])
        _tell(session, item, row["id"], given[item.id], actor)


def reports_of(sessions: Sessions, item_id: int) -> list[Report]:
    """The reports of an item, oldest first."""
    query = select(Report).where(Report.item_id == item_id)
    with sessions.begin() as session:
        return list(session.scalars(query.order_by(Report.reported_at, Report.id)))


def report_of(sessions: Sessions, report_id: uuid.UUID, scope: Scope = OPERATOR) -> Report:
    """One report; raises UnknownEntry."""
    query = select(Report).join(Item, Item.id == Report.item_id)
    with sessions.begin() as session:
        found = session.scalar(query.where(Report.id == report_id, scope.has(Item.client_id)))
    if found is None:
        raise UnknownEntry(f"There is no report {report_id}: check the id that making it gave.")
    return found


def require_room(session: Session, actor: str, more: int, cap: int) -> None:
    """Raises TooManyTries where somebody would have reported more than `cap` within an hour."""
    recent = select(func.count()).where(
        Report.reported_by == actor, Report.reported_at > func.now() - timedelta(hours=1)
    )
    if more and session.execute(recent).scalar_one() + more > cap:
        raise TooManyTries(
            f"{actor} may report {cap:,} pictures in an hour, so that no flood of reports keeps "
            "people from the rest: send the others later, or ask whoever runs this for more."
        )


def require_class(policy: Policy, given: ReportInput) -> None:
    """Raises InvalidRequest for a class that nobody could be asked about."""
    known = [c.name for c in report_cases.reportable(policy)]
    if not known:
        raise InvalidRequest(
            f"Nobody reviews pictures under policy {policy.name!r}: it has no class that can be "
            "reported."
        )
    if given.class_name is not None and given.class_name not in known:
        raise InvalidRequest(
            f"{given.class_name!r} is no class that can be reported under policy {policy.name!r}: "
            f"choose of {', '.join(sorted(known))}, or leave it out."
        )


def _known(session: Session, item_id: int, given: ReportInput) -> uuid.UUID | None:
    """The report that was made before under the same reference."""
    if given.reference is None:
        return None
    same = select(Report).where(Report.item_id == item_id, Report.reference == given.reference)
    found = session.scalar(same)
    if found is None:
        return None
    if any(getattr(found, name) != getattr(given, name) for name in SAID):
        raise InvalidRequest(
            f"The reference {given.reference!r} is of another report about item {item_id}: send "
            "what was sent under it before, or take a new one."
        )
    return found.id


def _lock(session: Session, item_id: int) -> int | None:
    """The item's image, of which nothing is deleted from here on; cases are taken before images."""
    image = session.scalar(select(Item.image_id).where(Item.id == item_id))
    if image is not None:
        cases = select(ReviewCase.item_id).where(ReviewCase.image_id == image)
        session.execute(cases.order_by(ReviewCase.item_id).with_for_update()).all()
        hold_images(session, [image])
        restricted.require_open(session, item_id)
    return image


def _reportable(session: Session, item_id: int, image: int | None) -> Item:
    """The item, if somebody can look at its picture now or once it is judged."""
    found = session.execute(select(Item, unjudged()).where(Item.id == item_id)).one_or_none()
    if found is None:
        raise UnknownItem(f"There is no item {item_id}: check the id.")
    item, why = found
    if item.verdict is Verdict.UNDETERMINED:
        raise InvalidRequest(
            f"Item {item_id} is undetermined ({item.reason}), so nobody could look at it: have its "
            "batch tried again, or submit a file that can be read, with its report."
        )
    if why is not None and why != UnjudgedReason.WAITING:
        raise InvalidRequest(f"{SENTENCES[UnjudgedReason(why)]} Nobody can be asked about it.")
    stored = session.get(StoredImage, image) if image is not None else None
    if stored is not None and (stored.digest is None or stored.bytes_gone_at is not None):
        raise ContentGone(
            f"The picture of item {item_id} was deleted: submit it again, with its report."
        )
    return item


def _policy(session: Session, item: Item) -> Policy:
    return load_policy(session, session.get_one(Batch, item.batch_id).policy_id).policy


def _add(session: Session, item: Item, given: ReportInput, actor: str) -> uuid.UUID | None:
    """None: somebody else has just made it under the same reference."""
    row = {"id": uuid.uuid4(), "item_id": item.id, "reported_by": actor, **given.model_dump()}
    new = upsert(Report).values(row).on_conflict_do_nothing().returning(Report.id)
    made = session.scalar(new)
    if made is not None:
        _tell(session, item, made, given, actor)
    return made


def _tell(session: Session, item: Item, made: uuid.UUID, given: ReportInput, actor: str) -> None:
    """In the ledger and to the platform; what was written stays with the report alone."""
    about: dict[str, Any] = {"report": str(made), "reported_as": given.source}
    told = {**about, "class": given.class_name}
    ledger.append(session, [Entry(Event.REPORTED, actor, item.id, item.batch_id, told)])
    message = {
        **{"item": item.id, "batch": str(item.batch_id), "source": item.source, **told},
        "reference": given.reference,
    }
    subject = f"item {item.id}"
    announce(session, EventType.REPORT_OPENED, subject, message, item.id, item.batch_id)


def open_reports(session: Session, item: Item, policy_id: int) -> Sequence[Report]:
    """What waits for an answer about an item's picture, oldest first."""
    if item.image_id is None:
        return []
    picture = report_cases.same_picture(item.image_id, item.client_id, policy_id)
    query = select(Report).join(Item, Item.id == Report.item_id).where(*picture)
    waiting = query.where(Report.closed_at.is_(None))
    return session.scalars(waiting.order_by(Report.reported_at, Report.id)).all()
