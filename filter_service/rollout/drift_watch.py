"""Watches live margins and flagged shares for drift, class by class, a little at each run.

The test's state lies in a row for each class of a version and each encoder. One transaction looks
at the next images in the order of their ids, so that a run may end anywhere, and no image counts
twice. A new version or encoder has rows of its own and so starts anew; an alarm is given once and
stands until then, or until somebody accepts what comes now as the new reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import numpy as np
from sqlalchemy import func, text
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.drift import (
    BLOCK,
    FALSE_ALARMS,
    MONTH,
    ClassDriftTest,
    DriftMonitor,
    ShareMonitor,
    class_drift_test,
    part,
)
from filter_service.calibration.standing_estimates import judging_versions
from filter_service.db.policies import load_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredEncoder, StoredWatch
from filter_service.policy import ForbiddenClass
from filter_service.reviews import tallies
from filter_service.rollout.drift_alarms import DriftAlarm, tell
from filter_service.verdicts import threshold_margin

LEAST = 1_000  # margins of a reference: with fewer it would doubt too much
COUNTED = 50_000  # images before, of which the flagged are counted
STEP = 100 * BLOCK  # images looked at in one transaction
CALM = 20.0  # mean evidence below which nothing speaks for a change
WAIT = timedelta(hours=1)  # that the next image may be judged late


@dataclass(frozen=True, slots=True)
class WatchedClass:
    """One class of a version in one encoder, with everything that its test is made of."""

    policy: str
    digest: str
    encoder_id: int
    encoder: str  # its fingerprint
    class_id: int
    forbidden: ForbiddenClass
    same: tuple[int, ...]  # this class in all versions that give the same margins
    classes: int  # that are watched of the version

    @property
    def key(self) -> tuple[int, int]:
        return self.encoder_id, self.class_id

    @property
    def threshold(self) -> float:
        """Logits."""
        return threshold_margin(self.forbidden)


def watch(sessions: Sessions, stop: Callable[[], bool] = lambda: False) -> int:
    """Look at what was judged since the last time; how many alarms there are newly."""
    month = max(MONTH, 2 * sum(tallies.judged_by_day(sessions, tallies.DAYS).values()))
    with sessions.begin() as session:
        classes = [c for c in _classes(session) if _begun(session, c, month)]
    alarms = 0
    for watched in classes:
        went_on = True
        while went_on and not stop():
            with sessions.begin() as session:
                went_on, alarmed = _step(session, watched)
            alarms += alarmed
    return alarms


def _classes(session: Session) -> list[WatchedClass]:
    """What judges now, but for restricted classes."""
    found = []
    for version in judging_versions(session):
        known = load_policy(session, version.policy_id)
        encoder = session.get_one(StoredEncoder, version.encoder_id)
        seen = [c for c in known.policy.classes if c.sealed is None]
        versions = labels.versions_of(session, version.name)
        for c in seen:
            same = labels.same_words(session, version.policy_id, c.name, versions=versions)
            where = (known.policy.name, known.policy.digest, encoder.id, encoder.fingerprint)
            found.append(WatchedClass(*where, known.class_ids[c.name], c, tuple(same), len(seen)))
    return found


def _begun(session: Session, watched: WatchedClass, month: int) -> bool:
    """Begin with a class as soon as there is enough to compare with; whether it is watched.

    `month`: so many images may come in one, for which the chance of a false alarm is stated.
    """
    row = session.get(StoredWatch, watched.key, with_for_update=True)
    if row is not None and row.reference:
        return True
    start = _latest(session) if row is not None else _fitted_until(session, watched)
    start = start if start is not None else _latest(session)
    before = _margins(session, watched, start)
    if len(before) < LEAST:
        return False
    test = class_drift_test(before, watched.threshold, watched.classes, month)
    if row is not None:
        session.delete(row)
        session.flush()
    session.add(
        StoredWatch(
            encoder_id=watched.encoder_id,
            class_id=watched.class_id,
            reference=test.margins.reference.round(2).tolist(),  # none names its image
            flagged=test.shares.flagged,
            flagged_of=test.shares.of,
            month=month,
            reached=start,
            calm=start,
            margin_evidence=test.margins.evidence.tolist(),
            share_evidence=test.shares.evidence.tolist(),
        )
    )
    return True


def _latest(session: Session) -> int:
    return session.scalar(text("SELECT max(id) FROM images")) or 0


def _fitted_until(session: Session, watched: WatchedClass) -> int | None:
    """The last image of the day until which the calibration was fitted; None: now."""
    origin = watched.forbidden.calibration and watched.forbidden.calibration.origin
    if not origin or origin.encoder != watched.encoder:
        return None
    end = datetime.combine(origin.until, time.min, UTC) + timedelta(days=1)
    asked = {"encoder": watched.encoder_id, "classes": list(watched.same), "end": end, "limit": 1}
    start = session.scalar(_LAST_BEFORE, asked)
    return start if start and len(_margins(session, watched, start)) >= LEAST else None


def _margins(session: Session, watched: WatchedClass, until: int) -> np.ndarray:
    """Of the newest images up to one, the newest first: (n,) logits."""
    asked = {"encoder": watched.encoder_id, "classes": list(watched.same), "until": until}
    rows = session.execute(_BEFORE, asked | {"limit": COUNTED})
    return np.array([margin for _, margin in rows], np.float64)


def _step(session: Session, watched: WatchedClass) -> tuple[bool, bool]:
    """Look at the next images; whether there may be more, and whether there is an alarm newly."""
    row = session.get(StoredWatch, watched.key, with_for_update={"skip_locked": True})
    if row is None or row.alarmed_at is not None or not row.reference:
        return False, False
    found = _next(session, watched, row.reached)
    usable = found[: len(found) // BLOCK * BLOCK]
    test = _test(row, watched)
    for start in range(0, len(usable), BLOCK):
        _look(row, test, usable[start : start + BLOCK])
        if moved := test.moved:
            _alarm(session, row, watched, moved)
            return False, True
    row.looked_at = func.now()
    return len(found) == STEP, False


def _next(session: Session, watched: WatchedClass, after: int) -> Sequence[tuple[int, float]]:
    """Images and their margins, none of which an image that still waits will precede."""
    asked = {"encoder": watched.encoder_id, "classes": list(watched.same), "after": after}
    rows = session.execute(_STREAM, asked | {"limit": STEP, "wait": WAIT})
    return [(image, margin) for image, margin in rows]


def _test(row: StoredWatch, watched: WatchedClass) -> ClassDriftTest:
    rate = (part(watched.classes), row.month)
    of_margins, of_shares = np.array(row.margin_evidence), np.array(row.share_evidence)
    return ClassDriftTest(
        DriftMonitor(of_margins, *rate, reference=np.array(row.reference)),
        ShareMonitor(of_shares, *rate, flagged=row.flagged, of=row.flagged_of),
        watched.threshold,
    )


def _look(row: StoredWatch, test: ClassDriftTest, block: Sequence[tuple[int, float]]) -> None:
    """Let both tests bet on one block, and keep how far they came."""
    margins = np.array([margin for _, margin in block])
    test.update(margins)
    row.reached, row.seen = block[-1][0], row.seen + len(block)
    row.margin_evidence = test.margins.evidence.tolist()
    row.share_evidence = test.shares.evidence.tolist()
    if test.evidence < CALM:
        row.calm, row.since_seen, row.since_total, row.since_flagged = row.reached, 0, 0.0, 0
        return
    row.since_seen += len(block)
    row.since_total += float(margins.sum())
    row.since_flagged += int((margins >= test.threshold).sum())


def _alarm(session: Session, row: StoredWatch, watched: WatchedClass, moved: list[str]) -> None:
    reference = np.array(row.reference)
    alarm = DriftAlarm(
        policy=watched.policy,
        version=watched.digest,
        class_name=watched.forbidden.name,
        encoder=watched.encoder,
        moved=moved,
        since=session.execute(_TIME, {"image": row.calm}).scalar_one() or row.started_at,
        images=row.since_seen,
        margin_before=float(reference.mean()),
        margin_now=row.since_total / row.since_seen,
        spread=float(reference.std()),
        share_before=row.flagged / row.flagged_of,
        share_now=row.since_flagged / row.since_seen,
        false_alarms=FALSE_ALARMS,
    )
    row.alarmed_at = row.looked_at = func.now()
    row.alarm = alarm.document()
    tell(session, alarm)


# Several versions with the same words give an image the same margin: it counts once. Each class is
# read from the index by itself, as far as is wanted: together they would be sorted whole.
_SCORES = """
    unnest(CAST(:classes AS integer[])) AS class (id) CROSS JOIN LATERAL (
        SELECT image_id, margin FROM scores s {joined}
        WHERE encoder_id = :encoder AND class_id = class.id AND {among}
          AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = s.image_id)
        ORDER BY image_id {order} LIMIT :limit
    ) found
"""
_NEWEST = _SCORES.format(joined="", among="image_id <= :until", order="DESC")
_OLDER = _SCORES.format(
    joined="JOIN images i ON i.id = s.image_id", among="i.created_at < :end", order="DESC"
)
_NEXT = _SCORES.format(joined="", among="image_id > :after", order="ASC")
_BEFORE = text(f"""
    SELECT DISTINCT ON (image_id) image_id, margin FROM {_NEWEST}
    ORDER BY image_id DESC LIMIT :limit
""")
_LAST_BEFORE = text(f"SELECT max(image_id) FROM {_OLDER}")
# What waits and was never scored will get its margin soon, and is waited for.
_STREAM = text(f"""
    WITH waiting AS (
        SELECT min(i.image_id) AS first FROM queue q JOIN items i ON i.id = q.item_id
        WHERE i.image_id > :after AND q.queued_at > now() - CAST(:wait AS interval)
          AND NOT EXISTS (
            SELECT FROM scores s WHERE s.encoder_id = :encoder AND s.class_id = ANY(:classes)
                AND s.image_id = i.image_id)
    )
    SELECT DISTINCT ON (image_id) image_id, margin FROM {_NEXT}
    WHERE image_id < coalesce((SELECT first FROM waiting), 9223372036854775807)
    ORDER BY image_id LIMIT :limit
""")
# When the next image after this one was judged.
_TIME = text("""
    SELECT min(judged_at) FROM items WHERE image_id = (
        SELECT min(image_id) FROM items WHERE image_id > :image AND judged_at IS NOT NULL
    )
""")
