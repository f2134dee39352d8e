"""A stream of some thousand images beside the judged samples: margins, and what people said."""

import numpy as np
from sqlalchemy import insert, select

from filter_service.calibration import labels
from filter_service.calibration.kept_margins import encoder_that_judged_last
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.policies import load_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredImage, StoredPolicy, StoredScore
from filter_service.policy import Policy
from filter_service.verdicts import threshold_margin

COUNT, PRESENT, DRAWN = 6_000, 0.03, 0.04  # images; share that shows the class; of the clear, seen


def pour(sessions: Sessions, policy: Policy, class_name: str, seed: int = 5) -> None:
    """Images without bytes or items: every flag and some of the clear ones were decided."""
    rng = np.random.default_rng(seed)
    truths = rng.random(COUNT) < PRESENT
    margins = np.where(truths, rng.normal(4.2, 2.3, COUNT), rng.normal(-3.6, 1.9, COUNT))
    flagged = margins >= threshold_margin(policy.forbidden(class_name))
    chances = np.where(flagged, 1.0, DRAWN)
    known = rng.random(COUNT) < chances
    with sessions.begin() as session:
        query = select(StoredPolicy.id).where(StoredPolicy.digest == policy.digest)
        policy_id = session.scalars(query).one()
        scored = {
            "encoder_id": encoder_that_judged_last(session),
            "class_id": load_policy(session, policy_id).class_ids[class_name],
            "frame": 0,
            "exact": True,
        }
        images = [{"digest": f"{i + 1:064x}", "bytes": 1} for i in range(COUNT)]
        ids = list(session.scalars(insert(StoredImage).returning(StoredImage.id), images))
        rows = zip(ids, margins.tolist(), strict=True)
        session.execute(
            insert(StoredScore), [{**scored, "image_id": i, "margin": m} for i, m in rows]
        )
        labels.keep(
            session,
            [
                ClassLabel(
                    ids[n], class_name, bool(truths[n]), LabelSource.SAMPLE, float(chances[n])
                )
                for n in np.flatnonzero(known).tolist()
            ],
        )
