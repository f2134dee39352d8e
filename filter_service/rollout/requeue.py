"""Submits items anew that a new policy version answers otherwise, or reopens their cases."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.arrivals import enqueue
from filter_service.db.tables import Activation, Batch, Item
from filter_service.ledger import Entry, Event
from filter_service.policy import Policy
from filter_service.reviews.case_opening import Opening, open_cases
from filter_service.scoring import PolicyVectors
from filter_service.verdicts import Score, Verdict, threshold_margin

ACTOR = "service"
PRIORITY = -1  # judging anew gives way to what platforms have just sent


@dataclass(frozen=True, slots=True)
class Sides:
    """Both versions in the space of the served encoder."""

    encoder_id: int
    old: PolicyVectors
    new: PolicyVectors


# What was said of an item holds for what it is judged anew as.
_ATTRIBUTES = text("""
    INSERT INTO item_attributes (item_id, name, value)
    SELECT anew.new, a.name, a.value
    FROM unnest(CAST(:old AS bigint[]), CAST(:new AS bigint[])) AS anew (old, new)
    JOIN item_attributes a ON a.item_id = anew.old
""")


@dataclass(frozen=True, slots=True)
class Old:
    """An item of the version before."""

    item_id: int
    batch_id: uuid.UUID
    client_id: int
    policy_id: int
    image_id: int
    digest: str | None  # None: erased
    source: str
    content_date: date | None
    verdict: Verdict | None
    encoder_id: int | None
    bytes_gone: bool
    waits: bool  # queued, or still to be fetched
    confirmed: str | None  # the class for which a person let the flag stand; no case is open
    superseded: bool


@dataclass(frozen=True, slots=True)
class VersionAnswer:
    """What a version answers for an item."""

    verdict: Verdict
    scores: tuple[Score, ...]
    unsure: bool  # the judge would encode a frame again

    @property
    def worst(self) -> Score:
        return max(self.scores, key=lambda s: s.urgency)

    def of(self, class_name: str) -> Score:
        return next(s for s in self.scores if s.class_name == class_name)

    @property
    def flag(self) -> str | None:
        """The class that it is flagged for."""
        return self.worst.class_name if self.verdict is Verdict.FLAGGED else None


def judge_anew(session: Session, work: Activation, items: Sequence[Old], policy: Policy) -> None:
    """A new item for each, which a worker judges from the stored vectors and explains."""
    for client_id in sorted({i.client_id for i in items}):
        theirs = [i for i in items if i.client_id == client_id]
        _judge_anew(session, work, _batch(session, work, client_id), theirs, policy)


def _batch(session: Session, work: Activation, client_id: int) -> Batch:
    """Of a client's items that this activation has judged anew; the first one is the activation's.

    Each client has its own, in which it finds what became of its items and of no others.
    """
    known = select(Batch).where(Batch.activation_id == work.id, Batch.client_id == client_id)
    if (batch_id := session.scalar(known)) is not None:
        return batch_id
    label = f"{work.name}, judged anew"
    batch = Batch(id=uuid.uuid4(), policy_id=work.policy_id, label=label, priority=PRIORITY)
    batch.client_id, batch.activation_id = client_id, work.id
    session.add(batch)
    session.flush()
    first = update(Activation).where(Activation.id == work.id, Activation.batch_id.is_(None))
    session.execute(first.values(batch_id=batch.id))
    about = {"activation": work.id}
    ledger.append(session, [Entry(Event.SUBMITTED, ACTOR, batch_id=batch.id, details=about)])
    return batch


def _judge_anew(
    session: Session, work: Activation, batch: Batch, items: Sequence[Old], policy: Policy
) -> None:
    rows = [
        {
            "batch_id": batch.id,
            "client_id": batch.client_id,
            "image_id": i.image_id,
            "source": i.source,
            "content_date": i.content_date,
            "supersedes": i.item_id,
        }
        for i in items
    ]
    added = insert(Item).returning(Item.id, sort_by_parameter_order=True)
    ids = list(session.scalars(added, rows))
    session.execute(_ATTRIBUTES, {"old": [i.item_id for i in items], "new": ids})
    enqueue(session, ids, PRIORITY)
    ledger.append(session, _entries(work, batch.id, items, ids, policy))


def _entries(
    work: Activation, batch_id: uuid.UUID, items: Sequence[Old], ids: Sequence[int], policy: Policy
) -> Iterator[Entry]:
    for old, new in zip(items, ids, strict=True):
        submitted = {"digest": old.digest, "supersedes": old.item_id}
        yield Entry(Event.SUBMITTED, ACTOR, new, batch_id, submitted)
        about = {"activation": work.id, "policy": policy.digest, "item": new}
        yield Entry(Event.REEVALUATED, ACTOR, old.item_id, old.batch_id, about)


def reopen(
    session: Session, work: Activation, items: Sequence[tuple[Old, VersionAnswer]], sides: Sides
) -> None:
    """Cases in their first stage: whoever has decided an item is not asked about it again."""
    openings = []
    for i, before in items:
        forbidden = sides.old.policy.forbidden(i.confirmed or before.worst.class_name)
        openings.append(
            Opening(
                item_id=i.item_id,
                batch_id=i.batch_id,
                image_id=i.image_id,
                policy_id=i.policy_id,
                class_name=forbidden.name,
                severity=forbidden.severity,
                margin=before.of(forbidden.name).margin - threshold_margin(forbidden),
            )
        )
    about = {"activation": work.id, "policy": sides.new.policy.digest}
    ledger.append(
        session, [Entry(Event.REOPENED, ACTOR, i.item_id, i.batch_id, about) for i, _ in items]
    )
    open_cases(session, openings, ACTOR)
