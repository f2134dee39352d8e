"""Reads what is recorded of an item for its replay, or says why it cannot be replayed."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, cast, exists, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.audit.record.stored_json import explanation_in
from filter_service.db.policies import KnownPolicy, load_policy
from filter_service.db.tables import (
    Batch,
    Embedding,
    Item,
    LedgerEntry,
    PolicyClass,
    Restriction,
    StoredEncoder,
    StoredExplanation,
    StoredImage,
    StoredScore,
)
from filter_service.errors import AnotherEncoder, UnknownItem
from filter_service.images.views import View
from filter_service.ledger import Event
from filter_service.verdicts import Verdict
from filter_service.verdicts.explanation import Explanation

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

DELETED = (Event.ERASED, Event.LOCKED_AWAY)  # explanations with all the rest


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
class RecordedExplanation:
    """An explanation as it is stored."""

    faithful: bool
    text: str
    explanation: Explanation | None  # None: the text cannot be read


@dataclass(frozen=True, slots=True)
class LedgerExplanations:
    """What the ledger says of an item's explanations, by class."""

    explained: Mapping[str, Mapping[str, Any]]  # details of the newest entry of each
    deleted: frozenset[str]  # by an entry that came later


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
    decoder: int  # which way of decoding files
    precision: str  # of the screening pass
    row: Mapping[str, Any]  # verdict, class, margin, probability as the item's row has them
    judged: Mapping[str, Any] | None  # details of the ledger's entry
    views: frozenset[View]  # of which the encoder's vectors are stored; empty: they expired
    scores: Mapping[str, tuple[float, bool]]  # by class: margin, and whether it is float32's
    explanations: Mapping[str, RecordedExplanation]  # by class
    told: LedgerExplanations

    @property
    def encoder_named(self) -> str:
        """The fingerprint that the record names."""
        return str((self.judged or {}).get("encoder", self.fingerprint))


def on_record(session: Session, item_id: int) -> OnRecord | NotReplayed:
    """The record of one item, or why it is not computed again; raises UnknownItem."""
    item = session.get(Item, item_id)
    if item is None:
        raise UnknownItem(f"There is no item {item_id}; `filter-service items` lists them.")
    image = None if item.image_id is None else session.get_one(StoredImage, item.image_id)
    if (apart := _apart(session, item, image)) is not None:
        return apart
    assert image is not None and image.digest is not None and item.encoder_id is not None
    encoder = session.get_one(StoredEncoder, item.encoder_id)
    policy = load_policy(session, session.get_one(Batch, item.batch_id).policy_id)
    entries = ledger.of_item(session, item_id)
    judged = [e.details for e in entries if e.event == Event.JUDGED]
    return OnRecord(
        item_id=item_id,
        batch_id=item.batch_id,
        digest=image.digest,
        policy=policy,
        encoder_id=encoder.id,
        encoder=encoder.name,
        fingerprint=encoder.fingerprint,
        decoder=decoder_of(encoder),
        precision=str(encoder.details.get("precision", "float32")),
        row={
            "verdict": item.verdict,
            "class": item.class_id and session.get_one(PolicyClass, item.class_id).name,
            "margin": item.margin,
            "probability": item.probability,
            **({"fully_automated": item.fully_automated} if _says_acts(item, judged) else {}),
        },
        judged=judged[-1] if judged else None,
        views=_views(session, encoder.id, image.id),
        scores=_scores(session, policy, encoder.id, image.id),
        explanations=_explanations(session, item_id, encoder.id),
        told=_told(entries),
    )


def require_same(
    item_id: int, name: str, fingerprint: str, decoder: int, encoder: "Encoder"
) -> None:
    """What another model makes of an image says nothing of what this one made of it.

    Nor does what the same model makes of other pixels: the way in which files are decoded has a
    number, too.
    """
    here = int(encoder.details["decoder"])
    if decoder != here:
        raise AnotherEncoder(
            f"Item {item_id} was judged by {name} when files were decoded otherwise (decoder "
            f"{decoder}, here {here}): what it saw then cannot be compared with what is seen now; "
            "submit the file again to have it judged anew."
        )
    if encoder.fingerprint != fingerprint:
        raise AnotherEncoder(
            f"Item {item_id} was judged by {name} with the fingerprint {fingerprint[:12]}, but the "
            f"encoder at hand, {encoder.name}, has {encoder.fingerprint[:12]}: set "
            "FILTER_SERVICE_MODEL and FILTER_SERVICE_PRETRAINED to the one that judged it."
        )


def decoder_of(encoder: StoredEncoder) -> int:
    """The way of decoding files that gave an encoder its pictures; the first had no number."""
    return int(encoder.details.get("decoder", 1))


def _apart(session: Session, item: Item, image: StoredImage | None) -> NotReplayed | None:
    """The first reason for which an item is left as it is, if there is one."""
    number, undetermined = item.id, item.verdict is Verdict.UNDETERMINED
    locked = exists().where(Restriction.image_id == item.image_id)
    reasons = (
        (image and image.digest is None, Apart.ERASED, "was erased: nothing is left to compute."),
        (item.verdict is None, Apart.WAITING, "has not been judged yet."),
        (undetermined, Apart.UNDETERMINED, f"is undetermined: {item.reason}."),
        (image is None or item.encoder_id is None, Apart.UNDETERMINED, "was judged by no model."),
        (session.scalar(select(locked)), Apart.SEALED, "is locked away: only custodians look."),
        (image and image.bytes_gone_at, Apart.EXPIRED, "has lost its bytes, which expired."),
        (item.list_entry_id, Apart.LISTED, f"was decided by list entry {item.list_entry_id}."),
    )
    found = ((why, said) for applies, why, said in reasons if applies)
    return next((NotReplayed(number, why, f"Item {number} {said}") for why, said in found), None)


def _says_acts(item: Item, judged: Sequence[Mapping[str, Any] | None]) -> bool:
    """Row or entry says whether the flag acted by itself; where no class can, neither does."""
    return item.fully_automated or bool(judged and "fully_automated" in (judged[-1] or {}))


def _told(entries: Iterable[LedgerEntry]) -> LedgerExplanations:
    """Of all entries of an item, oldest first."""
    explained: dict[str, Mapping[str, Any]] = {}
    deleted: set[str] = set()
    for entry in entries:
        said = entry.details or {}
        if entry.event == Event.EXPLAINED and "class" in said:
            explained[said["class"]] = said
            deleted.discard(said["class"])
        elif entry.event in DELETED or "explanations" in _expired(entry):
            deleted.update(explained)
    return LedgerExplanations(explained, frozenset(deleted))


def _expired(entry: LedgerEntry) -> Collection[str]:
    """The parts of an item whose time was over."""
    return (entry.details or {}).get("parts", ()) if entry.event == Event.EXPIRED else ()


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


def _views(session: Session, encoder_id: int, image_id: int) -> frozenset[View]:
    stored = select(Embedding.frame, Embedding.view).where(
        Embedding.encoder_id == encoder_id, Embedding.image_id == image_id
    )
    return frozenset(View.parse(frame, name) for frame, name in session.execute(stored))


def _explanations(
    session: Session, item_id: int, encoder_id: int
) -> dict[str, RecordedExplanation]:
    text = cast(StoredExplanation.record, Text)
    rows = session.execute(
        select(PolicyClass.name, StoredExplanation.faithful, text)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(StoredExplanation.item_id == item_id, StoredExplanation.encoder_id == encoder_id)
    )
    return {
        name: RecordedExplanation(faithful, record, explanation_in(record))
        for name, faithful, record in rows
    }
