"""Counts what section 1.6 of a transparency report asks for, in SQL, by system."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from filter_service.audit.transparency.dsa_template import FLAGGERS, NOTIFIED, OWN, TOTAL
from filter_service.audit.transparency.period_counts import Period
from filter_service.calibration.estimates import (
    LEAST_POSITIVES,
    Estimate,
    WeightedCount,
    share,
    sum_of,
    total,
)


@dataclass(frozen=True, slots=True)
class ReviewedGroup:
    """Items of one system with the same verdict and the same answer of people."""

    verdict: str
    decision: str | None  # None: nobody has decided, or a list
    chance: float | None  # with which it was drawn for review; None: it was not drawn
    count: int
    acted: bool = False  # a flag that acted by itself


@dataclass(frozen=True, slots=True)
class SystemAudit:
    """A policy with an encoder, what it judged in a period, and what people said of it."""

    policy: str
    encoder: str
    fingerprint: str
    versions: int  # of the policy
    groups: Sequence[ReviewedGroup]

    @property
    def name(self) -> str:
        encoder = self.encoder.replace(". ", " ")  # the name ends with a full stop in the file
        return f"policy {self.policy}, encoder {encoder} {self.fingerprint[:12]}"

    @property
    def acts(self) -> bool:
        """Some flags acted by themselves."""
        return any(g.acted for g in self.groups)

    def number(self, verdict: str, *, reviewed: bool = False) -> int:
        """Items with a verdict; those only of which people's answer counts."""
        return sum(
            g.count
            for g in self.groups
            if g.verdict == verdict and not (reviewed and not _counts(g))
        )

    def metrics(self) -> tuple[Estimate, Estimate, Estimate]:
        """Accuracy, precision and recall, each with a 90 % interval."""
        right, wrong = self._sums("flagged")
        kept, missed = self._sums("clear")
        seen = {v: self.number(v, reviewed=True) for v in ("flagged", "clear")}
        positives = sum(
            g.count
            for g in self.groups
            if _counts(g) and (g.verdict == "flagged") == (g.decision == "confirmed")
        )
        if positives < LEAST_POSITIVES:
            none = _none(
                f"people found {positives} forbidden pictures among those reviewed, and "
                f"{LEAST_POSITIVES} are the least for an estimate"
            )
            return none, none, none
        if self.acts and not any(g.acted and _counts(g) for g in self.groups):
            none = _none("no flag that acted by itself and was drawn at random has been reviewed")
            return none, none, none
        precision = _share(right, wrong, seen["flagged"])
        if not seen["clear"]:
            none = _none("no clear item that was drawn at random has been reviewed")
            return none, precision, none
        both = seen["flagged"] + seen["clear"]
        accuracy = _share(total(right, kept), total(wrong, missed), both)
        return accuracy, precision, _share(right, missed, both)

    def _sums(self, verdict: str) -> tuple[WeightedCount, WeightedCount]:
        """How many were confirmed and overturned, made up to all items of the verdict."""
        of_verdict = [g for g in self.groups if g.verdict == verdict]
        weights, confirmed = [], []
        for acted in (False, True):
            alike = [g for g in of_verdict if g.acted is acted]
            mine = [g for g in alike if _counts(g)]
            counts = [g.count for g in mine]
            each = np.repeat(np.array([1 / (g.chance or 1) for g in mine]), counts)  # (reviewed,)
            if len(each):
                each *= sum(g.count for g in alike) / each.sum()
            weights.append(each)
            said = np.array([g.decision == "confirmed" for g in mine], bool)
            confirmed.append(np.repeat(said, counts))
        w, right = np.concatenate(weights), np.concatenate(confirmed)
        return sum_of(w, right), sum_of(w, ~right)


def _counts(group: ReviewedGroup) -> bool:
    """A person has decided, about a flag that waited or about what was drawn with a known chance.

    Of the flags that acted by themselves those that were appealed stand for no others.
    """
    waited = group.verdict == "flagged" and not group.acted
    return group.decision is not None and (waited or group.chance is not None)


def _share(of: WeightedCount, rest: WeightedCount, seen: int) -> Estimate:
    if not of.value + rest.value:
        return _none("nothing was reviewed")
    return Estimate(*share(of, rest), seen)


def _none(why: str) -> Estimate:
    return Estimate(None, why_none=f"{why}.")


def audits(session: Session, period: Period) -> list[SystemAudit]:
    """Every system that judged in a period; nothing of images that are locked away."""
    during = {"since": period.since, "until": period.until}
    found: defaultdict[tuple[str, str, str, int], list[ReviewedGroup]] = defaultdict(list)
    for policy, encoder, fingerprint, versions, *group in session.execute(_AUDITS, during):
        found[policy, encoder, fingerprint.hex(), versions].append(ReviewedGroup(*group))
    return [SystemAudit(*system, groups) for system, groups in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class AutomationCounts:
    """Measures, or notices, of a period: by automated means alone, and where a person decided."""

    solely: int
    by_people: int


def measures(session: Session, period: Period) -> dict[str, AutomationCounts]:
    """Restrictions taken in a period, by scope: all, and those that no notice had asked for."""
    during = {"since": period.since, "until": period.until}
    solely, by_people, after_notice = session.execute(_MEASURES, during).one()
    return {
        TOTAL: AutomationCounts(solely, by_people),
        OWN: AutomationCounts(solely, by_people - after_notice),
    }


def notices(session: Session, period: Period) -> dict[str, AutomationCounts]:
    """Reports of users and trusted flaggers that were answered in a period, by scope.

    By automated means alone: what stood before, a decision or a list, answered at once.
    """
    during = {"since": period.since, "until": period.until}
    solely, by_people, of_flaggers, of_them_by_people = session.execute(_NOTICES, during).one()
    return {
        NOTIFIED: AutomationCounts(solely, by_people),
        FLAGGERS: AutomationCounts(of_flaggers, of_them_by_people),
    }


# What was judged anew since counts once, as it was judged last.
_AUDITS = text("""
    WITH judged AS (
        SELECT p.name, b.policy_id, i.encoder_id, CAST(i.verdict AS varchar) AS verdict,
            CASE WHEN o.review_id IS NOT NULL AND (i.verdict = 'flagged') = NOT o.sampled
                THEN o.decision END AS decision,
            CASE WHEN o.sampled OR i.fully_automated THEN o.chance END AS chance,
            i.fully_automated AS acted
        FROM items i JOIN batches b ON b.id = i.batch_id JOIN policies p ON p.id = b.policy_id
        LEFT JOIN review_outcomes o ON o.item_id = i.id
        WHERE i.judged_at >= :since AND i.judged_at < :until AND i.encoder_id IS NOT NULL
          AND i.verdict IN ('clear', 'flagged') AND i.list_entry_id IS NULL
          AND NOT EXISTS (SELECT FROM sealed_items s WHERE s.image_id = i.image_id)
          AND NOT EXISTS (
            SELECT FROM items anew WHERE anew.supersedes = i.id
                AND anew.verdict IN ('clear', 'flagged')
          )
    ), versions AS (
        SELECT name, encoder_id, count(DISTINCT policy_id) AS versions FROM judged GROUP BY 1, 2
    )
    SELECT j.name, e.name, e.fingerprint, v.versions, j.verdict, j.decision, j.chance,
        count(*), j.acted
    FROM judged j JOIN versions v USING (name, encoder_id) JOIN encoders e ON e.id = j.encoder_id
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 9 ORDER BY 1, 2, 3, 5, 6, 7, 9
""")
_MEASURES = text("""
    WITH restricting AS (
        SELECT i.image_id, i.verdict, i.judged_at, o.item_id, o.review_id, o.decision, o.sampled,
            o.at, i.fully_automated
                OR coalesce(p.document -> 'notices' ->> 'acts_on', 'decision') = 'flag' AS acts
        FROM items i JOIN batches b ON b.id = i.batch_id JOIN policies p ON p.id = b.policy_id
        LEFT JOIN review_outcomes o ON o.item_id = i.id
        WHERE (i.judged_at >= :since AND i.judged_at < :until OR o.at >= :since AND o.at < :until)
          AND NOT EXISTS (SELECT FROM sealed_items s WHERE s.image_id = i.image_id)
    )
    SELECT
        count(*) FILTER (WHERE verdict = 'flagged' AND judged_at >= :since AND judged_at < :until
            AND CASE WHEN item_id IS NOT NULL AND review_id IS NULL THEN decision = 'confirmed'
                ELSE acts END),
        count(*) FILTER (WHERE review_id IS NOT NULL AND at >= :since AND at < :until
            AND (decision = 'confirmed') <> sampled AND (sampled OR NOT acts)),
        count(*) FILTER (WHERE review_id IS NOT NULL AND at >= :since AND at < :until
            AND (decision = 'confirmed') <> sampled AND (sampled OR NOT acts)
            AND EXISTS (SELECT FROM reports r WHERE r.item_id = restricting.item_id
                AND r.review_id IS NOT NULL AND r.source <> 'own'))
    FROM restricting
""")
_NOTICES = text("""
    SELECT count(*) FILTER (WHERE r.review_id IS NULL),
        count(*) FILTER (WHERE r.review_id IS NOT NULL),
        count(*) FILTER (WHERE r.review_id IS NULL AND r.source = 'trusted_flagger'),
        count(*) FILTER (WHERE r.review_id IS NOT NULL AND r.source = 'trusted_flagger')
    FROM reports r JOIN items i ON i.id = r.item_id
    WHERE r.closed_at >= :since AND r.closed_at < :until
      AND r.source IN ('user', 'trusted_flagger')
      AND NOT EXISTS (SELECT FROM sealed_items s WHERE s.image_id = i.image_id)
""")
