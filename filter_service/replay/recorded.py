"""What stands on record about one item, as far as computing it again needs it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from filter_service.db.policies import KnownPolicy, load_policy
from filter_service.db.tables import (
    Batch,
    Image,
    Item,
    LedgerEntry,
    PolicyClass,
    SealedItem,
    StoredEncoder,
    StoredExplanation,
    StoredScore,
)
from filter_service.errors import AnotherEncoder, UnknownItem
from filter_service.ledger import Event
from filter_service.verdicts import Verdict

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

GONE = (Event.EXPIRED, Event.ERASED, Event.LOCKED_AWAY)


class Apart(StrEnum):
    """Why an item is not computed again."""

    WAITING = "waiting"
    UNDETERMINED = "undetermined"
    LISTED = "decided by a list"
    ERASED = "erased"
    EXPIRED = "expired"
    SEALED = "locked away"
    ANOTHER_ENCODER = "another encoder"


@dataclass(frozen=True, slots=True)
class NotReplayed:
    """An item that is counted apart, and the sentence that says why."""

    item_id: int
    why: Apart
    sentence: str


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What was decided about an item, by whom and on what evidence."""

    item_id: int
    batch_id: uuid.UUID
    digest: str
    policy: KnownPolicy
    encoder_id: int
    encoder: str
    fingerprint: str
    precision: str  # of the screening pass
    row: Mapping[str, Any]  # verdict, class, margin, probability as the item's row has them
    judged: Mapping[str, Any] | None  # details of the ledger's entry
    scores: Mapping[str, tuple[float, bool]]  # by class: margin, and whether it is float32's
    explanations: Mapping[str, tuple[bool, Any]]  # by class: faithful, and the record
    parts_gone: bool  # explanations were deleted, as the ledger says

    @property
    def encoder_named(self) -> str:
        """The fingerprint that the record names."""
        return str((self.judged or {}).get("encoder", self.fingerprint))


def on_record(session: Session, item_id: int) -> OnRecord | NotReplayed:
    """The record of one item, or why it is not computed again; raises UnknownItem."""
    item = session.get(Item, item_id)
    if item is None:
        raise UnknownItem(f"There is no item {item_id}; `filter-service items` lists them.")
    image = None if item.image_id is None else session.get_one(Image, item.image_id)
    if (apart := _apart(session, item, image)) is not None:
        return apart
    assert image is not None and image.digest is not None and item.encoder_id is not None
    encoder = session.get_one(StoredEncoder, item.encoder_id)
    policy = load_policy(session, session.get_one(Batch, item.batch_id).policy_id)
    entry = _last(session, item_id, Event.JUDGED)
    return OnRecord(
        item_id=item_id,
        batch_id=item.batch_id,
        digest=image.digest,
        policy=policy,
        encoder_id=encoder.id,
        encoder=encoder.name,
        fingerprint=encoder.fingerprint,
        precision=str(encoder.details.get("precision", "float32")),
        row={
            "verdict": item.verdict,
            "class": item.class_id and session.get_one(PolicyClass, item.class_id).name,
            "margin": item.margin,
            "probability": item.probability,
        },
        judged=None if entry is None else entry.details,
        scores=_scores(session, policy, encoder.id, image.id),
        explanations=_explanations(session, item_id, encoder.id),
        parts_gone=_last(session, item_id, *GONE) is not None,
    )


def require_same(item_id: int, name: str, fingerprint: str, encoder: "Encoder") -> None:
    """What another model makes of an image says nothing of what this one made of it."""
    if encoder.fingerprint != fingerprint:
        raise AnotherEncoder(
            f"Item {item_id} was judged by {name} with the fingerprint {fingerprint[:12]}, but the "
            f"encoder at hand, {encoder.name}, has {encoder.fingerprint[:12]}: set "
            "FILTER_SERVICE_MODEL and FILTER_SERVICE_PRETRAINED to the one that judged it."
        )


def _apart(session: Session, item: Item, image: Image | None) -> NotReplayed | None:
    """The first reason for which an item is left as it is, if there is one."""
    number, undetermined = item.id, item.verdict is Verdict.UNDETERMINED
    locked = exists().where(SealedItem.image_id == item.image_id)
    reasons = (
        (item.verdict is None, Apart.WAITING, "has not been judged yet."),
        (undetermined, Apart.UNDETERMINED, f"is undetermined: {item.reason}."),
        (image is None or item.encoder_id is None, Apart.UNDETERMINED, "was judged by no model."),
        (image and image.digest is None, Apart.ERASED, "was erased: nothing is left to compute."),
        (session.scalar(select(locked)), Apart.SEALED, "is locked away: only custodians look."),
        (image and image.bytes_gone_at, Apart.EXPIRED, "has lost its bytes, which expired."),
        (item.list_entry_id, Apart.LISTED, f"was decided by list entry {item.list_entry_id}."),
    )
    found = ((why, said) for applies, why, said in reasons if applies)
    return next((NotReplayed(number, why, f"Item {number} {said}") for why, said in found), None)


def _last(session: Session, item_id: int, *events: Event) -> LedgerEntry | None:
    entries = select(LedgerEntry).where(
        LedgerEntry.item_id == item_id, LedgerEntry.event.in_(events)
    )
    return session.scalars(entries.order_by(LedgerEntry.id.desc()).limit(1)).one_or_none()


def _scores(
    session: Session, policy: KnownPolicy, encoder_id: int, image_id: int
) -> dict[str, tuple[float, bool]]:
    names = {class_id: name for name, class_id in policy.class_ids.items()}
    rows = session.execute(
        select(StoredScore.class_id, StoredScore.margin, StoredScore.exact).where(
            StoredScore.encoder_id == encoder_id,
            StoredScore.class_id.in_(names),
            StoredScore.image_id == image_id,
        )
    )
    return {names[class_id]: (margin, exact) for class_id, margin, exact in rows}


def _explanations(session: Session, item_id: int, encoder_id: int) -> dict[str, tuple[bool, Any]]:
    rows = session.execute(
        select(PolicyClass.name, StoredExplanation.faithful, StoredExplanation.record)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(StoredExplanation.item_id == item_id, StoredExplanation.encoder_id == encoder_id)
    )
    return {name: (faithful, record) for name, faithful, record in rows}
