"""Records verdicts, vectors and explanations of leased items, in one transaction."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, cast, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from filter_service import ledger
from filter_service.calibration import labels
from filter_service.canonical import canonical, text_digest
from filter_service.db.embeddings import keep_vectors, known_vectors
from filter_service.db.policies import KnownPolicy
from filter_service.db.tables import (
    Item,
    QueueEntry,
    StoredEncoder,
    StoredExplanation,
    StoredImage,
    StoredScore,
)
from filter_service.ledger import Entry, Event
from filter_service.moderation.disposition import (
    Disposition,
    JudgedItem,
    follow,
    rule,
    tell_undetermined,
)
from filter_service.reviews import restricted
from filter_service.reviews.hash_matching import ImageHashes, Matcher
from filter_service.reviews.restricted import RestrictedFlag
from filter_service.verdicts import KnownVectors, Verdict

# Two workers may have judged the same images: both lock them in the same order.
_HASHES = text("""
    WITH new AS (
        SELECT images.id, hashed.pdq
        FROM images JOIN unnest(:ids ::bigint[], :hashes ::text[]) AS hashed (id, pdq) USING (id)
        WHERE images.pdq IS NULL ORDER BY images.id FOR NO KEY UPDATE OF images
    )
    UPDATE images SET pdq = new.pdq::bit(256) FROM new WHERE images.id = new.id
""")


_EXTENTS = text("""
    WITH new AS (
        SELECT images.id, seen.width, seen.height, seen.time
        FROM images JOIN unnest(
            :ids ::bigint[], :widths ::int[], :heights ::int[], :times ::double precision[]
        ) AS seen (id, width, height, time) USING (id)
        WHERE (images.width, images.height, images.shown_time)
              IS DISTINCT FROM (seen.width, seen.height, seen.time)
        ORDER BY images.id FOR NO KEY UPDATE OF images
    )
    UPDATE images SET width = new.width, height = new.height, shown_time = new.time
    FROM new WHERE images.id = new.id
""")


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
        _keep_hashes(session, shown)
        _keep_extents(session, shown)
        _keep_vectors(session, shown, source)
        _keep_scores(session, shown, source)
        session.execute(update(Item), [_verdict(r, source) for r in rulings])
        _keep_explanations(session, shown, source)
        encoder = session.get_one(StoredEncoder, source.encoder_id).fingerprint
        ledger.append(session, (e for r in rulings for e in _entries(r, source, encoder)))
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
        .where(QueueEntry.item_id.in_(list(items)), QueueEntry.worker == worker)
        .order_by(QueueEntry.item_id)
        .with_for_update()
    )
    gone = delete(QueueEntry).where(QueueEntry.item_id.in_(mine)).returning(QueueEntry.item_id)
    return set(session.scalars(gone))


def _keep_hashes(session: Session, judged: Sequence[JudgedItem]) -> None:
    """The perceptual hash of every image that was decoded now and has none yet."""
    hashes = {j.image_id: j.outcome.pdq for j in judged if j.outcome.pdq is not None}
    if hashes:
        session.execute(_HASHES, {"ids": list(hashes), "hashes": list(hashes.values())})


def _keep_extents(session: Session, judged: Sequence[JudgedItem]) -> None:
    """Size and time of every image that was decoded now, so that its views are known next time."""
    decoded = {j.image_id: j.outcome for j in judged if j.outcome.vectors is not None}
    extents = {i: o.extent for i, o in decoded.items() if o.extent is not None}
    if extents:
        columns = {
            "ids": list(extents),
            "widths": [e.width for e in extents.values()],
            "heights": [e.height for e in extents.values()],
            "times": [e.time for e in extents.values()],
        }
        session.execute(_EXTENTS, columns)


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
    against = labels.decided_against(session, acting) if acting else set()
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
        StoredScore.frame: [score.view.frame for score in ordered],
        StoredScore.view: [score.view.name for score in ordered],
        StoredScore.exact: [score.exact for score in ordered],
    }
    # Columns as arrays: there are as many rows as items times classes, each only some numbers.
    rows = select(*(func.unnest(cast(v, ARRAY(c.type))) for c, v in columns.items()))
    new = upsert(StoredScore).from_select([c.key for c in columns], rows)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["encoder_id", "class_id", "image_id"],
            set_={name: new.excluded[name] for name in ("margin", "frame", "view", "exact")},
            where=~StoredScore.exact & new.excluded.exact,
        )
    )


def _verdict(ruling: Disposition, source: ClassifierIdentity) -> dict[str, Any]:
    outcome, score = ruling.judged.outcome, ruling.score
    undetermined = ruling.verdict is Verdict.UNDETERMINED
    return {
        "id": ruling.judged.item_id,
        "verdict": ruling.verdict,
        "reason": outcome.reason or "no reason was given" if undetermined else None,
        "judged_at": datetime.now(UTC),
        "encoder_id": source.encoder_id if outcome.scores else None,
        "class_id": ruling.class_name and source.policy.class_ids[ruling.class_name],
        "margin": score and score.margin,
        "probability": score and score.probability,
        "list_entry_id": ruling.entry and ruling.entry.entry_id,
        "seen_pixels": outcome.seen and outcome.seen.pixels,
        "seen_time": outcome.seen and outcome.seen.time,
        "fully_automated": ruling.acts,
    }


def _keep_explanations(
    session: Session, judged: Sequence[JudgedItem], source: ClassifierIdentity
) -> None:
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


def _entries(ruling: Disposition, source: ClassifierIdentity, encoder: str) -> Iterator[Entry]:
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
        "encoder": encoder,
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
            "encoder": encoder,
            "faithful": explanation.faithful,
            "record": text_digest(record),
        }
        yield Entry(Event.EXPLAINED, *about, explained)
