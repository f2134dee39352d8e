"""The file of one item as a person may see it: batch, policy, evidence, case and outcome."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from filter_service import accounts
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Batch,
    Client,
    Item,
    Person,
    PolicyClass,
    Report,
    ReviewOutcome,
    StoredImage,
    StoredPolicy,
)
from filter_service.errors import NotAllowed, UnknownItem
from filter_service.images.views import ShareSeen
from filter_service.policy import Policy, Severity
from filter_service.rendering.class_evidence import ClassEvidence, evidence
from filter_service.reviews import restricted
from filter_service.reviews.queue import QueuedCase, case_of
from filter_service.reviews.report_cases import margin_of, reportable
from filter_service.reviews.reports import open_reports
from filter_service.reviews.stored_explanations import records_of
from filter_service.verdicts import Verdict
from filter_service.verdicts.explanation import Explanation

SEVERITIES = tuple(s.value for s in Severity)  # as the queue numbers them


@dataclass(frozen=True, slots=True)
class CaseFile:
    """One item as its page shows it, by what this person may see."""

    item: Item
    digest: str | None
    batch: Batch
    client: str  # by name
    policy: Policy
    shown: ClassEvidence | None
    classes: tuple[str, ...]  # flagged, and this person may see them
    case: QueuedCase | None
    mine: bool  # this person holds the case
    outcome: ReviewOutcome | None
    statement: str | None  # of the user who disagrees
    reports: tuple[Report, ...]  # of the picture, that wait for an answer
    reportable: tuple[str, ...]  # classes that this person may report it for; empty: not at all

    @property
    def seen(self) -> ShareSeen | None:
        """How much of the image the model looked at."""
        return ShareSeen.of(self.item.seen_pixels, self.item.seen_time)

    @property
    def severity(self) -> str:
        """Of the case, in words."""
        return SEVERITIES[self.case.severity] if self.case else ""

    @property
    def title(self) -> str:
        return self.shown.name if self.shown else f"Item {self.item.id}"


def casefile(sessions: Sessions, person: Person, item_id: int, wanted: str | None) -> CaseFile:
    """Raises UnknownItem, or NotAllowed for an item of classes that this person may not see."""
    case = case_of(sessions, item_id)
    with sessions.begin() as session:
        restricted.require_open(session, item_id)
        item, digest, batch, client, policy, worst = _item(session, item_id)
        records = records_of(session, item)
        reports = open_reports(session, item, batch.policy_id)
        flagged = tuple(name for name in records if accounts.sees(person, name))
        first = case.class_name if case else worst
        if first is not None and not flagged and not accounts.sees(person, first):
            raise NotAllowed(
                f"Item {item_id} shows a class that you do not review: ask an admin for access."
            )
        chosen = next((n for n in (wanted, first) if n in flagged), next(iter(flagged), first))
        return CaseFile(
            item=item,
            digest=digest,
            batch=batch,
            client=client,
            policy=policy,
            shown=_evidence(session, item, policy, chosen, worst, records),
            classes=flagged,
            case=case,
            mine=case is not None and case.holder == person.login and not case.pending,
            outcome=session.get(ReviewOutcome, item_id),
            statement=_statement(session, item_id),
            reports=tuple(r for r in reports if _sees(person, r.class_name)),
            reportable=_reportable(person, item, policy) if digest is not None else (),
        )


def _item(
    session: Session, item_id: int
) -> tuple[Item, str | None, Batch, str, Policy, str | None]:
    query = (
        select(
            Item, StoredImage.digest, Batch, Client.name, StoredPolicy.document, PolicyClass.name
        )
        .join(Batch, Batch.id == Item.batch_id)
        .join(Client, Client.id == Item.client_id)
        .join(StoredPolicy, StoredPolicy.id == Batch.policy_id)
        .outerjoin(StoredImage, StoredImage.id == Item.image_id)
        .outerjoin(PolicyClass, PolicyClass.id == Item.class_id)
        .where(Item.id == item_id)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        raise UnknownItem(f"There is no item {item_id}: look for it in the queue or by a search.")
    item, digest, batch, client, document, worst = found
    return item, digest, batch, client, Policy.model_validate(document), worst


def _evidence(
    session: Session,
    item: Item,
    policy: Policy,
    name: str | None,
    worst: str | None,
    records: dict[str, Explanation],
) -> ClassEvidence | None:
    """What was measured for a class; one without a record is the item's worst, or was reported."""
    if name is None:
        return None
    margin = item.margin if name == worst else margin_of(session, item, name)
    if name not in records and margin is None:
        return None
    return evidence(item.id, policy.forbidden(name), margin or 0.0, records.get(name))


def _sees(person: Person, class_name: str | None) -> bool:
    return class_name is None or accounts.sees(person, class_name)


def _reportable(person: Person, item: Item, policy: Policy) -> tuple[str, ...]:
    if item.verdict is None or item.verdict is Verdict.UNDETERMINED:
        return ()
    return tuple(c.name for c in reportable(policy) if accounts.sees(person, c.name))


def _statement(session: Session, item_id: int) -> str | None:
    return session.scalar(
        select(Appeal.statement).where(Appeal.item_id == item_id, Appeal.closed_at.is_(None))
    )
