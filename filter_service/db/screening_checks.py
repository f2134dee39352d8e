"""Stores the running check of screening, shared by all workers of an encoder."""

from datetime import timedelta
from typing import Protocol

from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import StoredCheck, StoredEncoder

# An alarm keeps the band wide for so long after it; if the fast pass is still not the one that was
# measured by then, the next pair says so again.
KEPT = timedelta(days=7)


class ScreeningPairs(Protocol):
    """What `encoder.screening_check.MarginPairs` has, which is not imported here."""

    @property
    def count(self) -> int: ...
    @property
    def outside(self) -> int: ...
    @property
    def furthest(self) -> float: ...
    @property
    def total(self) -> float: ...
    @property
    def alarms(self) -> int: ...


def keep_pairs(
    sessions: Sessions, encoder_id: int, pairs: ScreeningPairs, widening: float
) -> float:
    """Add what one worker saw; how many times the measured band has to be, after all of them."""
    with sessions.begin() as session:
        session.execute(_added(encoder_id, pairs, widening))
        return widening_of(session, encoder_id)


def stored_checks(session: Session) -> list[tuple[StoredCheck, str, str]]:
    """What is known of each encoder's fast pass, with the encoder's name and fingerprint."""
    query = select(StoredCheck, StoredEncoder.name, StoredEncoder.fingerprint).join(
        StoredEncoder, StoredEncoder.id == StoredCheck.encoder_id
    )
    return [(check, name, fingerprint) for check, name, fingerprint in session.execute(query)]


def widening_of(session: Session, encoder_id: int) -> float:
    """What the measured band is to be multiplied by: 1 without an alarm of late."""
    recent = StoredCheck.alarmed_at > func.now() - KEPT
    found = select(StoredCheck.widening).where(StoredCheck.encoder_id == encoder_id, recent)
    return session.scalar(found) or 1.0


def _added(encoder_id: int, pairs: ScreeningPairs, widening: float) -> Insert:
    finite = min(pairs.furthest, 1e6), min(pairs.total, 1e6 * pairs.count)
    now = func.now() if pairs.alarms else None
    new = insert(StoredCheck).values(
        encoder_id=encoder_id,
        pairs=pairs.count,
        outside=pairs.outside,
        furthest=finite[0],
        total=finite[1],
        alarms=pairs.alarms,
        widening=widening,
        alarmed_at=now,
    )
    old, more = StoredCheck, new.excluded
    before = case((old.alarmed_at > func.now() - KEPT, old.widening), else_=1.0)
    return new.on_conflict_do_update(
        index_elements=["encoder_id"],
        set_={
            "pairs": old.pairs + more.pairs,
            "outside": old.outside + more.outside,
            "furthest": func.greatest(old.furthest, more.furthest),
            "total": old.total + more.total,
            "alarms": old.alarms + more.alarms,
            "widening": func.greatest(before, more.widening),
            "alarmed_at": func.coalesce(more.alarmed_at, old.alarmed_at),
        },
    )
