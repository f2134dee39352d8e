"""Puts reported pictures before people, and answers reports once it is known what they are.

Reports of the same picture, of one client and under one policy, wait for one case and are answered
by one decision. Where the picture counts as forbidden already, that is the answer.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, or_, select, update
from sqlalchemy.orm import Session

from filter_service.db.policies import load_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Item,
    PolicyClass,
    Report,
    ReviewCase,
    ReviewOutcome,
    StoredImage,
    StoredPolicy,
    StoredScore,
)
from filter_service.policy import ForbiddenClass, Policy, Severity
from filter_service.reviews import restricted
from filter_service.reviews.case_opening import Opening, open_case
from filter_service.reviews.report_answers import answer
from filter_service.reviews.report_input import ReportSource
from filter_service.verdicts import Verdict, threshold_margin

ACTOR = "service"
AT_ONCE = 200  # items of one transaction


@dataclass(frozen=True, slots=True)
class _Reported:
    """An item that is reported, as it stands."""

    item: Item
    policy_id: int
    worst: str | None  # class
    decision: str | None  # confirmed or overturned
    sampled: bool | None  # the decision was about a clear item
    decided_for: str | None  # class
    review_id: int | None  # a person's decision

    @property
    def forbidden(self) -> bool:
        """The picture counts as forbidden, and nobody has to look."""
        if self.decision is None:
            return self.item.fully_automated
        return (self.decision == "overturned") == self.sampled


def follow(session: Session, items: Collection[int], actor: str) -> int:
    """Answer open reports of judged items, or put the pictures before people; how many items."""
    rows = session.execute(_judged().where(Item.id.in_(items))).all()
    for row in rows:
        _follow(session, _Reported(*row), actor)
    return len(rows)


def follow_left(sessions: Sessions, stop: Callable[[], bool] = lambda: False) -> int:
    """The same for what was left behind, such as by a case that was just being decided."""
    done = after = 0
    while not stop():
        with sessions.begin() as session:
            left = _judged().where(Item.id > after, ~_waits()).with_only_columns(Item.id)
            ids = session.scalars(left.distinct().order_by(Item.id).limit(AT_ONCE)).all()
            done += follow(session, ids, ACTOR)
        if not ids:
            break
        after = ids[-1]
    return done


def same_picture(image_id: int, client_id: int, policy_id: int) -> list[ColumnElement[bool]]:
    """The condition on items of one picture, client and policy, in whichever version."""
    name = select(StoredPolicy.name).where(StoredPolicy.id == policy_id).scalar_subquery()
    versions = select(StoredPolicy.id).where(StoredPolicy.name == name)
    batches = select(Batch.id).where(Batch.policy_id.in_(versions))
    return [
        Item.image_id == image_id,
        Item.client_id == client_id,
        Item.batch_id.in_(batches),
    ]


def reportable(policy: Policy) -> list[ForbiddenClass]:
    """The classes that a picture can be reported for, the worst first; none is restricted."""
    open_ = [c for c in policy.classes if c.sealed is None]
    return sorted(open_, key=lambda c: list(Severity).index(c.severity), reverse=True)


def margin_of(session: Session, item: Item, class_name: str) -> float | None:
    """The evidence for a class of its policy in an item's image, in logits; None: not kept."""
    return session.scalar(
        select(StoredScore.margin)
        .join(PolicyClass, PolicyClass.id == StoredScore.class_id)
        .join(Batch, Batch.policy_id == PolicyClass.policy_id)
        .where(
            Batch.id == item.batch_id,
            PolicyClass.name == class_name,
            StoredScore.encoder_id == item.encoder_id,
            StoredScore.image_id == item.image_id,
        )
    )


def _judged() -> Select[*tuple[Any, ...]]:
    """Items with open reports whose pictures can be looked at, as `_Reported` takes them."""
    reported = exists().where(Report.item_id == Item.id, Report.closed_at.is_(None))
    return (
        select(
            Item,
            Batch.policy_id,
            PolicyClass.name,
            ReviewOutcome.decision,
            ReviewOutcome.sampled,
            ReviewOutcome.class_name,
            ReviewOutcome.review_id,
        )
        .join(Batch, Batch.id == Item.batch_id)
        .join(StoredImage, StoredImage.id == Item.image_id)
        .outerjoin(PolicyClass, PolicyClass.id == Item.class_id)
        .outerjoin(ReviewOutcome, ReviewOutcome.item_id == Item.id)
        .where(reported, Item.verdict.in_([Verdict.CLEAR, Verdict.FLAGGED]))
        .where(StoredImage.digest.is_not(None), StoredImage.bytes_gone_at.is_(None))
        .where(~restricted.is_locked(Item.image_id))
        .order_by(Item.id)
        .execution_options(populate_existing=True)
    )


def _waits() -> ColumnElement[bool]:
    """The item's picture is before people, in a case of this client and policy."""
    theirs, ours = StoredPolicy.__table__.alias(), StoredPolicy.__table__.alias()
    return exists().where(
        ReviewCase.image_id == Item.image_id,
        ReviewCase.client_id == Item.client_id,
        theirs.c.id == ReviewCase.policy_id,
        ours.c.id == Batch.policy_id,
        theirs.c.name == ours.c.name,
    )


def _follow(session: Session, found: _Reported, actor: str) -> None:
    item = found.item
    mine = [Item.id == item.id]
    if found.forbidden:
        answer(session, mine, Verdict.FLAGGED, actor, found.review_id)
        return
    if found.review_id is not None:
        # It stands for users, who can complain; for the others, somebody else looks again.
        same = or_(Report.class_name.is_(None), Report.class_name == found.decided_for)
        by_users = [*mine, Report.source == ReportSource.USER.value, same]
        answer(session, by_users, Verdict.CLEAR, actor, found.review_id)
    reports = session.scalars(
        select(Report)
        .where(Report.item_id == item.id, Report.closed_at.is_(None))
        .order_by(Report.reported_at, Report.id)
    ).all()
    if not reports:
        return
    rank = max(ReportSource(r.source).rank for r in reports)
    if _join(session, found, rank):
        return
    policy = load_policy(session, found.policy_id).policy
    named = [r.class_name for r in reports] + [found.decided_for, found.worst]
    forbidden = _class(policy, named)
    if forbidden is not None:
        open_case(session, _opening(session, found, forbidden, rank), actor)


def _join(session: Session, found: _Reported, rank: int) -> bool:
    """Whether the picture is before people already; whoever reported it gives it its place."""
    assert found.item.image_id is not None
    picture = same_picture(found.item.image_id, found.item.client_id, found.policy_id)
    waiting = select(ReviewCase.item_id).join(Item, Item.id == ReviewCase.item_id).where(*picture)
    cases = session.scalars(waiting.order_by(ReviewCase.item_id)).all()
    # Who is just claiming or deciding it does so undisturbed: it is at hand then.
    free = select(ReviewCase.item_id).where(ReviewCase.item_id.in_(cases))
    higher = session.scalars(
        free.where(ReviewCase.reported < rank).with_for_update(skip_locked=True)
    ).all()
    session.execute(update(ReviewCase).where(ReviewCase.item_id.in_(higher)).values(reported=rank))
    return bool(cases)


def _class(policy: Policy, named: Sequence[str | None]) -> ForbiddenClass | None:
    """The first that is named and can be reviewed, else the worst that can; None: none can."""
    known = {c.name: c for c in reportable(policy)}
    first = (known[name] for name in named if name in known)
    return next(first, next(iter(known.values()), None))


def _opening(session: Session, found: _Reported, forbidden: ForbiddenClass, rank: int) -> Opening:
    item = found.item
    assert item.image_id is not None
    margin = item.margin
    if forbidden.name != found.worst:
        margin = margin_of(session, item, forbidden.name)
    return Opening(
        item_id=item.id,
        batch_id=item.batch_id,
        image_id=item.image_id,
        policy_id=found.policy_id,
        class_name=forbidden.name,
        severity=forbidden.severity,
        margin=0.0 if margin is None else margin - threshold_margin(forbidden),
        sampled=item.verdict is Verdict.CLEAR,
        reported=rank,
    )
