"""What a shadow would have flagged and what not, by class, and what people found of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, exists, select, text
from sqlalchemy.orm import Session, aliased

from filter_service.accounts.callers import Caller
from filter_service.calibration import labels
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, PolicyShadow, ShadowFlag, StoredPolicy
from filter_service.reviews.row_access import may_see, visible
from filter_service.reviews.sightings import newest_by_image

EXAMPLES = 12  # of each side
LOOKED_AT = 200  # newest flags, of which as many are examples as somebody may see


@dataclass(frozen=True, slots=True)
class DecidedFlags:
    """Flags of one side, and of how many people have said whether they are right."""

    count: int = 0
    right: int = 0
    wrong: int = 0


@dataclass(frozen=True, slots=True)
class ShadowedClass:
    """One class, as a shadow and the version that judged flag it."""

    name: str
    both: DecidedFlags
    lost: DecidedFlags  # flagged, but not by the shadow
    won: DecidedFlags  # by the shadow alone


@dataclass(frozen=True, slots=True)
class ShadowExample:
    """An item about which the two versions differ."""

    item_id: int
    digest: str
    class_name: str


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """A shadow with all that somebody may see of what it found."""

    shadow: PolicyShadow
    classes: tuple[ShadowedClass, ...] = ()
    lost: tuple[ShadowExample, ...] = ()
    won: tuple[ShadowExample, ...] = ()


def shadow_of(sessions: Sessions, digest: str) -> PolicyShadow | None:
    """The newest shadow of a version, running or ended; None: it never ran."""
    query = (
        select(PolicyShadow)
        .join(StoredPolicy, StoredPolicy.id == PolicyShadow.policy_id)
        .where(StoredPolicy.digest == digest)
        .order_by(PolicyShadow.id.desc())
        .limit(1)
    )
    with sessions.begin() as session:
        return session.scalar(query)


def shadow_report(
    sessions: Sessions, shadow: PolicyShadow, caller: Caller | None = None
) -> ShadowReport:
    """Counts of the classes that somebody may see, with examples; None: the operator's counts.

    Nothing of restricted classes, nor of images that are locked away.
    """
    with sessions.begin() as session:
        rows = session.execute(_COUNTS, {"shadow": shadow.id}).all()
        restricted = labels.restricted_classes(session) if rows else set()
        names = dict.fromkeys(row.class_name for row in rows)
        shown = [n for n in names if n not in restricted and (caller is None or may_see(caller, n))]
        classes = tuple(_counted(name, rows) for name in shown)
        if caller is None:
            return ShadowReport(shadow, classes)
        lost, won = (_examples(session, shadow, caller, shown, side) for side in (False, True))
        return ShadowReport(shadow, classes, lost, won)


def _counted(name: str, rows: Sequence[Row[Any]]) -> ShadowedClass:
    found = {
        (row.by_shadow, row.by_judge): DecidedFlags(row.count_, row.right_, row.wrong_)
        for row in rows
        if row.class_name == name
    }
    none = DecidedFlags()
    return ShadowedClass(
        name,
        both=found.get((True, True), none),
        lost=found.get((False, True), none),
        won=found.get((True, False), none),
    )


def _examples(
    session: Session, shadow: PolicyShadow, caller: Caller, classes: Sequence[str], won: bool
) -> tuple[ShadowExample, ...]:
    """The newest, each image once; none that is flagged for a class which is closed to them."""
    other = aliased(ShadowFlag)
    closed = exists().where(
        other.shadow_id == shadow.id,
        other.item_id == ShadowFlag.item_id,
        other.class_name.not_in(classes),
    )
    rows = session.execute(
        select(Item.image_id, ShadowFlag.class_name)
        .join(Item, Item.id == ShadowFlag.item_id)
        .where(
            ShadowFlag.shadow_id == shadow.id,
            ShadowFlag.by_shadow.is_(won),
            ShadowFlag.by_judge.is_(not won),
            ~closed,
            visible(caller),
        )
        .order_by(ShadowFlag.item_id.desc())
        .limit(LOOKED_AT)
    ).all()
    newest: dict[int, str] = {}
    for image, name in rows:
        newest.setdefault(image or 0, name)
    found = newest_by_image(session, caller, list(newest))
    examples = [ShadowExample(found[i][1], found[i][0], n) for i, n in newest.items() if i in found]
    return tuple(examples[:EXAMPLES])


_COUNTS = text("""
    SELECT f.class_name, f.by_shadow, f.by_judge, count(*) AS count_,
        count(*) FILTER (WHERE l.truth) AS right_, count(*) FILTER (WHERE NOT l.truth) AS wrong_
    FROM shadow_flags f JOIN items i ON i.id = f.item_id
    LEFT JOIN labels l ON l.image_id = i.image_id AND l.class_name = f.class_name
    WHERE f.shadow_id = :shadow
      AND NOT EXISTS (SELECT FROM sealed_items r WHERE r.image_id = i.image_id)
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")
