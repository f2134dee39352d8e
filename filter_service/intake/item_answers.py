"""Reads items with what became of them: for answers about them, and for result manifests."""

import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from filter_service.accounts import clients
from filter_service.accounts.callers import Caller
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Client,
    Item,
    PolicyClass,
    ReviewOutcome,
    StoredEncoder,
    StoredExplanation,
    StoredImage,
)
from filter_service.db.unjudged import UnjudgedReason, unjudged
from filter_service.intake.batches import BatchRow
from filter_service.intake.item_lists import CHUNK
from filter_service.intake.manifests import Label, ManifestResult
from filter_service.reviews.row_access import answered
from filter_service.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class ItemState:
    """An item, and what became of it so far."""

    item: Item
    digest: str | None
    class_name: str | None
    decision: str | None
    decided_at: datetime | None
    why: str | None  # without a verdict: an `UnjudgedReason`

    @property
    def unjudged(self) -> UnjudgedReason | None:
        return UnjudgedReason(self.why) if self.why else None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """An item that could not be judged."""

    item: Item
    batch: Batch
    client: str

    @property
    def can_retry(self) -> bool:
        return self.item.image_id is not None and self.batch.cancelled_at is None


def states_in(
    session: Session,
    caller: Caller,
    batch: uuid.UUID,
    verdict: Verdict | None,
    after: int,
    limit: int,
) -> list[ItemState]:
    """The items of a batch that somebody is told of, from above an id on."""
    query = _states().where(Item.batch_id == batch, answered(caller), Item.id > after)
    if verdict is not None:
        query = query.where(Item.verdict == verdict)
    return [ItemState(*row) for row in session.execute(query.order_by(Item.id).limit(limit))]


def state_of(session: Session, item_id: int) -> ItemState:
    """An item that is known to be there."""
    return ItemState(*session.execute(_states().where(Item.id == item_id)).one())


def undetermined(
    sessions: Sessions, client: str, before: int | None, limit: int
) -> list[FailureRow]:
    """Items that could not be judged, of one client if it is named, the newest first.

    Raises UnknownEntry for a client that there is not.
    """
    query = (
        select(Item, Batch, Client.name)
        .join(Batch, Batch.id == Item.batch_id)
        .join(Client, Client.id == Item.client_id)
        .where(Item.verdict == Verdict.UNDETERMINED)
        .order_by(Item.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Item.id < before)
    with sessions.begin() as session:
        if client:
            query = query.where(Item.client_id == clients.named(session, client).id)
        return [FailureRow(*row) for row in session.execute(query)]


def results(sessions: Sessions, caller: Caller, of: BatchRow) -> Iterator[ManifestResult]:
    """A batch's lines, some hundred items at a time, each time in a transaction of its own."""
    after, columns = 0, (Item, StoredImage.digest, PolicyClass.name, StoredEncoder.name)
    query = (
        select(*columns, ReviewOutcome.decision, unjudged())
        .outerjoin(StoredImage, StoredImage.id == Item.image_id)
        .outerjoin(PolicyClass, PolicyClass.id == Item.class_id)
        .outerjoin(StoredEncoder, StoredEncoder.id == Item.encoder_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == Item.id)
        .where(Item.batch_id == of.batch.id, answered(caller))
        .order_by(Item.id)
        .limit(CHUNK)
    )
    while True:
        with sessions.begin() as session:
            rows = session.execute(query.where(Item.id > after)).all()
            flagged = [i.id for i, *_ in rows if i.verdict is Verdict.FLAGGED]
            labels = _labels(session, flagged)
        for found, digest, worst, encoder, decision, why in rows:
            yield ManifestResult(
                item=found.id,
                source=found.source,
                digest=digest,
                verdict=found.verdict,
                unjudged=UnjudgedReason(why) if why else None,
                reason=found.reason,
                labels=labels.get(found.id) or _worst(found, worst),
                encoder=encoder,
                policy=of.policy,
                policy_digest=of.digest,
                judged_at=found.judged_at,
                review=decision,
                fully_automated=found.fully_automated,
            )
        if len(rows) < CHUNK:
            return
        after = rows[-1][0].id


def _states() -> Select[Item, str | None, str, str, datetime, str | None]:
    """Rows of `ItemState`."""
    columns = (Item, StoredImage.digest, PolicyClass.name, ReviewOutcome.decision, ReviewOutcome.at)
    return (
        select(*columns, unjudged())
        .outerjoin(StoredImage, StoredImage.id == Item.image_id)
        .outerjoin(PolicyClass, PolicyClass.id == Item.class_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == Item.id)
    )


def _labels(session: Session, items: list[int]) -> dict[int, list[Label]]:
    """Every class that each item was flagged for."""
    probability = StoredExplanation.record["probability"].as_float()
    rows = session.execute(
        select(StoredExplanation.item_id, PolicyClass.name, probability)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(StoredExplanation.item_id.in_(items))
        .order_by(StoredExplanation.item_id, probability.desc())
    )
    found: dict[int, list[Label]] = defaultdict(list)
    for item_id, name, share in rows:
        found[item_id].append(Label(name, share or 0.0))
    return found


def _worst(item: Item, class_name: str | None) -> list[Label]:
    """What a list flagged has no explanation."""
    if item.verdict is not Verdict.FLAGGED or class_name is None:
        return []
    return [Label(class_name, 1.0 if item.probability is None else item.probability)]
