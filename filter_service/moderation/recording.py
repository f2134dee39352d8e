"""Writing down what was judged: one transaction, and only for items that are still ours."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, cast, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from filter_service import ledger
from filter_service.db.embeddings import keep_vectors
from filter_service.db.policies import KnownPolicy
from filter_service.db.tables import Item, Queued, StoredExplanation, StoredScore
from filter_service.ledger import Entry, Event
from filter_service.verdicts import KnownVectors, Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """An item with what came out for its image."""

    item_id: int
    batch_id: uuid.UUID
    image_id: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that becomes undetermined without having been judged."""

    item_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """Who judged: the worker that holds the leases, by which encoder and policy."""

    worker: uuid.UUID
    actor: str
    encoder_id: int
    policy: KnownPolicy


def record(session: Session, judged: Sequence[Judged], source: Source) -> int:
    """Write verdicts, vectors, scores, explanations and ledger entries; how many items.

    An item whose lease went to somebody else, or that was cancelled, is left out: whoever takes it
    off the queue is the one who records it, so its effect is there once.
    """
    mine = _take_off(session, [j.item_id for j in judged], source.worker)
    kept = [j for j in judged if j.item_id in mine]
    if kept:
        _keep_vectors(session, kept, source)
        _keep_scores(session, kept, source)
        session.execute(update(Item), [_verdict(j, source) for j in kept])
        _keep_explanations(session, kept, source)
        ledger.append(session, (e for j in kept for e in _entries(j, source)))
    return len(kept)


def fail(session: Session, failed: Sequence[Failed], actor: str) -> None:
    """Make items undetermined that the caller's transaction has locked in the queue."""
    if not failed:
        return
    reasons = {f.item_id: f.reason for f in failed}
    session.execute(delete(Queued).where(Queued.item_id.in_(reasons)))
    batches = dict(
        session.execute(select(Item.id, Item.batch_id).where(Item.id.in_(reasons))).all()
    )
    session.execute(
        update(Item),
        [{"id": i, **_undetermined(reason)} for i, reason in sorted(reasons.items())],
    )
    ledger.append(
        session,
        [Entry(Event.FAILED, actor, i, batches[i], {"reason": r}) for i, r in reasons.items()],
    )


def _take_off(session: Session, items: Iterable[int], worker: uuid.UUID) -> set[int]:
    mine = (
        select(Queued.item_id)
        .where(Queued.item_id.in_(list(items)), Queued.worker == worker)
        .order_by(Queued.item_id)
        .with_for_update()
    )
    gone = delete(Queued).where(Queued.item_id.in_(mine)).returning(Queued.item_id)
    return set(session.scalars(gone))


def _keep_vectors(session: Session, judged: Sequence[Judged], source: Source) -> None:
    vectors = {
        j.image_id: KnownVectors(o.vectors, o.frames, o.exact)
        for j in judged
        if (o := j.outcome).vectors is not None
    }
    keep_vectors(session, source.encoder_id, vectors)


def _keep_scores(session: Session, judged: Sequence[Judged], source: Source) -> None:
    """One score for each image and class; a float32 one replaces one from less."""
    scores = {
        (source.policy.class_ids[score.class_name], j.image_id): score
        for j in judged
        for score in j.outcome.scores
    }
    keys = sorted(scores)
    ordered = [scores[key] for key in keys]
    columns: dict[InstrumentedAttribute[Any], list[Any]] = {
        StoredScore.encoder_id: [source.encoder_id] * len(keys),
        StoredScore.class_id: [class_id for class_id, _ in keys],
        StoredScore.image_id: [image_id for _, image_id in keys],
        StoredScore.margin: [score.margin for score in ordered],
        StoredScore.frame: [score.frame for score in ordered],
        StoredScore.exact: [score.exact for score in ordered],
    }
    # Columns as arrays: there are as many rows as items times classes, each only some numbers.
    rows = select(*(func.unnest(cast(v, ARRAY(c.type))) for c, v in columns.items()))
    new = upsert(StoredScore).from_select([c.key for c in columns], rows)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["encoder_id", "class_id", "image_id"],
            set_={name: new.excluded[name] for name in ("margin", "frame", "exact")},
            where=~StoredScore.exact & new.excluded.exact,
        )
    )


def _verdict(judged: Judged, source: Source) -> dict[str, Any]:
    outcome = judged.outcome
    if outcome.verdict is Verdict.UNDETERMINED:
        return {"id": judged.item_id, **_undetermined(outcome.reason)}
    worst = outcome.worst
    return {
        "id": judged.item_id,
        "verdict": outcome.verdict,
        "judged_at": datetime.now(UTC),
        "encoder_id": source.encoder_id,
        "class_id": worst and source.policy.class_ids[worst.class_name],
        "margin": worst and worst.margin,
        "probability": worst and worst.probability,
    }


def _undetermined(reason: str | None) -> dict[str, Any]:
    return {
        "verdict": Verdict.UNDETERMINED,
        "reason": reason or "no reason was given",
        "judged_at": datetime.now(UTC),
    }


def _keep_explanations(session: Session, judged: Sequence[Judged], source: Source) -> None:
    rows = [
        {
            "item_id": j.item_id,
            "class_id": source.policy.class_ids[explanation.class_name],
            "encoder_id": source.encoder_id,
            "faithful": explanation.faithful,
            "record": explanation.model_dump(mode="json"),
        }
        for j in judged
        for explanation in j.outcome.explanations
    ]
    if rows:
        session.execute(insert(StoredExplanation), rows)


def _entries(judged: Judged, source: Source) -> Iterator[Entry]:
    outcome = judged.outcome
    about = (source.actor, judged.item_id, judged.batch_id)
    if outcome.verdict is Verdict.UNDETERMINED:
        yield Entry(Event.FAILED, *about, {"reason": outcome.reason})
        return
    worst = outcome.worst
    details = {
        "verdict": outcome.verdict,
        "digest": outcome.digest,
        "policy": source.policy.policy.digest,
        "encoder_id": source.encoder_id,
        "class": worst and worst.class_name,
        "margin": worst and worst.margin,
    }
    yield Entry(Event.JUDGED, *about, details)
    for explanation in outcome.explanations:
        faithful = explanation.faithful
        yield Entry(
            Event.EXPLAINED, *about, {"class": explanation.class_name, "faithful": faithful}
        )
