"""Scores labelled images under another encoder or other words, so that labels outlive both.

Image by image in small transactions: what was interrupted goes on where it stopped, and doing it
again does nothing.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.db.arrivals import hold_images
from filter_service.db.embeddings import keep_vectors, known_vectors
from filter_service.db.scores import keep_scores
from filter_service.db.session import Sessions
from filter_service.db.tables import Restriction, StoredImage
from filter_service.errors import ImageError, InvalidRequest
from filter_service.policy import Policy
from filter_service.scoring import PolicyVectors
from filter_service.verdicts import KnownVectors, Score, is_sealed, score

TOGETHER = 32  # images of one transaction


@dataclass(frozen=True, slots=True)
class LabelScorer:
    """What labelled images are scored with."""

    encoder_id: int
    vectors: PolicyVectors
    class_ids: Mapping[str, int]  # of classes in these words, as some stored version has them
    look: Callable[[str, KnownVectors | None], KnownVectors]  # by digest; raises ImageError


@dataclass(frozen=True, slots=True)
class UnscoredImage:
    """A labelled image that lacks a score."""

    image_id: int
    digest: str
    bytes_gone: bool


@dataclass
class RescoringCounts:
    """What became of labelled images."""

    scored: int = 0
    known: int = 0  # had all their scores before
    gone: int = 0  # have no bytes left, nor vectors of this encoder
    left_out: int = 0  # seem to show what is restricted, or were locked away or erased meanwhile
    unreadable: list[str] = field(default_factory=list)  # sentences


def own_words(policy: Policy, encoder: str) -> tuple[Policy, list[str]]:
    """The policy without what it learnt from other encoders' margins; -> classes that go by that.

    A calibration changes no margin. A head does: what a class is asked with it is another question.
    """
    foreign = {c.name for c in policy.classes if c.head and c.head.encoder != encoder}
    bare = tuple(
        c.model_copy(update={"calibration": None} | ({"head": None} if c.name in foreign else {}))
        for c in policy.classes
    )
    return policy.model_copy(update={"classes": bare}), sorted(foreign)


def class_ids(session: Session, policy: Policy, without: Collection[str] = ()) -> dict[str, int]:
    """Of classes that may be scored, by name; InvalidRequest where none is stored in these words.

    Restricted classes have no labels, and are left out as those named are.
    """
    open_classes = [c.name for c in policy.classes if c.sealed is None]
    versions = labels.versions_of(session, policy.name)
    found = {
        name: labels.class_id_of_words(versions, policy, name)
        for name in open_classes
        if name not in without
    }
    if strange := [name for name, class_id in found.items() if class_id is None]:
        raise InvalidRequest(
            f"No stored version of {policy.name!r} asks for {strange[0]!r} in these words: propose "
            "this version first."
        )
    return {name: class_id for name, class_id in found.items() if class_id is not None}


def unscored(
    session: Session, scorer: LabelScorer, without: Collection[str] = ()
) -> tuple[list[UnscoredImage], int]:
    """Labelled images that lack a score, or vectors for classes without one; -> how many do not."""
    asked = {
        "names": [*scorer.class_ids, *without],
        "classes": [*scorer.class_ids.values(), *(None for _ in without)],
        "encoder": scorer.encoder_id,
    }
    rows = session.execute(_LABELLED, asked).all()
    lacking = [UnscoredImage(i, d.hex(), gone) for i, d, gone, scored in rows if not scored]
    return lacking, len(rows) - len(lacking)


def rescore(
    sessions: Sessions, scorer: LabelScorer, images: Sequence[UnscoredImage]
) -> Iterator[RescoringCounts]:
    """Score images and keep their vectors; after each step what became of them so far."""
    counts = RescoringCounts()
    for first in range(0, len(images), TOGETHER):
        together = images[first : first + TOGETHER]
        with sessions.begin() as session:
            known = known_vectors(session, scorer.encoder_id, [i.image_id for i in together])
        seen = _seen(scorer, together, known, counts)
        with sessions.begin() as session:
            _keep(session, scorer, seen, counts)
        yield counts


def _seen(
    scorer: LabelScorer,
    images: Sequence[UnscoredImage],
    known: Mapping[str, KnownVectors],
    counts: RescoringCounts,
) -> dict[int, KnownVectors]:
    seen = {}
    for image in images:
        try:
            seen[image.image_id] = scorer.look(image.digest, known.get(image.digest))
        except ImageError as error:
            if image.bytes_gone:
                counts.gone += 1
            else:
                counts.unreadable.append(f"{image.digest[:12]}: {error}")
    return seen


def _keep(
    session: Session,
    scorer: LabelScorer,
    seen: Mapping[int, KnownVectors],
    counts: RescoringCounts,
) -> None:
    """What is erased, locked away, or seems to show what is restricted leaves nothing behind."""
    hold_images(session, list(seen))
    here = _here(session, seen)
    scores: dict[tuple[int, int], Score] = {}
    kept: dict[int, KnownVectors] = {}
    for image_id in sorted(here):
        looked = seen[image_id]
        margins = scorer.vectors.margins(looked.vectors)  # (views, classes)
        found = score(margins, looked.views, looked.exact, scorer.vectors.policy)
        if is_sealed(found, scorer.vectors.policy):
            continue
        kept[image_id] = looked
        scores |= {
            (scorer.class_ids[s.class_name], image_id): s
            for s in found
            if s.class_name in scorer.class_ids
        }
    keep_vectors(session, scorer.encoder_id, kept)
    keep_scores(session, scorer.encoder_id, scores)
    counts.scored += len(kept)
    counts.left_out += len(seen) - len(kept)


def _here(session: Session, images: Collection[int]) -> set[int]:
    """Those that are neither erased nor locked away."""
    locked = select(Restriction.image_id).where(Restriction.image_id == StoredImage.id)
    query = select(StoredImage.id).where(
        StoredImage.id.in_(images), StoredImage.digest.is_not(None), ~locked.exists()
    )
    return set(session.scalars(query))


_LABELLED = text("""
    WITH asked AS (
        SELECT * FROM unnest(:names ::varchar[], :classes ::integer[]) AS asked (name, class_id)
    )
    SELECT i.id, i.digest, i.bytes_gone_at IS NOT NULL, bool_and(CASE
        WHEN a.class_id IS NULL THEN EXISTS (
            SELECT FROM embeddings e WHERE e.encoder_id = :encoder AND e.image_id = i.id)
        ELSE EXISTS (
            SELECT FROM scores s WHERE s.encoder_id = :encoder AND s.class_id = a.class_id
                AND s.image_id = i.id)
        END)
    FROM labels l JOIN asked a ON a.name = l.class_name JOIN images i ON i.id = l.image_id
    WHERE i.digest IS NOT NULL
      AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = i.id)
    GROUP BY i.id ORDER BY i.id
""")
