"""Labels: what is true of an image and a class, and the chance with which it came to be known."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    any_,
    case,
    cast,
    delete,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from filter_service import ledger
from filter_service.calibration.kept_margins import ClassLabels, of_scores
from filter_service.canonical import canonical, text_digest
from filter_service.db.policies import KnownPolicy, load_policy
from filter_service.db.tables import (
    Restriction,
    StoredImage,
    StoredLabel,
    StoredPolicy,
    TrainingLabel,
)
from filter_service.errors import InvalidRequest, NotAllowed
from filter_service.ledger import Entry, Event
from filter_service.policy import Policy

MOST = 20_000  # labels read at once, the newest

# What of a class changes no margin; whatever else differs makes it another one.
_BESIDE = {
    *("name", "threshold", "certain", "severity", "clause"),
    *("calibration", "sealed", "statement"),
}


class LabelSource(StrEnum):
    """How a truth came to be known."""

    FLAG = "flag"  # a flag that was reviewed
    SAMPLE = "sample"  # a clear item that was drawn
    APPEAL = "appeal"  # somebody asked: it says nothing about the others
    UPLOAD = "upload"  # a labelled folder or manifest
    REPORT = "report"  # somebody pointed at it, likewise


@dataclass(frozen=True, slots=True)
class ClassLabel:
    """The truth about one image and one class."""

    image_id: int
    class_name: str
    truth: bool
    source: LabelSource
    chance: float | None = None  # None: unknown, or chosen by anything but the margin
    item_id: int | None = None
    review_id: int | None = None


@dataclass(frozen=True, slots=True)
class UploadReceipt:
    """What became of labels that were uploaded."""

    new: int
    unchanged: int  # known before, and the same
    contradicted: tuple[int, ...]  # images of which a decision that stands says otherwise


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How many labels a class has from one source."""

    class_name: str
    source: str
    present: int
    absent: int
    drawn: int  # with a known chance


def keep(session: Session, labels: Sequence[ClassLabel]) -> None:
    """What a decision says, in its transaction; a later one takes the place of an earlier one.

    The chance stays that of the draw: an appeal may turn a truth, but not how it came to be known.
    """
    if not labels:
        return
    new = upsert(StoredLabel).values([asdict(label) for label in labels])
    old, added = StoredLabel, new.excluded
    asked_after = added.chance.is_(None) & old.chance.is_not(None)
    values: dict[str, Any] = {n: added[n] for n in ("truth", "item_id", "review_id")} | {
        "at": func.now(),
        "chance": func.coalesce(added.chance, old.chance),
        "source": case((asked_after, old.source), else_=added.source),
    }
    session.execute(
        new.on_conflict_do_update(index_elements=["image_id", "class_name"], set_=values)
    )


def upload(
    session: Session, policy: Policy, truths: Mapping[tuple[int, str], bool], actor: str
) -> UploadReceipt:
    """Keep what somebody says of images and classes; what people decided here comes first.

    The ledger tells who said it of how many, with a digest of what was said. Raises InvalidRequest
    for a class that the policy has not, that is restricted, or an image that is erased or locked
    away.
    """
    _require_classes(session, policy, {name for _, name in truths})
    _require_images(session, {image for image, _ in truths})
    known = _known(session, {image for image, _ in truths})
    before = {key: known[key] for key in truths if key in known}
    same = sum(before[key][0] == truths[key] for key in before)
    against = {k for k in before if before[k] == (not truths[k], False)}
    if truths:
        told = sorted(truths.items())
        rows = {
            "images": [image for (image, _), _ in told],
            "names": [name for (_, name), _ in told],
            "truths": [truth for _, truth in told],
        }
        session.execute(_UPLOAD, rows)
        ledger.append(session, [_labelled(policy, truths, len(truths) - len(before), same, actor)])
    return UploadReceipt(
        len(truths) - len(before), same, tuple(sorted({image for image, _ in against}))
    )


def _labelled(
    policy: Policy, truths: Mapping[tuple[int, str], bool], new: int, same: int, actor: str
) -> Entry:
    said = [[image, name, truth] for (image, name), truth in sorted(truths.items())]
    details = {
        "policy": policy.digest,
        "images": len({image for image, _ in truths}),
        "new": new,
        "unchanged": same,
        "truths": text_digest(canonical(said)),
    }
    return Entry(Event.LABELLED, actor, details=details)


def decided_against(
    session: Session, asked: Collection[tuple[int, str | None]]
) -> set[tuple[int, str | None]]:
    """Of these images and classes those of which a decision says that the image does not show it.

    What somebody uploaded is no decision.
    """
    key = tuple_(StoredLabel.image_id, StoredLabel.class_name)
    query = select(StoredLabel.image_id, StoredLabel.class_name).where(
        key.in_(list(asked)), ~StoredLabel.truth, StoredLabel.source != LabelSource.UPLOAD
    )
    return {(image, name) for image, name in session.execute(query)}


def forget(session: Session, image_id: int, items: Collection[int] = ()) -> int:
    """Labels of an image, and those that these items' decisions gave; -> how many."""
    for table in (TrainingLabel, StoredLabel):
        mine = (table.image_id == image_id) | table.item_id.in_(items)
        gone = session.scalars(delete(table).where(mine).returning(table.image_id)).all()
    return len(gone)


def of_class(
    session: Session,
    policy_id: int,
    class_name: str,
    encoder_id: int,
    *,
    limit: int = MOST,
    custodian: bool = False,
    versions: Sequence[KnownPolicy] | None = None,
) -> ClassLabels:
    """Of the newest `limit` labels of a policy's class, those that one encoder has a margin for.

    Margins of other versions of the policy count, where the class is asked for in the same words.
    What a head learnt from says nothing about how right it is: those images are left out.
    `versions` are those of the policy's name, where the caller has them. Raises InvalidRequest for
    a class that the policy has not, NotAllowed for a restricted one unless a custodian asks.
    """
    classes = same_words(session, policy_id, class_name, custodian=custodian, versions=versions)
    head = load_policy(session, policy_id).policy.forbidden(class_name).head
    return of_scores(session, class_name, classes, encoder_id, head, limit)


def margins_of(
    session: Session, policy_id: int, class_name: str, encoder_id: int, limit: int = MOST
) -> npt.NDArray[np.float64]:
    """Margins of the newest images as they come, labelled or not: (n,) logits."""
    asked = {
        "encoder": encoder_id,
        "classes": same_words(session, policy_id, class_name),
        "limit": limit,
    }
    return np.array(session.scalars(_STREAM, asked).all(), np.float64)


def same_words(
    session: Session,
    policy_id: int,
    class_name: str,
    *,
    custodian: bool = False,
    versions: Sequence[KnownPolicy] | None = None,
    besides: Collection[str] = (),
) -> list[int]:
    """This class in all versions of its policy that give the same margins; -> class ids.

    `besides`: fields in which they may differ all the same.
    """
    known = load_policy(session, policy_id)
    if class_name not in known.class_ids:
        raise InvalidRequest(
            f"Policy {known.policy.name!r} has no class {class_name!r}: it has "
            f"{', '.join(sorted(known.class_ids))}."
        )
    if known.policy.forbidden(class_name).sealed is not None and not custodian:
        raise NotAllowed(f"Class {class_name!r} is restricted: only a custodian may ask for it.")
    others = versions_of(session, known.policy.name) if versions is None else versions
    words = words_of(known.policy, class_name, besides)
    return classes_in_words(others, class_name, words, besides)


def classes_in_words(
    versions: Sequence[KnownPolicy],
    class_name: str,
    words: Mapping[str, Any],
    besides: Collection[str] = (),
) -> list[int]:
    """The class of this name in those versions that ask for it so; -> class ids."""
    return [
        version.class_ids[class_name]
        for version in versions
        if class_name in version.class_ids
        and words_of(version.policy, class_name, besides) == words
    ]


def class_id_of_words(
    versions: Sequence[KnownPolicy], policy: Policy, class_name: str
) -> int | None:
    """The class as the first of these versions has it that gives a policy's margins; None: none."""
    words = words_of(policy, class_name)
    for other in versions:
        if class_name in other.class_ids and words_of(other.policy, class_name) == words:
            return other.class_ids[class_name]
    return None


def versions_of(session: Session, name: str) -> list[KnownPolicy]:
    """Every stored version of a policy."""
    ids = session.scalars(select(StoredPolicy.id).where(StoredPolicy.name == name))
    return [load_policy(session, each) for each in ids.all()]


def count(session: Session) -> list[LabelCount]:
    """How many labels there are, by class and source; nothing of what is restricted."""
    hidden = restricted_classes(session)
    found = [LabelCount(*row) for row in session.execute(_COUNT)]
    return [row for row in found if row.class_name not in hidden]


def restricted_classes(session: Session) -> set[str]:
    """The classes that some version of some policy restricts."""
    return set(session.scalars(_RESTRICTED))


def words_of(policy: Policy, class_name: str, besides: Collection[str] = ()) -> dict[str, Any]:
    """Everything that a margin of the class depends on, beside the encoder."""
    forbidden = policy.forbidden(class_name)
    return forbidden.model_dump(mode="json", exclude=_BESIDE.union(besides)) | {
        "templates": policy.templates_of(forbidden),
        "neutral": policy.neutral_of(forbidden),
        "coverage": policy.coverage,
    }


def _require_classes(session: Session, policy: Policy, names: set[str]) -> None:
    has = {c.name for c in policy.classes}
    if missing := sorted(names - has):
        raise InvalidRequest(
            f"Policy {policy.name!r} has no class {missing[0]!r}: it has {', '.join(sorted(has))}."
        )
    if hidden := sorted(names & restricted_classes(session)):
        raise InvalidRequest(
            f"Class {hidden[0]!r} is restricted: nobody labels its images, so leave it out."
        )


def _require_images(session: Session, images: set[int]) -> None:
    locked = select(Restriction.image_id).where(Restriction.image_id == StoredImage.id)
    here = select(StoredImage.id).where(
        _among(StoredImage.id, images), StoredImage.digest.is_not(None), ~locked.exists()
    )
    if gone := images - set(session.scalars(here)):
        raise InvalidRequest(
            f"{len(gone)} of the images are not here any more: label those that are stored."
        )


def _known(session: Session, images: set[int]) -> dict[tuple[int, str], tuple[bool, bool]]:
    """The truth that stands, and whether it was uploaded."""
    columns = (StoredLabel.image_id, StoredLabel.class_name, StoredLabel.truth, StoredLabel.source)
    rows = session.execute(select(*columns).where(_among(StoredLabel.image_id, images)))
    return {(image, name): (truth, by == LabelSource.UPLOAD) for image, name, truth, by in rows}


def _among(column: InstrumentedAttribute[int], images: set[int]) -> ColumnElement[bool]:
    """As one array: Postgres takes no more than 65,535 parameters."""
    return column == any_(cast(sorted(images), ARRAY(BigInteger)))


# Columns as arrays, for there are as many rows as images times classes.
_UPLOAD = text("""
    INSERT INTO labels (image_id, class_name, truth, source)
    SELECT image_id, class_name, truth, 'upload'
    FROM unnest(CAST(:images AS bigint[]), CAST(:names AS varchar[]), CAST(:truths AS boolean[]))
        AS said (image_id, class_name, truth)
    ON CONFLICT (image_id, class_name) DO UPDATE SET truth = excluded.truth, at = now()
    WHERE labels.source = 'upload' AND labels.truth <> excluded.truth
""")


_STREAM = text("""
    SELECT margin FROM scores s WHERE encoder_id = :encoder AND class_id = ANY(:classes)
      AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = s.image_id)
    ORDER BY image_id DESC LIMIT :limit
""")
_COUNT = text("""
    SELECT class_name, source, count(*) FILTER (WHERE truth), count(*) FILTER (WHERE NOT truth),
        count(chance)
    FROM labels l WHERE NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = l.image_id)
    GROUP BY class_name, source ORDER BY class_name, source
""")
_RESTRICTED = text("""
    SELECT DISTINCT c ->> 'name' FROM policies, jsonb_array_elements(document -> 'classes') c
    WHERE c ->> 'sealed' IS NOT NULL
""")
