"""What a decision says about images and classes, kept as labels in its transaction."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.tables import ReviewCase
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.queue import QueuedCase


@dataclass(frozen=True, slots=True)
class CaseDraw:
    """How a case came to be, as it was written down when it was opened."""

    chance: float | None
    class_chances: dict[str, float] | None
    evenly: bool


def draw_of(session: Session, item_id: int) -> CaseDraw:
    """Of a case that is open."""
    columns = (ReviewCase.chance, ReviewCase.class_chances, ReviewCase.evenly)
    row = session.execute(select(*columns).where(ReviewCase.item_id == item_id)).one()
    return CaseDraw(*row)


def label(
    session: Session, case: QueuedCase, confirmed: bool, review_id: int, draw: CaseDraw
) -> None:
    """A confirmed flag shows its class, an overturned one does not.

    Of a clear item that was drawn, confirmed says that it shows none of the classes it was drawn
    for; overturned, that it shows the one it was reviewed for, and nothing about the others.
    """
    chances = draw.class_chances or {}
    several = case.sampled and confirmed
    labels.keep(
        session,
        [
            ClassLabel(
                image_id=case.image_id,
                class_name=name,
                truth=confirmed != case.sampled,
                source=_source(case, draw),
                chance=chances.get(name),
                item_id=case.item_id,
                review_id=review_id,
            )
            for name in sorted({case.class_name, *(chances if several else ())})
        ],
    )


def _source(case: QueuedCase, draw: CaseDraw) -> LabelSource:
    if draw.chance is None and case.stage is Stage.APPEAL:
        return LabelSource.APPEAL
    if draw.chance is None and case.reported:
        return LabelSource.REPORT
    return LabelSource.SAMPLE if case.sampled else LabelSource.FLAG
