"""Alarms of the drift watch: what moved, since when, by how much, and what to do about it."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from filter_service import ledger
from filter_service.calibration import labels
from filter_service.calibration.standing_estimates import judging_versions
from filter_service.db.session import Sessions
from filter_service.db.tables import PolicyClass, StoredPolicy, StoredWatch
from filter_service.errors import UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.webhooks import EventType, announce


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """What a watch found, with the figures before and since."""

    policy: str
    version: str  # its digest
    class_name: str
    encoder: str  # its fingerprint
    moved: list[str]  # margins, flagged share, or both
    since: datetime
    images: int  # since then, until the alarm
    margin_before: float  # logits, on average
    margin_now: float
    spread: float  # standard deviation of the margins before
    share_before: float  # flagged for the class
    share_now: float
    false_alarms: float  # chance of one in a month for the whole version, nothing having changed

    @property
    def deviations(self) -> float:
        """How far the margins moved, in standard deviations of those before; above 0: up."""
        return (self.margin_now - self.margin_before) / self.spread if self.spread else 0.0

    @property
    def sentence(self) -> str:
        """What moved, since when, by how much."""
        way = "higher" if self.deviations > 0 else "lower"
        return (
            f"Since {self.since:%Y-%m-%d %H:%M} UTC ({self.images:,} images) the "
            f"{' and the '.join(self.moved)} of {self.class_name} in policy {self.policy} "
            f"{'are' if self.moved == ['margins'] or len(self.moved) > 1 else 'is'} not what "
            f"it was fitted for: margins lie {abs(self.deviations):.2f} standard deviations "
            f"{way}, {self.share_now:.2%} are flagged where {self.share_before:.2%} were."
        )

    @property
    def advice(self) -> str:
        """What to do."""
        return (
            f"Look at the newest flags of {self.class_name}. If the pictures have changed for "
            f"good, review some and run `filter-service policy calibrate {self.policy}`, then "
            "activate what it proposes; if what comes now is as it should be, accept it as the "
            "new reference on the page Accuracy."
        )

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self) | {"since": self.since.isoformat()}


@dataclass(frozen=True, slots=True)
class ClassWatch:
    """One class that is watched, and the alarm that stands, if one does."""

    policy: str
    class_name: str
    encoder_id: int
    class_id: int
    started_at: datetime
    looked_at: datetime
    seen: int  # images
    flagged_share: float  # before
    alarm: DriftAlarm | None


_ALARM = TypeAdapter(DriftAlarm)


def tell(session: Session, alarm: DriftAlarm) -> None:
    """Tell the operator's webhooks, if the caller's transaction is committed."""
    subject = f"class {alarm.class_name} of policy {alarm.policy}"
    announce(session, EventType.CLASS_DRIFTED, subject, _payload(alarm))


def watches(sessions: Sessions, classes: Collection[str] | None = None) -> list[ClassWatch]:
    """Every class that is watched of the versions that judge now; of these only, None: of all.

    Nothing of restricted classes.
    """
    with sessions.begin() as session:
        return watches_in(session, classes)


def watches_in(
    session: Session, classes: Collection[str] | None = None, *, alarmed: bool = False
) -> list[ClassWatch]:
    """The same in the caller's transaction; `alarmed`: only those whose alarm stands."""
    query = (
        select(StoredWatch, PolicyClass.policy_id, PolicyClass.name, StoredPolicy.name)
        .join(PolicyClass, PolicyClass.id == StoredWatch.class_id)
        .join(StoredPolicy, StoredPolicy.id == PolicyClass.policy_id)
        .where(func.cardinality(StoredWatch.reference) > 0)
        .order_by(StoredPolicy.name, PolicyClass.position)
        .options(defer(StoredWatch.reference))
    )
    if alarmed:
        query = query.where(StoredWatch.alarmed_at.is_not(None))
    rows = session.execute(query).all()
    if not rows:
        return []
    judging = {(v.policy_id, v.encoder_id) for v in judging_versions(session)}
    hidden = labels.restricted_classes(session)
    return [
        _read(row, policy, name)
        for row, policy_id, name, policy in rows
        if (policy_id, row.encoder_id) in judging
        and name not in hidden
        and (classes is None or name in classes)
    ]


def alarms(sessions: Sessions, classes: Collection[str] | None = None) -> list[DriftAlarm]:
    """Those that stand, likewise."""
    with sessions.begin() as session:
        found = watches_in(session, classes, alarmed=True)
        return [w.alarm for w in found if w.alarm is not None]


def accept(sessions: Sessions, encoder_id: int, class_id: int, actor: str) -> None:
    """Take what comes now as the reference: the watch begins anew. Raises UnknownEntry."""
    with sessions.begin() as session:
        row = session.get(StoredWatch, (encoder_id, class_id), with_for_update=True)
        if row is None or row.alarmed_at is None or row.alarm is None:
            raise UnknownEntry("No such alarm stands: somebody has accepted it already.")
        alarm = _ALARM.validate_python(row.alarm)
        row.reference, row.alarmed_at, row.alarm = [], None, None
        details = {"policy": alarm.version, "class": alarm.class_name, "alarm": alarm.sentence}
        ledger.append(session, [Entry(Event.DRIFT_ACCEPTED, actor, details=details)])


def _payload(alarm: DriftAlarm) -> dict[str, Any]:
    """As platforms are told."""
    return {
        "policy": alarm.policy,
        "version": alarm.version,
        "class": alarm.class_name,
        "encoder": alarm.encoder,
        "moved": alarm.moved,
        "since": alarm.since.isoformat(),
        "images": alarm.images,
        "margins": {
            "before": alarm.margin_before,
            "now": alarm.margin_now,
            "deviations": alarm.deviations,
        },
        "flagged_share": {"before": alarm.share_before, "now": alarm.share_now},
        "false_alarms_a_month": alarm.false_alarms,
        "said": alarm.sentence,
        "advice": alarm.advice,
    }


def _read(row: StoredWatch, policy: str, name: str) -> ClassWatch:
    return ClassWatch(
        policy,
        name,
        row.encoder_id,
        row.class_id,
        row.started_at,
        row.looked_at,
        row.seen,
        row.flagged / row.flagged_of,
        None if row.alarm is None else _ALARM.validate_python(row.alarm),
    )
