"""Finds the waiting cases that an entry of a list matches, and decides them."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.tables import Item, ListEntry, ReviewCase, ReviewOutcome, StoredImage
from filter_service.db.vectors import near
from filter_service.ledger import Entry, Event
from filter_service.reviews import report_cases
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.hash_matching import ROUNDING, ListKind
from filter_service.reviews.queue import is_free
from filter_service.reviews.settlement import Decision
from filter_service.statements import issue_queue as statements
from filter_service.statements.issuance import stated
from filter_service.verdicts import Verdict
from filter_service.webhooks import EventType, announce

AT_ONCE = 1_000  # waiting items that one entry decides
DECIDES = {ListKind.BLOCK: Decision.CONFIRMED, ListKind.ALLOW: Decision.OVERTURNED}


@dataclass(frozen=True, slots=True)
class WaitingCase:
    """A case that an entry decides."""

    item_id: int
    image_id: int
    batch_id: uuid.UUID
    class_name: str
    source: str


def matched_cases(session: Session, known: dict[str, Any], lock: bool = False) -> list[WaitingCase]:
    """The cases that an entry would decide: nobody has seen to them yet."""
    columns = (ReviewCase.item_id, ReviewCase.image_id, ReviewCase.batch_id, ReviewCase.class_name)
    query = select(*columns, Item.source).where(
        Item.id == ReviewCase.item_id,
        ReviewCase.class_name == known["class_name"],
        ReviewCase.stage == Stage.FIRST,
        ~ReviewCase.sampled,
        is_free(),
        ReviewCase.image_id.in_(_matched_images(session, known)),
    )
    query = query.order_by(ReviewCase.item_id).limit(AT_ONCE)
    if lock:
        query = query.with_for_update(of=ReviewCase, skip_locked=True)
    return [WaitingCase(*row) for row in session.execute(query)]


def _matched_images(session: Session, known: dict[str, Any]) -> Select[int] | list[int]:
    """The images that an entry matches."""
    if "pdq" in known:
        bits = func.bit_count(StoredImage.pdq.op("#")(known["pdq"]))
        return select(StoredImage.id).where(bits <= known["within"])
    if "vector" in known:
        cosine = math.cos(math.radians(known["within"])) - ROUNDING
        z, encoder = known["vector"], known["encoder_id"]
        met = near(session, encoder, len(z), z, AT_ONCE)
        return [image for image, c in met.items() if c >= cosine]
    return select(StoredImage.id).where(StoredImage.digest == known["image_digest"])


def decide_matches(
    session: Session, entry: ListEntry, waiting: Sequence[WaitingCase], actor: str
) -> None:
    """Close cases as the list says; the platform is told as of a person's decision."""
    if not waiting:
        return
    decision = DECIDES[ListKind(entry.kind)]
    items = [case.item_id for case in waiting]
    rows = [
        {
            "item_id": case.item_id,
            "image_id": case.image_id,
            "class_name": case.class_name,
            "decision": decision,
            "sampled": False,
            "review_id": None,
        }
        for case in waiting
    ]
    keep_outcomes(session, rows)
    session.execute(update(Item).where(Item.id.in_(items)).values(list_entry_id=entry.id))
    session.execute(delete(ReviewCase).where(ReviewCase.item_id.in_(items)))
    about = {"entry": entry.id, "decision": decision, "class": entry.class_name}
    ledger.append(
        session,
        [Entry(Event.LIST_DECIDED, actor, c.item_id, c.batch_id, about) for c in waiting],
    )
    for case in waiting:
        message = {
            "item": case.item_id,
            "batch": str(case.batch_id),
            "source": case.source,
            "class": case.class_name,
            "verdict": Verdict.FLAGGED,
            "decision": decision,
            "final": Verdict.FLAGGED if decision is Decision.CONFIRMED else Verdict.CLEAR,
            "list_entry": entry.id,
            "statement": stated(session, case.item_id),
        }
        subject = f"item {case.item_id}"
        announce(session, EventType.REVIEW_DECIDED, subject, message, case.item_id, case.batch_id)
    report_cases.follow(session, items, actor)


def keep_outcomes(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Write how items ended that a list decided."""
    new = upsert(ReviewOutcome)
    names = ("image_id", "class_name", "decision", "sampled", "review_id", "at")
    session.execute(
        new.on_conflict_do_update(
            index_elements=["item_id"], set_={name: new.excluded[name] for name in names}
        ),
        list(rows),
    )
    statements.note(session, [row["item_id"] for row in rows])
