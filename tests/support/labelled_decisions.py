"""Images that people decided about, with their margins, as labels and scores in the database."""

from sqlalchemy import insert
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.labelled_margins import LabelledMargins
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.policies import load_policy
from filter_service.db.tables import StoredImage, StoredScore


def keep_decisions(
    session: Session,
    of: tuple[int, str],
    encoder_id: int,
    known: LabelledMargins,
    first: int = 0,
) -> None:
    """New images for one class of a policy, (policy's id, class name); `first` numbers them."""
    policy_id, name = of
    images = [{"digest": f"{first + i:064x}", "bytes": 1} for i in range(len(known))]
    ids = list(session.scalars(insert(StoredImage).returning(StoredImage.id), images))
    class_id = load_policy(session, policy_id).class_ids[name]
    margins, truths = known.margins.tolist(), known.truths.tolist()
    scores = [
        {
            "encoder_id": encoder_id,
            "class_id": class_id,
            "image_id": image,
            "margin": margin,
            "frame": 0,
            "exact": True,
        }
        for image, margin in zip(ids, margins, strict=True)
    ]
    session.execute(insert(StoredScore), scores)
    told = zip(ids, truths, known.chances.tolist(), strict=True)
    labels.keep(session, [ClassLabel(i, name, t, LabelSource.FLAG, c) for i, t, c in told])
