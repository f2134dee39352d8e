"""Stores the margins of images: one for each encoder, class and image."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ARRAY, cast, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from filter_service.db.tables import StoredScore
from filter_service.verdicts import Score


def keep_scores(session: Session, encoder_id: int, scores: Mapping[tuple[int, int], Score]) -> None:
    """Keep scores by (class id, image id); a float32 one replaces one from less."""
    keys = sorted(scores)  # two workers lock in the same order
    ordered = [scores[key] for key in keys]
    columns: dict[InstrumentedAttribute[Any], list[Any]] = {
        StoredScore.encoder_id: [encoder_id] * len(keys),
        StoredScore.class_id: [class_id for class_id, _ in keys],
        StoredScore.image_id: [image_id for _, image_id in keys],
        StoredScore.margin: [score.margin for score in ordered],
        StoredScore.frame: [score.view.frame for score in ordered],
        StoredScore.view: [score.view.name for score in ordered],
        StoredScore.exact: [score.exact for score in ordered],
    }
    # Columns as arrays: there are as many rows as items times classes, each only some numbers.
    rows = select(*(func.unnest(cast(v, ARRAY(c.type))) for c, v in columns.items()))
    new = upsert(StoredScore).from_select([c.key for c in columns], rows)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["encoder_id", "class_id", "image_id"],
            set_={name: new.excluded[name] for name in ("margin", "frame", "view", "exact")},
            where=~StoredScore.exact & new.excluded.exact,
        )
    )
