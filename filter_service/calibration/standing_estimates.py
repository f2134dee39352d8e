"""Estimates for the policies and the encoder that judge now, kept in a table by a job.

Reading thousands of labels takes a page longer than it has: the job does so after new labels, and
whoever wants the figures reads a row of each class, with the time at which they were made.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from scipy.special import expit
from sqlalchemy import delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.estimates import ClassEstimates, class_estimates
from filter_service.calibration.kept_margins import ClassLabels
from filter_service.calibration.reliability import ProbabilityAgreement, probability_agreement
from filter_service.db.policies import KnownPolicy, load_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredEstimate, StoredLabel, StoredPolicy
from filter_service.policy import ForbiddenClass
from filter_service.verdicts import calibration_line, threshold_margin

ALL = 100_000  # labels of a class, the newest: some 50 MB while one class is read
STALE = timedelta(hours=1)  # after which figures are made anew without a new label, too

METHOD = (
    "Of the version of each policy and the encoder that judged last, from images that people "
    "reviewed, each weighted by the inverse of the chance with which it came to be reviewed "
    "(Horvitz and Thompson); 90 % intervals for rare events within strata of like weights "
    "(Wilson), joined by their variances (Zou and Donner)."
)

_ESTIMATES = TypeAdapter(ClassEstimates)
_AGREEMENT = TypeAdapter(ProbabilityAgreement)


@dataclass(frozen=True, slots=True)
class StandingEstimates:
    """How right one class of a policy is at its threshold, and its probabilities."""

    policy: str
    digest: str  # of the version
    class_name: str
    labels: int  # with a known chance
    estimates: ClassEstimates
    agreement: ProbabilityAgreement
    calibrated: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class JudgingVersion:
    """The version of a policy that judged last, and by which encoder."""

    name: str
    policy_id: int
    encoder_id: int


def standing_estimates(
    sessions: Sessions, classes: Collection[str] | None = None
) -> list[StandingEstimates]:
    """Of every class that has labels, by policy and name; of these classes only, None: of all.

    As the job made them last; nothing of restricted classes.
    """
    rows = (
        select(StoredEstimate, StoredPolicy.name, StoredPolicy.digest)
        .join(StoredPolicy, StoredPolicy.id == StoredEstimate.policy_id)
        .where(StoredEstimate.labels > 0)
        .order_by(StoredPolicy.name, StoredEstimate.class_name)
    )
    with sessions.begin() as session:
        found = session.execute(rows).all()
        hidden = labels.restricted_classes(session) if found else set()
        return [
            _read(row, name, digest)
            for row, name, digest in found
            if row.class_name not in hidden and (classes is None or row.class_name in classes)
        ]


def judging_versions(session: Session) -> list[JudgingVersion]:
    """Of each policy the version that judged last, by name."""
    return [JudgingVersion(*row) for row in session.execute(_JUDGING)]


def refresh(sessions: Sessions, stop: Callable[[], bool] = lambda: False) -> int:
    """Estimate anew what new labels say, and drop what judges no more; how many classes.

    One class is one transaction, which replaces its row: it may end anywhere, and run again.
    """
    with sessions.begin() as session:
        wanted = list(_wanted(session))
        _forget_others(session, [key for key, _ in wanted])
    done = 0
    for (policy_id, class_name, encoder_id), newest in wanted:
        if stop():
            break
        with sessions.begin() as session:
            if _is_due(session, (policy_id, class_name, encoder_id), newest):
                done += _estimate(session, policy_id, class_name, encoder_id)
    return done


_Key = tuple[int, str, int]  # policy, class, encoder


def _wanted(session: Session) -> Iterator[tuple[_Key, datetime]]:
    """Classes that have labels in what judges now, with the time of their newest."""
    known = {row.name: row.newest for row in session.execute(_LABELLED_CLASSES)}
    for version in _versions(session) if known else []:
        for forbidden in load_policy(session, version.policy_id).policy.classes:
            if forbidden.name in known and forbidden.sealed is None:
                key = version.policy_id, forbidden.name, version.encoder_id
                yield key, known[forbidden.name]


def _versions(session: Session) -> list[JudgingVersion]:
    """What judges now, and of policies that have been quiet what was estimated last."""
    judging = judging_versions(session)
    pairs = (StoredPolicy.name, StoredEstimate.policy_id, StoredEstimate.encoder_id)
    quiet = (
        select(*pairs)
        .join(StoredPolicy, StoredPolicy.id == StoredEstimate.policy_id)
        .where(StoredPolicy.name.not_in([v.name for v in judging]))
        .distinct()
    )
    return judging + [JudgingVersion(*row) for row in session.execute(quiet)]


def _forget_others(session: Session, keys: Sequence[_Key]) -> None:
    """Versions and encoders that another has taken the place of, and classes without a label."""
    row = tuple_(StoredEstimate.policy_id, StoredEstimate.class_name, StoredEstimate.encoder_id)
    session.execute(delete(StoredEstimate).where(row.not_in(keys)))


def _is_due(session: Session, key: _Key, newest: datetime) -> bool:
    before = session.get(StoredEstimate, key)
    return before is None or before.newest != newest or before.at < datetime.now(UTC) - STALE


def _estimate(session: Session, policy_id: int, class_name: str, encoder_id: int) -> int:
    """-> 1, or 0 where the labels are gone meanwhile."""
    known = load_policy(session, policy_id)
    newest = session.scalar(
        select(func.max(StoredLabel.at)).where(StoredLabel.class_name == class_name)
    )
    key = {"policy_id": policy_id, "class_name": class_name, "encoder_id": encoder_id}
    found = _labels(session, known, key)
    if newest is None:
        return 0
    row = _figures(known.policy.forbidden(class_name), found) | {"newest": newest}
    new = upsert(StoredEstimate).values(**key, **row)
    session.execute(
        new.on_conflict_do_update(index_elements=list(key), set_=row | {"at": func.now()})
    )
    return 1


def _labels(session: Session, known: KnownPolicy, key: dict[str, Any]) -> ClassLabels:
    versions = labels.versions_of(session, known.policy.name)
    return labels.of_class(session, **key, limit=ALL, versions=versions)


def _figures(forbidden: ForbiddenClass, found: ClassLabels) -> dict[str, Any]:
    drawn = found.labelled.drawn()
    threshold = threshold_margin(forbidden)
    a, b = calibration_line(forbidden)
    estimates = class_estimates(drawn.margins, drawn.truths, drawn.chances, threshold)
    probabilities = np.asarray(expit(a * drawn.margins + b))  # (n,)
    flagged = drawn.margins >= threshold
    agreement = probability_agreement(probabilities, drawn.truths, flagged) if len(drawn) else None
    return {
        "labels": len(drawn),
        "estimates": asdict(estimates),
        "agreement": agreement and asdict(agreement),
        "calibrated": forbidden.calibration is not None,
    }


def _read(row: StoredEstimate, policy: str, digest: str) -> StandingEstimates:
    return StandingEstimates(
        policy,
        digest,
        row.class_name,
        row.labels,
        _ESTIMATES.validate_python(row.estimates),
        _AGREEMENT.validate_python(row.agreement),
        row.calibrated,
        row.at,
    )


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
    SELECT name, (SELECT max(at) FROM labels WHERE class_name = name) AS newest
    FROM found WHERE name IS NOT NULL
""")
