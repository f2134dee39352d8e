"""Makes cases that wait for review, without judging any image."""

import hashlib
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, insert, select, update

from filter_service import accounts, ledger
from filter_service.accounts import Profile, Role
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Item,
    OutboxEvent,
    Person,
    PolicyClass,
    Review,
    ReviewCase,
    StoredImage,
    WebhookEndpoint,
)
from filter_service.policy import ForbiddenClass, Policy, Severity
from filter_service.reviews.case_opening import Opening, ReviewChance, open_cases
from filter_service.verdicts import Verdict

POLICY = Policy(
    name="house",
    neutral=("a wall",),
    classes=(
        ForbiddenClass(name="gun", prompts=("a gun",), threshold=0.5, severity=Severity.HIGH),
        ForbiddenClass(name="knife", prompts=("a knife",), threshold=0.5, severity=Severity.LOW),
    ),
)
LEASE = 60.0

_numbers = itertools.count()


@dataclass(frozen=True)
class Wanted:
    """A case to be made."""

    class_name: str = "gun"
    margin: float = 1.0
    sampled: bool = False
    chance: ReviewChance | None = None


def colleague(
    sessions: Sessions,
    login: str,
    role: Role = Role.MODERATOR,
    classes: tuple[str, ...] | None = None,
) -> Person:
    return accounts.add_person(sessions, login, Profile(role, classes=classes), None, "service")


def cases_of(
    sessions: Sessions, wanted: Sequence[Wanted], policy: Policy = POLICY, review: bool = True
) -> list[int]:
    """Items of one new batch, judged, which wait for review unless told otherwise; -> their ids."""
    severities = {c.name: c.severity for c in policy.classes}
    with sessions.begin() as session:
        policy_id = store_policy(session, policy)
        batch = Batch(id=uuid.uuid4(), policy_id=policy_id, label="", priority=0)
        session.add(batch)
        session.flush()
        names = select(PolicyClass.name, PolicyClass.id).where(PolicyClass.policy_id == policy_id)
        classes = dict(session.execute(names).all())
        digests = [hashlib.sha256(str(next(_numbers)).encode()).hexdigest() for _ in wanted]
        image_ids = session.scalars(
            insert(StoredImage).returning(StoredImage.id, sort_by_parameter_order=True),
            [{"digest": d, "bytes": 1} for d in digests],
        ).all()
        rows = [
            {
                "batch_id": batch.id,
                "image_id": image_id,
                "source": f"{number}.jpg",
                "verdict": Verdict.CLEAR if w.sampled else Verdict.FLAGGED,
                "judged_at": datetime.now(UTC),
                "class_id": classes[w.class_name],
                "margin": w.margin,
            }
            for number, (w, image_id) in enumerate(zip(wanted, image_ids, strict=True))
        ]
        added = insert(Item).returning(Item.id, sort_by_parameter_order=True)
        items = list(session.scalars(added, rows))
        openings = [
            Opening(
                item_id=item,
                batch_id=batch.id,
                image_id=image,
                policy_id=policy_id,
                class_name=w.class_name,
                severity=severities[w.class_name],
                margin=w.margin,
                sampled=w.sampled,
                chance=w.chance,
            )
            for item, image, w in zip(items, image_ids, wanted, strict=True)
        ]
        if review:
            open_cases(session, openings, "worker 1")
    return items


def one_case(sessions: Sessions, class_name: str = "gun", sampled: bool = False) -> int:
    margin = -1.0 if sampled else 1.0
    return cases_of(sessions, [Wanted(class_name, margin, sampled)])[0]


def same_picture(sessions: Sessions, item: int, other: int) -> None:
    """As if both had come with the same bytes."""
    with sessions.begin() as session:
        image = select(Item.image_id).where(Item.id == item).scalar_subquery()
        session.execute(update(Item).where(Item.id == other).values(image_id=image))


def leave(sessions: Sessions, item_id: int) -> None:
    """As if whoever holds it had closed the page long ago."""
    with sessions.begin() as session:
        session.execute(
            update(ReviewCase)
            .where(ReviewCase.item_id == item_id)
            .values(leased_until=func.now() - timedelta(seconds=1))
        )


def stage_of(sessions: Sessions, item_id: int) -> str | None:
    """In which stage an item waits; None: it does not."""
    with sessions.begin() as session:
        return session.scalar(select(ReviewCase.stage).where(ReviewCase.item_id == item_id))


def reviews_of(sessions: Sessions, item_id: int) -> list[Review]:
    query = select(Review).where(Review.item_id == item_id).order_by(Review.id)
    with sessions.begin() as session:
        return list(session.scalars(query))


def events_of(sessions: Sessions, item_id: int) -> list[str]:
    with sessions.begin() as session:
        return [e.event for e in ledger.of_item(session, item_id)]


def listening(sessions: Sessions) -> None:
    """A platform that wants to be told everything."""
    with sessions.begin() as session:
        session.add(WebhookEndpoint(url="https://example.org", secret="s", created_by="key a"))


def told_to_platforms(sessions: Sessions) -> list[OutboxEvent]:
    with sessions.begin() as session:
        return list(session.scalars(select(OutboxEvent).order_by(OutboxEvent.id)))
