"""Records verdicts, vectors and explanations of leased items, in one transaction."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.calibration import labels
from filter_service.canonical import canonical, text_digest
from filter_service.db.arrays import one_of
from filter_service.db.embeddings import keep_vectors, known_vectors
from filter_service.db.policies import KnownPolicy
from filter_service.db.scores import keep_scores
from filter_service.db.tables import Item, QueueEntry, StoredImage
from filter_service.ledger import Entry, Event
from filter_service.moderation.disposition import (
    Disposition,
    JudgedItem,
    follow,
    rule,
    tell_undetermined,
)
from filter_service.moderation.result_rows import (
    keep_explanations,
    keep_seen,
    write_verdicts,
)
from filter_service.reviews import restricted
from filter_service.reviews.hash_matching import ImageHashes, Matcher
from filter_service.reviews.restricted import RestrictedFlag
from filter_service.verdicts import KnownVectors, Verdict


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item that becomes undetermined without having been judged."""

    item_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class ClassifierIdentity:
    """Who judged: the worker that holds the leases, by which encoder and policy."""

    worker: uuid.UUID
    actor: str
    matcher: Matcher
    fingerprint: str  # of the encoder
    policy_id: int
    policy: KnownPolicy

    @property
    def encoder_id(self) -> int:
        return self.matcher.encoder_id


def record(session: Session, judged: Sequence[JudgedItem], source: ClassifierIdentity) -> int:
    """Write verdicts, vectors, scores, explanations, and all that follows; how many items.

    An item whose lease went to somebody else, or that was cancelled, is left out: whoever takes it
    off the queue is the one who records it, so its effect is there once.
    """
    mine = _take_off(session, [j.item_id for j in judged], source.worker)
    kept = [j for j in judged if j.item_id in mine]
    if kept:
        rulings = _hidden(session, _rulings(session, kept, source))
        rulings = _held_back(session, rulings)
        shown = [r.judged for r in rulings if not r.hidden]
        keep_seen(session, shown)
        _keep_vectors(session, shown, source)
        _keep_scores(session, shown, source)
        write_verdicts(session, rulings, source.encoder_id, source.policy)
        keep_explanations(session, shown, source.encoder_id, source.policy)
        ledger.append(session, (e for r in rulings for e in _entries(r, source)))
        restricted.lock_away(session, _restricted_flags(rulings), source.actor)
        follow(session, rulings, source.policy.policy, source.policy_id, source.actor)
    return len(kept)


def fail(session: Session, failed: Sequence[FailedItem], actor: str) -> None:
    """Make items undetermined that the caller's transaction has locked in the queue."""
    if not failed:
        return
    reasons = {f.item_id: f.reason for f in failed}
    session.execute(delete(QueueEntry).where(QueueEntry.item_id.in_(reasons)))
    found = select(Item.id, Item.batch_id, Item.source).where(Item.id.in_(reasons))
    items = session.execute(found.order_by(Item.id)).all()
    session.execute(
        update(Item),
        [
            {
                "id": i,
                "verdict": Verdict.UNDETERMINED,
                "reason": reason,
                "judged_at": datetime.now(UTC),
            }
            for i, reason in sorted(reasons.items())
        ],
    )
    ledger.append(
        session,
        [Entry(Event.FAILED, actor, i, batch, {"reason": reasons[i]}) for i, batch, _ in items],
    )
    tell_undetermined(session, [(i, batch, name, reasons[i]) for i, batch, name in items])


def _take_off(session: Session, items: Iterable[int], worker: uuid.UUID) -> set[int]:
    mine = (
        select(QueueEntry.item_id)
        .where(one_of(QueueEntry.item_id, items), QueueEntry.worker == worker)
        .order_by(QueueEntry.item_id)
        .with_for_update()
    )
    gone = delete(QueueEntry).where(QueueEntry.item_id.in_(mine)).returning(QueueEntry.item_id)
    return set(session.scalars(gone).all())


def _rulings(
    session: Session, judged: Sequence[JudgedItem], source: ClassifierIdentity
) -> list[Disposition]:
    """What lists make of the items; what was not computed now is looked up, if it is asked for."""
    lists = source.matcher.lists(session)
    hashes: dict[int, str | None] = {}
    vectors: dict[str, KnownVectors] = {}
    if lists.hashed:
        known = [j.image_id for j in judged if j.outcome.pdq is None]
        stored = select(StoredImage.id, StoredImage.pdq).where(StoredImage.id.in_(known))
        hashes = dict(session.execute(stored).all())
    if lists.placed:
        known = [j.image_id for j in judged if j.outcome.vectors is None]
        vectors = known_vectors(session, source.encoder_id, known)
    rulings = []
    for j in judged:
        o = j.outcome
        before = vectors.get(o.digest)
        seen = ImageHashes(
            digest=o.digest,
            pdq=o.pdq or hashes.get(j.image_id),
            vectors=before.vectors if o.vectors is None and before else o.vectors,
        )
        rulings.append(rule(j, lists.hits(seen), source.policy.policy))
    return rulings


def _hidden(session: Session, rulings: Sequence[Disposition]) -> list[Disposition]:
    """What is locked away keeps its verdict; whatever else was computed of it is dropped here."""
    closed = {r.judged.image_id for r in rulings if r.restricted is not None}
    locked = restricted.hold(session, closed, {r.judged.image_id for r in rulings} - closed)
    return [_bare(r) if r.judged.image_id in locked else r for r in rulings]


def _held_back(session: Session, rulings: Sequence[Disposition]) -> list[Disposition]:
    """A flag that people took back before, of the same image and class, waits for a person."""
    acting = {(r.judged.image_id, r.class_name) for r in rulings if r.acts}
    if not acting:
        return list(rulings)
    against = labels.decided_against(session, acting)
    return [
        replace(r, acts=r.acts and (r.judged.image_id, r.class_name) not in against)
        for r in rulings
    ]


def _bare(ruling: Disposition) -> Disposition:
    outcome = replace(ruling.judged.outcome, vectors=None, explanations=(), pdq=None)
    judged = replace(ruling.judged, outcome=outcome)
    return replace(ruling, judged=judged, hidden=True, acts=False)


def _restricted_flags(rulings: Sequence[Disposition]) -> list[RestrictedFlag]:
    return [
        RestrictedFlag(
            j.item_id, j.batch_id, j.image_id, r.restricted.name, r.restricted.sealed.days
        )
        for r in rulings
        if r.restricted is not None and r.restricted.sealed is not None
        for j in [r.judged]
    ]


def _keep_vectors(
    session: Session, judged: Sequence[JudgedItem], source: ClassifierIdentity
) -> None:
    vectors = {
        j.image_id: KnownVectors(o.vectors, o.views, o.exact)
        for j in judged
        if (o := j.outcome).vectors is not None
    }
    keep_vectors(session, source.encoder_id, vectors)


def _keep_scores(
    session: Session, judged: Sequence[JudgedItem], source: ClassifierIdentity
) -> None:
    scores = {
        (source.policy.class_ids[score.class_name], j.image_id): score
        for j in judged
        for score in j.outcome.scores
    }
    keep_scores(session, source.encoder_id, scores)


def _entries(ruling: Disposition, source: ClassifierIdentity) -> Iterator[Entry]:
    judged, outcome = ruling.judged, ruling.judged.outcome
    about = (source.actor, judged.item_id, judged.batch_id)
    if outcome.verdict is Verdict.UNDETERMINED:
        yield Entry(Event.FAILED, *about, {"reason": outcome.reason})
        return
    worst = outcome.worst
    details: dict[str, Any] = {
        "verdict": outcome.verdict,
        "digest": outcome.digest,
        "policy": source.policy.policy.digest,
        "encoder": source.fingerprint,
        "class": worst and worst.class_name,
        "margin": worst and worst.margin,
        "probability": worst and worst.probability,
        "flags": {s.class_name: s.margin for s in outcome.scores if s.flagged},
    }
    if certain := [s.class_name for s in outcome.scores if s.acts]:
        details |= {"certain": certain, "fully_automated": ruling.acts}
    if outcome.notes:
        details["notes"] = " ".join(outcome.notes)
    if outcome.seen is not None and outcome.seen.partial:
        details["seen"] = {"pixels": outcome.seen.pixels, "time": outcome.seen.time}
    yield Entry(Event.JUDGED, *about, details)
    for explanation in outcome.explanations:
        record = canonical(explanation.model_dump(mode="json"))  # as the database will hold it
        explained = {
            "class": explanation.class_name,
            "encoder": source.fingerprint,
            "faithful": explanation.faithful,
            "record": text_digest(record),
        }
        yield Entry(Event.EXPLAINED, *about, explained)
