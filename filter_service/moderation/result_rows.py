"""Writes what was judged of a batch: every table in one statement, its columns as arrays."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from filter_service.db.arrays import column, columns
from filter_service.db.policies import KnownPolicy
from filter_service.db.tables import StoredExplanation
from filter_service.moderation.disposition import Disposition, JudgedItem
from filter_service.verdicts import Verdict

# Two workers may have judged the same images: both lock them in the same order. Null: nothing new.
_IMAGES = text("""
    WITH new AS (
        SELECT images.id, seen.pdq ::bit(256) AS pdq, seen.width, seen.height, seen.time
        FROM images JOIN unnest(
            :ids ::bigint[], :hashes ::text[],
            :widths ::int[], :heights ::int[], :times ::double precision[]
        ) AS seen (id, pdq, width, height, time) USING (id)
        WHERE (images.pdq IS NULL AND seen.pdq IS NOT NULL)
           OR (seen.time IS NOT NULL AND (images.width, images.height, images.shown_time)
               IS DISTINCT FROM (seen.width, seen.height, seen.time))
        ORDER BY images.id FOR NO KEY UPDATE OF images
    )
    UPDATE images SET
        pdq = coalesce(images.pdq, new.pdq),
        width = coalesce(new.width, images.width),
        height = coalesce(new.height, images.height),
        shown_time = coalesce(new.time, images.shown_time)
    FROM new WHERE images.id = new.id
""")

_VERDICTS = text("""
    UPDATE items SET
        verdict = new.verdict, reason = new.reason, judged_at = :at,
        encoder_id = new.encoder_id, class_id = new.class_id,
        margin = new.margin, probability = new.probability,
        list_entry_id = new.list_entry_id,
        seen_pixels = new.seen_pixels, seen_time = new.seen_time,
        fully_automated = new.fully_automated
    FROM unnest(
        :ids ::bigint[], :verdicts ::verdict[], :reasons ::varchar[],
        :encoders ::int[], :classes ::int[],
        :margins ::double precision[], :probabilities ::double precision[],
        :entries ::bigint[], :pixels ::double precision[], :times ::double precision[],
        :acts ::boolean[]
    ) AS new (id, verdict, reason, encoder_id, class_id, margin, probability, list_entry_id,
              seen_pixels, seen_time, fully_automated)
    WHERE items.id = new.id
""")


def keep_seen(session: Session, judged: Sequence[JudgedItem]) -> None:
    """Perceptual hash, size and time of every image that was decoded now.

    A hash is kept where there is none; size and time as they are now, so that the views are known
    next time.
    """
    rows: dict[int, tuple[str | None, int | None, int | None, float | None]] = {}
    for j in judged:
        extent = j.outcome.extent if j.outcome.vectors is not None else None
        if extent is not None:
            rows[j.image_id] = (j.outcome.pdq, extent.width, extent.height, extent.time)
        elif j.outcome.pdq is not None:
            rows[j.image_id] = (j.outcome.pdq, None, None, None)
    if rows:
        given = columns("hashes widths heights times", rows.values())
        session.execute(_IMAGES, {"ids": column(list(rows)), **given})


def write_verdicts(
    session: Session, rulings: Sequence[Disposition], encoder_id: int, policy: KnownPolicy
) -> None:
    """What stands with each item."""
    names = "ids verdicts reasons encoders classes margins probabilities entries pixels times acts"
    given = columns(names, (_verdict(r, encoder_id, policy) for r in rulings))
    session.execute(_VERDICTS, {"at": datetime.now(UTC), **given})


def keep_explanations(
    session: Session, judged: Sequence[JudgedItem], encoder_id: int, policy: KnownPolicy
) -> None:
    """The records of why items were flagged."""
    rows = [
        {
            "item_id": j.item_id,
            "class_id": policy.class_ids[explanation.class_name],
            "encoder_id": encoder_id,
            "faithful": explanation.faithful,
            "record": explanation.model_dump(mode="json"),
        }
        for j in judged
        for explanation in j.outcome.explanations
    ]
    if rows:
        session.execute(insert(StoredExplanation), rows)


def _verdict(
    ruling: Disposition, encoder_id: int, policy: KnownPolicy
) -> tuple[int | str | float | None, ...]:
    """A row of `_VERDICTS`."""
    outcome, score, seen = ruling.judged.outcome, ruling.score, ruling.judged.outcome.seen
    undetermined = ruling.verdict is Verdict.UNDETERMINED
    return (
        ruling.judged.item_id,
        ruling.verdict.value,
        outcome.reason or "no reason was given" if undetermined else None,
        encoder_id if outcome.scores else None,
        policy.class_ids[ruling.class_name] if ruling.class_name else None,
        score.margin if score else None,
        score.probability if score else None,
        ruling.entry.entry_id if ruling.entry else None,
        seen.pixels if seen else None,
        seen.time if seen else None,
        ruling.acts,
    )
