"""A stream of judged items with their margins for one class, without judging any image."""

import hashlib
import itertools
import uuid
from collections.abc import Sequence

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from filter_service.db.policies import load_policy
from filter_service.db.tables import Batch, Item, StoredImage, StoredScore
from filter_service.verdicts import Verdict, threshold_margin

_numbers = itertools.count()


def judge_stream(
    session: Session, of: tuple[int, str], encoder_id: int, margins: Sequence[float]
) -> list[int]:
    """New images of one batch for a class of a version, (policy's id, class name); -> image ids."""
    policy_id, name = of
    known = load_policy(session, policy_id)
    threshold = threshold_margin(known.policy.forbidden(name))
    batch = uuid.uuid4()
    session.add(Batch(id=batch, policy_id=policy_id, label="", priority=0))
    session.flush()
    digests = [hashlib.sha256(f"stream {next(_numbers)}".encode()).hexdigest() for _ in margins]
    added = insert(StoredImage).returning(StoredImage.id, sort_by_parameter_order=True)
    images = list(session.scalars(added, [{"digest": d, "bytes": 1} for d in digests]))
    scored = {"encoder_id": encoder_id, "class_id": known.class_ids[name], "frame": 0}
    session.execute(
        insert(StoredScore),
        [
            {"image_id": i, "margin": m, "exact": True, **scored}
            for i, m in zip(images, margins, strict=True)
        ],
    )
    now = session.execute(select(func.now())).scalar_one()
    about = {"batch_id": batch, "source": "", "judged_at": now, "encoder_id": encoder_id}
    session.execute(
        insert(Item),
        [
            {"image_id": i, **about, "verdict": Verdict.FLAGGED if over else Verdict.CLEAR}
            | {"class_id": known.class_ids[name], "margin": m}
            for i, m in zip(images, margins, strict=True)
            for over in [m >= threshold]
        ],
    )
    return images
