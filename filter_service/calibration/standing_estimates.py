"""Estimates for the policies and the encoder that judge now, from the newest labels."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.estimates import ClassEstimates, class_estimates
from filter_service.db.policies import load_policy
from filter_service.db.session import Sessions
from filter_service.verdicts import threshold_margin

NEWEST = 1_000  # labels of a class: 7 ms each time the overview is opened


@dataclass(frozen=True, slots=True)
class StandingEstimates:
    """How right one class of a policy is at its threshold."""

    policy: str
    class_name: str
    labels: int  # with a known chance
    estimates: ClassEstimates


def standing_estimates(
    sessions: Sessions, classes: Collection[str] | None = None
) -> list[StandingEstimates]:
    """Of every class that has labels, by policy and name; of these classes only, None: of all.

    Nothing of restricted classes.
    """
    with sessions.begin() as session:
        known = set(session.scalars(_LABELLED_CLASSES))
        wanted = known if classes is None else known & set(classes)
        judging = session.execute(_JUDGING).all() if wanted else []
        return [
            one
            for name, policy_id, encoder_id in judging
            for one in _of_policy(session, name, policy_id, encoder_id, wanted)
        ]


def _of_policy(
    session: Session, name: str, policy_id: int, encoder_id: int, wanted: Collection[str]
) -> Iterator[StandingEstimates]:
    policy = load_policy(session, policy_id).policy
    versions = labels.versions_of(session, name)
    for forbidden in policy.classes:
        if forbidden.name not in wanted or forbidden.sealed is not None:
            continue
        found = labels.of_class(
            session, policy_id, forbidden.name, encoder_id, limit=NEWEST, versions=versions
        ).labelled.drawn()
        if len(found):
            threshold = threshold_margin(forbidden)
            estimates = class_estimates(found.margins, found.truths, found.chances, threshold)
            yield StandingEstimates(name, forbidden.name, len(found), estimates)


# Of each policy the version that judged last, with its encoder.
_JUDGING = text("""
    WITH recent AS (
        SELECT i.id, i.encoder_id, b.policy_id FROM items i JOIN batches b ON b.id = i.batch_id
        WHERE i.encoder_id IS NOT NULL ORDER BY i.id DESC LIMIT 500
    )
    SELECT DISTINCT ON (p.name) p.name, r.policy_id, r.encoder_id
    FROM recent r JOIN policies p ON p.id = r.policy_id ORDER BY p.name, r.id DESC
""")
# One look into the index for each class, however many labels it has.
_LABELLED_CLASSES = text("""
    WITH RECURSIVE found (name) AS (
        SELECT min(class_name) FROM labels
        UNION ALL
        SELECT (SELECT min(class_name) FROM labels WHERE class_name > name) FROM found
        WHERE name IS NOT NULL
    )
    SELECT name FROM found WHERE name IS NOT NULL
""")
