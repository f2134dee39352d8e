"""Remembers which labels a calibration or a head was fitted on, for whoever asks later."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from filter_service.db.tables import TrainingLabel
from filter_service.images.views import View


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One label as it was when something was fitted on it."""

    image_id: int
    item_id: int | None  # that was decided; None: uploaded
    truth: bool
    margin: float  # logits: of a head's label, that of the prompts alone
    frame: int = 0
    view: str = ""

    @property
    def seen(self) -> View:
        """The view whose vector a head learnt from."""
        return View.parse(self.frame, self.view)


def keep_training(session: Session, fit: str, rows: Sequence[TrainingRow]) -> None:
    """Keep the labels of a fit, which its digest names; a fit that is known stays as it is."""
    if rows:
        values = [{"fit": fit, **asdict(row)} for row in rows]
        session.execute(insert(TrainingLabel).on_conflict_do_nothing(), values)


def training_of(session: Session, fit: str) -> list[TrainingRow]:
    """The labels of a fit that are left, in the order of their images; erased ones are gone."""
    query = select(TrainingLabel).where(TrainingLabel.fit == fit).order_by(TrainingLabel.image_id)
    return [
        TrainingRow(r.image_id, r.item_id, r.truth, r.margin, r.frame, r.view)
        for r in session.scalars(query)
    ]
