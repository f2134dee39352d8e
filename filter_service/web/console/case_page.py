"""Reads everything that the page of one item shows, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from filter_service import accounts, retention
from filter_service.accounts import Ability, clients
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Batch,
    Client,
    Item,
    Person,
    PolicyClass,
    Review,
    ReviewCase,
    ReviewOutcome,
    StoredExplanation,
    StoredImage,
    StoredPolicy,
)
from filter_service.errors import NotAllowed, UnknownItem
from filter_service.images.views import ShareSeen
from filter_service.policy import Policy, Severity
from filter_service.rendering.class_evidence import ClassEvidence, evidence
from filter_service.reviews import restricted
from filter_service.reviews.queue import QueuedCase, case_of
from filter_service.verdicts.explanation import Explanation

SEVERITIES = tuple(s.value for s in Severity)  # as the queue numbers them


@dataclass(frozen=True, slots=True)
class CaseFile:
    """One item as its page shows it, by what this person may see."""

    item: Item
    digest: str | None
    gone: str | None  # why its picture is not here any more
    batch: Batch
    client: str  # by name
    policy: Policy
    shown: ClassEvidence | None
    classes: tuple[str, ...]  # flagged, and this person may see them
    case: QueuedCase | None
    mine: bool  # this person holds the case
    outcome: ReviewOutcome | None
    statement: str | None  # of the user who disagrees

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


@dataclass(frozen=True, slots=True)
class Undoable:
    """What somebody decided last and can still take back."""

    item_id: int
    decision: str
    class_name: str
    review_ids: tuple[int, ...]
    seconds: float  # left


def casefile(sessions: Sessions, person: Person, item_id: int, wanted: str | None) -> CaseFile:
    """Raises UnknownItem, or NotAllowed for an item of classes that this person may not see."""
    case = case_of(sessions, item_id)
    with sessions.begin() as session:
        restricted.require_open(session, item_id)
        item, digest, batch, client, policy, worst = _item(session, item_id)
        records = _records(session, item, policy)
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
            gone=retention.why_gone(session, item_id),
            batch=batch,
            client=client,
            policy=policy,
            shown=_evidence(item, policy, chosen, records),
            classes=flagged,
            case=case,
            mine=case is not None and case.holder == person.login and not case.pending,
            outcome=session.get(ReviewOutcome, item_id),
            statement=_statement(session, item_id),
        )


def undoable(sessions: Sessions, person: Person) -> Undoable | None:
    """The last decision of this person that has not taken effect."""
    mine = (
        select(Review)
        .where(
            Review.person_id == person.id,
            Review.effective_at > func.now(),
            Review.undone_at.is_(None),
            Review.settled_at.is_(None),
        )
        .order_by(Review.id.desc())
    )
    left = func.extract("epoch", Review.effective_at - func.now())
    with sessions.begin() as session:
        last = session.scalar(mine.limit(1))
        if last is None:
            return None
        together = Review.id == last.id
        if last.group_id is not None:
            together = Review.group_id == last.group_id
        found = session.execute(mine.with_only_columns(Review.id, left).where(together)).all()
        name = select(ReviewCase.class_name).where(ReviewCase.item_id == last.item_id)
        return Undoable(
            item_id=last.item_id,
            decision=last.decision,
            class_name=session.scalar(name) or "",
            review_ids=tuple(i for i, _ in found),
            seconds=float(min((s for _, s in found), default=0.0)),
        )


def probabilities(sessions: Sessions, items: Sequence[int]) -> dict[int, float | None]:
    """What the model gave each of these items."""
    query = select(Item.id, Item.probability).where(Item.id.in_(items))
    with sessions.begin() as session:
        return {i: p for i, p in session.execute(query)}


def colleagues(sessions: Sessions, person: Person) -> list[str]:
    """Whom a case can be handed to."""
    query = (
        select(Person.login)
        .where(
            Person.disabled_at.is_(None),
            Person.id != person.id,
            Person.role.in_(
                [r.value for r, may in accounts.ABILITIES.items() if Ability.REVIEW in may]
            ),
        )
        .order_by(Person.login)
        .limit(200)
    )
    with sessions.begin() as session:
        return list(session.scalars(query))


def policies_in_use(sessions: Sessions) -> list[str]:
    """The names of the policies that were stored, each once."""
    query = select(StoredPolicy.name).distinct().order_by(StoredPolicy.name).limit(200)
    with sessions.begin() as session:
        return list(session.scalars(query))


def client_names(sessions: Sessions, chosen: str | None = None) -> list[str]:
    """The clients that a list can be narrowed to; none where there is only one."""
    with sessions.begin() as session:
        names = clients.names(session)
    return names if len(names) > 1 or chosen else []


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


def _records(session: Session, item: Item, policy: Policy) -> dict[str, Explanation]:
    """What explains the item's flags, by class, in the policy's order."""
    query = (
        select(PolicyClass.name, StoredExplanation.record)
        .join(PolicyClass, PolicyClass.id == StoredExplanation.class_id)
        .where(
            StoredExplanation.item_id == item.id,
            StoredExplanation.encoder_id == item.encoder_id,
        )
        .order_by(PolicyClass.position)
    )
    return {name: Explanation.model_validate(r) for name, r in session.execute(query)}


def _evidence(
    item: Item, policy: Policy, name: str | None, records: dict[str, Explanation]
) -> ClassEvidence | None:
    """What was measured for a class; a class without a record is the item's worst."""
    if name is None or (name not in records and item.margin is None):
        return None
    return evidence(item.id, policy.forbidden(name), item.margin or 0.0, records.get(name))


def _statement(session: Session, item_id: int) -> str | None:
    return session.scalar(
        select(Appeal.statement).where(Appeal.item_id == item_id, Appeal.closed_at.is_(None))
    )
