"""Counts what was judged by slices: by an attribute that came with items, or by prompts."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, exists, select, text
from sqlalchemy.orm import Session

from filter_service.audit.slices.slice_shares import (
    CONFIDENCE,
    SliceCount,
    SliceRow,
    SliceShare,
    slice_rows,
)
from filter_service.audit.transparency.period_counts import Period
from filter_service.db.session import Sessions
from filter_service.db.tables import Embedding, Item, Restriction
from filter_service.errors import InvalidRequest
from filter_service.scoring import FloatArray
from filter_service.verdicts import Verdict

MOST_SLICES = 50  # of one attribute, those with the most items; more say nothing of each
MOST_PROMPTS = 10
MOST_VIEWS = 50_000  # that are compared with prompts, of the newest images
LONGEST_PROMPT = 300  # letters

COUNTED = (
    "Flagged is a share of what was judged in the period; overturned, of the flags that waited for "
    "people and that they decided. Flags that acted by themselves count as flagged only. The "
    f"intervals hold all together with {CONFIDENCE:.0%} confidence, however many slices there are."
)
FROM_PROMPTS = (
    "These slices are made by what the model sees, not by what the pictures show or whom: each "
    "picture stands with the prompt that it fits best, rightly or not. Where the model errs, it "
    "errs in both, in the slice and in the flag. So a difference may be the model's own "
    "association, and where none is found there may be one all the same: only attributes that come "
    "from elsewhere show that."
)


class TextVectors(Protocol):
    """Turns a text into a vector of a stored encoder."""

    def text(self, text: str) -> Any:  # noqa: ANN401  (a QueryVector: encoder_id and vector)
        """Raises Transient when no encoder can be had just now."""


@dataclass(frozen=True, slots=True)
class SliceReport:
    """What was found by slices of a period."""

    period: Period
    by: str
    rows: tuple[SliceRow, ...]
    left_out: int  # slices beyond the largest ones
    caveats: tuple[str, ...]  # sentences

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "since": self.period.since.isoformat(),
            "until": self.period.until.isoformat(),
            "by": self.by,
            "confidence": CONFIDENCE,
            "slices": [
                {
                    "value": row.value,
                    "flagged": _document(row.flagged),
                    "overturned": _document(row.overturned),
                }
                for row in self.rows
            ],
            "left_out": self.left_out,
            "caveats": list(self.caveats),
        }


def attribute_names(sessions: Sessions) -> list[str]:
    """The attributes that came with items."""
    with sessions.begin() as session:
        return list(session.scalars(_NAMES))


def by_attribute(
    sessions: Sessions,
    period: Period,
    name: str,
    *,
    policy: str | None = None,
    classes: Collection[str] | None = None,
) -> SliceReport:
    """By the values of an attribute; of flags of these classes, None: of all.

    Raises InvalidRequest for an attribute that no item of the period has.
    """
    asked = _asked(period, policy, classes) | {"name": name}
    with sessions.begin() as session:
        counts = [SliceCount(*row) for row in session.execute(_BY_ATTRIBUTE, asked)]
        names = session.scalars(_NAMES).all() if not counts else []
    if not counts:
        has = f"items have {', '.join(names)}" if names else "no item has any"
        raise InvalidRequest(
            f"No item that was judged in the period has the attribute {name[:80]!r}: {has}; give "
            "them in a manifest's metadata."
        )
    kept = counts[:MOST_SLICES]
    return SliceReport(period, name, slice_rows(kept), len(counts) - len(kept), (COUNTED,))


def by_prompts(
    sessions: Sessions,
    seeker: TextVectors,
    period: Period,
    prompts: Sequence[str],
    *,
    policy: str | None = None,
    classes: Collection[str] | None = None,
) -> SliceReport:
    """Each picture stands with the prompt that it fits best; from kept vectors, the newest first.

    Raises InvalidRequest for fewer than two prompts, and where no vector is kept.
    """
    texts = _checked(prompts)
    known = [seeker.text(prompt) for prompt in texts]
    directions = np.stack([k.vector for k in known])  # (p, d)
    with sessions.begin() as session:
        rows = session.execute(_vectors(known[0].encoder_id, period)).all()
        if not rows:
            raise InvalidRequest(
                "No vector of what was judged in the period is kept for the model that is served: "
                "choose another period, or judge pictures first."
            )
        images = np.array([image for image, _ in rows])  # (views,)
        best = _best(images, np.stack([v for _, v in rows]) @ directions.T)
        asked = _asked(period, policy, classes) | {
            "images": list(best),
            "values": [texts[prompt] for prompt in best.values()],
        }
        found = {c.value: c for c in _counted(session, asked)}
    counts = [found.get(prompt, SliceCount(prompt, 0, 0, 0, 0)) for prompt in texts]
    return SliceReport(period, " / ".join(texts), slice_rows(counts), 0, (FROM_PROMPTS, COUNTED))


def _counted(session: Session, asked: dict[str, Any]) -> list[SliceCount]:
    return [SliceCount(*row) for row in session.execute(_BY_IMAGE, asked)]


def _best(
    images: npt.NDArray[np.int64],  # (views,)
    cosines: npt.NDArray[np.floating],  # (views, prompts)
) -> dict[int, int]:
    """The prompt that each image fits best, in the view that fits it best."""
    places, rows = np.unique(images, return_inverse=True)
    most = np.full((len(places), cosines.shape[1]), -np.inf)  # (images, prompts)
    np.maximum.at(most, rows, cosines)
    return dict(zip(places.tolist(), most.argmax(axis=1).tolist(), strict=True))


def _vectors(encoder_id: int, period: Period) -> Select[int, FloatArray]:
    """Views of what was judged in a period, the newest images first."""
    judged = select(Item.image_id).where(
        Item.judged_at >= period.since,
        Item.judged_at < period.until,
        Item.verdict.in_((Verdict.CLEAR, Verdict.FLAGGED)),
    )
    locked = exists().where(Restriction.image_id == Embedding.image_id)
    return (
        select(Embedding.image_id, Embedding.vector)
        .where(Embedding.encoder_id == encoder_id, Embedding.image_id.in_(judged), ~locked)
        .order_by(Embedding.image_id.desc())
        .limit(MOST_VIEWS)
    )


def _checked(prompts: Sequence[str]) -> list[str]:
    texts = list(dict.fromkeys(p.strip() for p in prompts if p.strip()))
    if not 2 <= len(texts) <= MOST_PROMPTS:
        raise InvalidRequest(
            f"{len(texts)} different prompts make no slices: give 2 to {MOST_PROMPTS}, such as 'a "
            "drawing' and 'a photograph'."
        )
    if longest := next((t for t in texts if len(t) > LONGEST_PROMPT or not t.isprintable()), None):
        raise InvalidRequest(
            f"The prompt {longest[:40]!r} is none: give at most {LONGEST_PROMPT} plain letters."
        )
    return texts


def _asked(period: Period, policy: str | None, classes: Collection[str] | None) -> dict[str, Any]:
    named = None if classes is None else list(classes)
    return {"since": period.since, "until": period.until, "policy": policy, "classes": named}


def _document(share: SliceShare) -> dict[str, Any]:
    return {
        "count": share.hits,
        "of": share.of,
        "share": share.interval and asdict(share.interval),
        "apart": share.apart and asdict(share.apart),
        "differs": share.differs,
    }


_NAMES = text("SELECT DISTINCT name FROM item_attributes ORDER BY name")
# What was judged anew since counts once, as it was judged last; nothing of what is locked away.
_TAIL = """, counted AS (
        SELECT s.value, i.verdict = 'flagged' AND
                (CAST(:classes AS varchar[]) IS NULL OR c.name = ANY(CAST(:classes AS varchar[])))
                AS flagged,
            o.review_id IS NOT NULL AND NOT o.sampled AND NOT i.fully_automated AS decided,
            o.decision = 'overturned' AS overturned
        FROM sliced s JOIN items i ON i.id = s.item_id
        JOIN batches b ON b.id = i.batch_id JOIN policies p ON p.id = b.policy_id
        LEFT JOIN policy_classes c ON c.id = i.class_id
        LEFT JOIN review_outcomes o ON o.item_id = i.id
        WHERE i.judged_at >= :since AND i.judged_at < :until AND i.verdict IN ('clear', 'flagged')
          AND (CAST(:policy AS varchar) IS NULL OR p.name = CAST(:policy AS varchar))
          AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = i.image_id)
          AND NOT EXISTS (
            SELECT FROM items anew WHERE anew.supersedes = i.id
                AND anew.verdict IN ('clear', 'flagged'))
    )
    SELECT value, count(*), count(*) FILTER (WHERE flagged),
        count(*) FILTER (WHERE flagged AND decided),
        count(*) FILTER (WHERE flagged AND decided AND overturned)
    FROM counted GROUP BY value ORDER BY count(*) DESC, value
"""
_BY_ATTRIBUTE = text(
    "WITH sliced AS (SELECT item_id, value FROM item_attributes WHERE name = :name)" + _TAIL
)
_BY_IMAGE = text(
    """WITH sliced AS (
        SELECT i.id AS item_id, v.value
        FROM unnest(CAST(:images AS bigint[]), CAST(:values AS varchar[])) AS v (image_id, value)
        JOIN items i ON i.image_id = v.image_id
    )"""
    + _TAIL
)
