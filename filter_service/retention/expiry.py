"""Deletes what has expired under the retention rules: first the rows, then the bytes.

A pass walks the images from which anything can still be deleted and that are old enough for the
shortest rule, by the index `images_to_expire`; what is left of an image that has been through does
not come up again. So a pass costs what there is to decide about (some 60 microseconds to look at an
image, some milliseconds to delete of it) and not what was ever submitted; one that is cut short has
lost nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, VARCHAR, bindparam, cast, func, insert, select, text, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import LooseBytes, StoredImage
from filter_service.ledger import Entry, Event
from filter_service.retention.retention_rules import (
    EffectiveRetentionRule,
    RetainedPart,
    active_rules,
    winning,
)

ACTOR = "service"
AT_ONCE = 200  # images of one transaction

_AGED = text("""
    SELECT id FROM images
    WHERE id > :after AND created_at <= :before AND NOT parts_gone @> :ruled
        AND NOT parts_gone @> '{bytes,embeddings,explanations}'
    ORDER BY id LIMIT :limit
""").bindparams(bindparam("ruled", type_=ARRAY(VARCHAR)))

_UNSEALED = text("""
    SELECT DISTINCT image_id FROM sealed_items JOIN images ON images.id = image_id
    WHERE image_id > :after AND preserve_until <= now()
        AND NOT parts_gone @> '{bytes,embeddings,explanations}'
    ORDER BY image_id LIMIT :limit
""")

_LOCKED = text("""
    SELECT id, digest, parts_gone FROM images WHERE id = ANY (:images ::bigint[])
    ORDER BY id FOR UPDATE SKIP LOCKED
""")

_FACTS = text("""
    SELECT i.image_id, i.id, i.batch_id,
        CASE WHEN o.decision IS NOT NULL THEN o.class_name
             WHEN i.verdict = 'flagged' THEN c.name END,
        CASE WHEN o.decision IS NULL THEN i.verdict::varchar
             WHEN NOT o.sampled THEN o.decision
             WHEN o.decision = 'confirmed' THEN 'clear' ELSE 'confirmed' END,
        coalesce(
            greatest(i.judged_at, o.at, (SELECT max(closed_at) FROM appeals a
                                         WHERE a.item_id = i.id)),
            b.cancelled_at
        ),
        s.preserve_until,
        EXISTS (SELECT FROM queue q WHERE q.item_id = i.id)
        OR EXISTS (SELECT FROM review_cases r WHERE r.item_id = i.id)
        OR EXISTS (SELECT FROM appeals a WHERE a.item_id = i.id AND a.closed_at IS NULL)
        OR EXISTS (SELECT FROM legal_holds h WHERE h.item_id = i.id AND h.released_at IS NULL)
    FROM items i JOIN batches b ON b.id = i.batch_id
    LEFT JOIN review_outcomes o ON o.item_id = i.id
    LEFT JOIN policy_classes c ON c.id = i.class_id
    LEFT JOIN sealed_items s ON s.item_id = i.id
    WHERE i.image_id = ANY (:images ::bigint[])
    ORDER BY i.image_id, i.id
""")


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides how long an item's image is kept."""

    image_id: int
    item_id: int
    batch_id: UUID
    class_name: str | None  # that it was flagged or decided for
    outcome: str | None  # None: cancelled before it was judged
    last_at: datetime | None  # judged, decided, or its appeal closed; None: nothing happened yet
    preserve_until: datetime | None  # of a class that is sealed
    blocked: bool  # it is queued, waits for a decision, is appealed or held


Why = dict[RetainedPart, int | None]  # the rule for each part; None: its policy's time is over

Walk = Callable[[Session, int], list[int]]  # the images after this one


def expire(sessions: Sessions, stop: Callable[[], bool] = lambda: False) -> int:
    """One pass over everything whose time may be over; how many images something was deleted of."""
    with sessions.begin() as session:
        rules = active_rules(session)
    expired = 0
    for walk in (aged(rules), _unsealed):
        for images in pages(sessions, walk):
            if stop():
                return expired
            with sessions.begin() as session:
                over = [i for i, why in over_now(session, images, rules).items() if why]
            if over:
                with sessions.begin() as session:
                    expired += _expire(session, over, active_rules(session))
    return expired


def over(
    rules: Sequence[EffectiveRetentionRule], facts: Sequence[Facts], now: datetime
) -> dict[int, Why]:
    """Which parts of one image may go, and why, by item: only what may go for all of its items."""
    each = {f.item_id: _of_item(rules, f, now) for f in facts}
    common = [p for p in RetainedPart if each and all(p in why for why in each.values())]
    return {item: {p: why[p] for p in common} for item, why in each.items()} if common else {}


def _of_item(rules: Sequence[EffectiveRetentionRule], facts: Facts, now: datetime) -> Why:
    if facts.blocked or facts.last_at is None:
        return {}
    if facts.preserve_until is not None:
        return dict.fromkeys(RetainedPart) if facts.preserve_until <= now else {}
    return {
        part: rule.id
        for part, rule in winning(rules, facts.class_name, facts.outcome).items()
        if facts.last_at + timedelta(days=rule.days) <= now
    }


def aged(rules: Sequence[EffectiveRetentionRule]) -> Walk:
    """Images that are as old as the shortest rule and have a part left that some rule is about."""
    ruled = sorted({part.value for rule in rules for part in rule.parts})
    shortest = timedelta(days=min((rule.days for rule in rules), default=0))

    def walk(session: Session, after: int) -> list[int]:
        if not rules:
            return []
        before = func.now() - shortest
        values = {"after": after, "ruled": ruled, "limit": AT_ONCE}
        values["before"] = session.scalar(select(before))
        return list(session.scalars(_AGED, values))

    return walk


def _unsealed(session: Session, after: int) -> list[int]:
    return list(session.scalars(_UNSEALED, {"after": after, "limit": AT_ONCE}))


def pages(sessions: Sessions, walk: Walk) -> Iterator[list[int]]:
    after = 0
    while True:
        with sessions.begin() as session:
            images = walk(session, after)
        if not images:
            return
        yield images
        after = images[-1]


def over_now(
    session: Session, images: Sequence[int], rules: Sequence[EffectiveRetentionRule]
) -> dict[int, tuple[Sequence[Facts], dict[int, Why]]]:
    """Of which of these images something may go now."""
    now: datetime = session.execute(select(func.now())).scalar_one()
    rows = [Facts(*row) for row in session.execute(_FACTS, {"images": list(images)})]
    expired: dict[int, tuple[Sequence[Facts], dict[int, Why]]] = {}
    for image, group in groupby(rows, key=lambda f: f.image_id):
        facts = list(group)
        if why := over(rules, facts, now):
            expired[image] = facts, why
    return expired


def _expire(
    session: Session, images: Sequence[int], rules: Sequence[EffectiveRetentionRule]
) -> int:
    """Look again under locks, which nobody waits for: what is new refers to the image's row."""
    locked = {i: (d, g) for i, d, g in session.execute(_LOCKED, {"images": list(images)})}
    gone: dict[int, list[RetainedPart]] = {}
    entries: list[Entry] = []
    for image, (facts, why) in over_now(session, list(locked), rules).items():
        parts = [p for p in next(iter(why.values())) if p not in locked[image][1]]
        if parts:
            gone[image] = parts
            entries += (e for f in facts for e in _entries(f, why[f.item_id], parts))
    ledger.append(session, entries)
    for image, parts in gone.items():
        _forget(session, image, parts)
    loose = [locked[i][0] for i, parts in gone.items() if RetainedPart.BYTES in parts]
    if rows := [{"digest": d.hex(), "due_at": func.now()} for d in loose if d is not None]:
        session.execute(insert(LooseBytes).values(rows))
    return len(gone)


def _entries(
    facts: Facts, why: Mapping[RetainedPart, int | None], parts: Sequence[RetainedPart]
) -> list[Entry]:
    """One for each rule under which something of an item goes."""
    under: defaultdict[int | None, list[str]] = defaultdict(list)
    for part in parts:
        under[why[part]].append(part.value)
    about = (ACTOR, facts.item_id, facts.batch_id)
    return [
        Entry(Event.EXPIRED, *about, {"parts": names, "rule": rule})
        for rule, names in under.items()
    ]


def _forget(session: Session, image: int, parts: Sequence[RetainedPart]) -> None:
    values: dict[str, Any] = {
        "parts_gone": StoredImage.parts_gone.op("||")(cast(list(parts), ARRAY(VARCHAR)))
    }
    if RetainedPart.BYTES in parts:
        values["bytes_gone_at"] = func.now()
    if RetainedPart.EMBEDDINGS in parts:
        values["pdq"] = None
    session.execute(select(func.forget_image(image, cast(list(parts), ARRAY(VARCHAR)))))
    session.execute(update(StoredImage).where(StoredImage.id == image).values(values))
