"""How often each reviewer agreed with what stood in the end, from second looks."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from filter_service.calibration.intervals import Interval, wilson
from filter_service.db.session import Sessions
from filter_service.verdicts import Z_90


@dataclass(frozen=True, slots=True)
class ReviewerAgreement:
    """Decisions of one person about items that somebody else decided, too."""

    login: str
    agreed: int
    looked_at_twice: int

    @property
    def share(self) -> Interval | None:
        """With a 90 % interval; None where nothing was looked at twice."""
        return wilson(self.agreed, self.looked_at_twice, Z_90)


def agreement(
    sessions: Sessions,
    since: datetime | None = None,
    until: datetime | None = None,
    classes: Collection[str] | None = None,
) -> list[ReviewerAgreement]:
    """By person, of decisions made in a period; only items that were drawn for a second look.

    Of these classes only; None: of all.
    Escalations and appeals are left out: they come from doubt, so that they say less of the rest.
    """
    with sessions.begin() as session:
        wanted = None if classes is None else list(classes)
        during = {"since": since, "until": until, "classes": wanted}
        rows = session.execute(_AGREEMENT, during)
        return [ReviewerAgreement(*row) for row in rows]


_AGREEMENT = text("""
    SELECT p.login, count(*) FILTER (WHERE r.decision = o.decision), count(*)
    FROM reviews r JOIN people p ON p.id = r.person_id JOIN review_outcomes o USING (item_id)
    WHERE r.undone_at IS NULL AND r.settled_at IS NOT NULL AND r.stage IN ('first', 'second')
      AND r.decision IN ('confirmed', 'overturned') AND o.review_id IS NOT NULL
      AND (CAST(:since AS timestamptz) IS NULL OR r.decided_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR r.decided_at < :until)
      AND (CAST(:classes AS varchar[]) IS NULL OR o.class_name = ANY(:classes))
      AND EXISTS (
        SELECT FROM reviews other
        WHERE other.item_id = r.item_id AND other.stage = 'second' AND other.undone_at IS NULL
          AND other.settled_at IS NOT NULL AND other.decision IN ('confirmed', 'overturned')
      )
    GROUP BY p.login ORDER BY p.login
""")
