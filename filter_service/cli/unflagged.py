"""Why an item was not flagged: its margin for every class, and what can be done about it."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from filter_service.db.policies import load_policy
from filter_service.db.tables import Batch, Item, StoredScore
from filter_service.policy import ForbiddenClass
from filter_service.verdicts import Verdict, probability, threshold_margin

MORE = (
    "  see where it comes nearest: `filter-service explain {item} --all --out report.html`; "
    "for another class: --class NAME"
)


def why(session: Session, item: Item) -> str:
    """What an item without explanations has for a reason, in lines for a terminal."""
    if item.verdict is Verdict.CLEAR:
        lines = _margins(session, item)
        return "\n".join([_headline(item, lines), *lines, MORE.format(item=item.id)])
    if item.verdict is Verdict.UNDETERMINED:
        return (
            f"  {item.reason}\n  to have its batch's undetermined items tried again: "
            f"`filter-service retry {item.batch_id}`"
        )
    if item.verdict is Verdict.FLAGGED:  # by a list, or for a class that is locked away
        return "  no explanation is kept for it"
    return f"  see how its batch fares: `filter-service status {item.batch_id}`"


def _headline(item: Item, lines: list[str]) -> str:
    if item.list_entry_id is not None:
        return "  a list of what is allowed decided, whatever the model measured:"
    if not lines:
        return "  every class is under its threshold; the margins are no longer kept"
    return "  every class is under its threshold:"


def _margins(session: Session, item: Item) -> list[str]:
    """A line for each class, the nearest to its threshold first."""
    found = [(m - threshold_margin(c), c, m) for c, m in _measured(session, item)]
    return [_line(c, m) for _, c, m in sorted(found, key=lambda row: -row[0])]


def _line(forbidden: ForbiddenClass, margin: float) -> str:

    return (
        f"  {forbidden.name}: margin {margin:.2f} logits, {threshold_margin(forbidden):.2f} would "
        f"flag it; probability {probability(margin, forbidden):.3f} "
        f"(threshold {forbidden.threshold})"
    )


def _measured(session: Session, item: Item) -> list[tuple[ForbiddenClass, float]]:
    """Every class of the item's policy with its largest margin, in logits, over the frames."""
    known = load_policy(session, session.get_one(Batch, item.batch_id).policy_id)
    largest = (
        select(StoredScore.class_id, func.max(StoredScore.margin))
        .where(
            StoredScore.encoder_id == item.encoder_id,
            StoredScore.image_id == item.image_id,
            StoredScore.class_id.in_(known.class_ids.values()),
        )
        .group_by(StoredScore.class_id)
    )
    margins = dict(session.execute(largest).all())
    return [
        (c, margins[known.class_ids[c.name]])
        for c in known.policy.classes
        if known.class_ids[c.name] in margins
    ]
