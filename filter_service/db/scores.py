"""Stores the margins of images: one for each encoder, class and image."""

from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.orm import Session

from filter_service.db.arrays import columns
from filter_service.verdicts import Score

_SCORES = text("""
    INSERT INTO scores (encoder_id, class_id, image_id, margin, frame, view, exact)
    SELECT :encoder, new.* FROM unnest(
        :classes ::int[], :images ::bigint[], :margins ::double precision[],
        :frames ::int[], :views ::varchar[], :exacts ::boolean[]
    ) AS new
    ON CONFLICT (encoder_id, class_id, image_id) DO UPDATE SET
        margin = excluded.margin, frame = excluded.frame,
        view = excluded.view, exact = excluded.exact
    WHERE NOT scores.exact AND excluded.exact
""")


def keep_scores(session: Session, encoder_id: int, scores: Mapping[tuple[int, int], Score]) -> None:
    """Keep scores by (class id, image id); a float32 one replaces one from less."""
    rows = [
        (*key, s.margin, s.view.frame, s.view.name, s.exact)
        for key, s in sorted(scores.items(), key=_key)  # two workers lock in the same order
    ]
    if rows:
        given = columns("classes images margins frames views exacts", rows)
        session.execute(_SCORES, {"encoder": encoder_id, **given})


def _key(pair: tuple[tuple[int, int], Score]) -> tuple[int, int]:
    return pair[0]
