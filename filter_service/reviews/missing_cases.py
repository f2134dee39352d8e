"""Opens cases for flags that have none, such as those of earlier versions."""

from collections.abc import Callable

from sqlalchemy import Select, exists, or_, select
from sqlalchemy.orm import aliased

from filter_service.db.policies import load_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Item,
    PolicyClass,
    Restriction,
    Review,
    ReviewCase,
    ReviewOutcome,
    StoredImage,
)
from filter_service.policy import Policy
from filter_service.reviews.case_opening import Opening, ReviewChance, open_cases
from filter_service.verdicts import Verdict, threshold_margin

ACTOR = "service"
AT_ONCE = 500  # cases of one transaction


def open_missing(sessions: Sessions, stop: Callable[[], bool] = lambda: False) -> int:
    """Let every flag wait for review that nobody has decided and that waits nowhere; how many.

    What acted by itself, was erased, has no bytes left, is locked away or was judged anew since
    stays as it is.
    """
    opened = after = 0
    while not stop():
        with sessions.begin() as session:
            rows = session.execute(_flags(after)).all()
            known = {policy_id for _, policy_id, _ in rows}
            policies = {each: load_policy(session, each).policy for each in known}
            openings = [
                _opening(item, policy_id, name, policies[policy_id])
                for item, policy_id, name in rows
                if policies[policy_id].forbidden(name).sealed is None
            ]
            open_cases(session, openings, ACTOR)
        if not rows:
            break
        opened += len(openings)
        after = rows[-1][0].id
    return opened


def _flags(after: int) -> Select[Item, int, str]:
    """Flagged items that nothing became of, with policy and class."""
    newer = aliased(Item)
    seen = (
        exists().where(ReviewCase.item_id == Item.id),
        exists().where(ReviewOutcome.item_id == Item.id),
        exists().where(Review.item_id == Item.id),
        exists().where(or_(Restriction.item_id == Item.id, Restriction.image_id == Item.image_id)),
        exists().where(newer.supersedes == Item.id),
    )
    return (
        select(Item, Batch.policy_id, PolicyClass.name)
        .join(Batch, Batch.id == Item.batch_id)
        .join(StoredImage, StoredImage.id == Item.image_id)
        .join(PolicyClass, PolicyClass.id == Item.class_id)
        .where(Item.verdict == Verdict.FLAGGED, ~Item.fully_automated)
        .where(Item.margin.is_not(None), Item.id > after)
        .where(
            StoredImage.digest.is_not(None),
            StoredImage.bytes_gone_at.is_(None),
            *(~s for s in seen),
        )
        .order_by(Item.id)
        .limit(AT_ONCE)
    )


def _opening(item: Item, policy_id: int, name: str, policy: Policy) -> Opening:
    assert item.image_id is not None and item.margin is not None
    forbidden = policy.forbidden(name)
    return Opening(
        item_id=item.id,
        batch_id=item.batch_id,
        image_id=item.image_id,
        policy_id=policy_id,
        class_name=name,
        severity=forbidden.severity,
        margin=item.margin - threshold_margin(forbidden),
        chance=ReviewChance.of_flag(name),
    )
