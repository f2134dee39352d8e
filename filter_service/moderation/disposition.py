"""What follows from a verdict: hash lists, cases, tallies and webhook events."""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.tables import Item
from filter_service.ledger import Entry, Event
from filter_service.policy import ForbiddenClass, Policy
from filter_service.reviews import report_cases, tallies
from filter_service.reviews.case_opening import Opening, ReviewChance, open_cases
from filter_service.reviews.hash_matching import HashMatch, ListKind
from filter_service.reviews.list_matches import DECIDES, keep_outcomes
from filter_service.reviews.review_rules import (
    ClearDraw,
    SamplingRule,
    active_rules,
    draw_certain,
    draw_clear,
)
from filter_service.reviews.settlement import Decision
from filter_service.statements import issue_queue as statements
from filter_service.statements.issuance import stated
from filter_service.verdicts import Outcome, Score, Verdict, threshold_margin
from filter_service.webhooks import EventType, announce, is_wanted


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """An item with what came out for its image."""

    item_id: int
    batch_id: uuid.UUID
    image_id: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Disposition:
    """What becomes of a judged item: as the model judged it, unless a list decides."""

    judged: JudgedItem
    verdict: Verdict
    score: Score | None  # that stands with the item
    class_name: str | None  # that it is flagged for, or nearest to
    entry: HashMatch | None = None  # the list that decided
    review: Score | None = None  # for what it waits for somebody's decision
    acts: bool = False  # by itself, so that only a sample of such flags waits
    restricted: ForbiddenClass | None = None  # it is to be locked away
    hidden: bool = False  # its image is locked away: nobody reviews it

    def score_of(self, class_name: str) -> Score:
        return next(s for s in self.judged.outcome.scores if s.class_name == class_name)

    @property
    def decision(self) -> Decision | None:
        """What a list decided."""
        return DECIDES[self.entry.kind] if self.entry else None


def rule(judged: JudgedItem, hits: Sequence[HashMatch], policy: Policy) -> Disposition:
    """What lists make of an item. Only classes that its policy forbids count.

    A block wins over an allowance. An allowance takes one class away; what is flagged for another,
    too, waits for review under that one, however sure the model is. Restricted classes win over
    all: nothing is allowed there.
    """
    outcome = judged.outcome
    scores = {s.class_name: s for s in outcome.scores}
    names = {c.name for c in policy.classes}
    blocks = [h for h in hits if h.kind is ListKind.BLOCK and h.class_name in names]
    if (closed := _restricted(outcome, blocks, policy)) is not None:
        name = closed.name
        block = next((h for h in blocks if h.class_name == name), None)
        score = scores.get(name)
        return Disposition(
            judged, Verdict.FLAGGED, score, name, block, restricted=closed, hidden=True
        )
    if blocks:
        name = blocks[0].class_name
        return Disposition(judged, Verdict.FLAGGED, scores.get(name), name, blocks[0])
    worst = outcome.worst
    name_of_worst = worst.class_name if worst else None
    allowed = {h.class_name: h for h in reversed(hits) if h.kind is ListKind.ALLOW}
    flags = [s for s in _by_nearness(outcome.scores) if s.flagged]
    left = [s for s in flags if s.class_name not in allowed]
    entry = allowed[flags[0].class_name] if flags and not left else None
    return Disposition(
        judged,
        outcome.verdict,
        worst,
        name_of_worst,
        entry,
        review=left[0] if left else None,
        acts=bool(left) and left == flags and left[0].acts,
    )


def _restricted(
    outcome: Outcome, blocks: Sequence[HashMatch], policy: Policy
) -> ForbiddenClass | None:
    """The restricted class that an image is flagged for, by model or list; the longest kept."""
    names = {s.class_name for s in outcome.scores if s.flagged} | {h.class_name for h in blocks}
    found = [c for c in policy.classes if c.sealed is not None and c.name in names]
    return max(found, key=lambda c: c.sealed.days if c.sealed else 0, default=None)


def follow(
    session: Session, rulings: Sequence[Disposition], policy: Policy, policy_id: int, actor: str
) -> None:
    """Everything that follows, in the caller's transaction."""
    _keep_decisions(session, rulings, actor)
    _open(session, rulings, policy, policy_id, actor)
    tallies.count_all(session, Counter(_counted(rulings)))
    if policy.notices is not None:
        at_once = policy.notices.acts_on == "flag"
        shown = [r for r in rulings if r.verdict is Verdict.FLAGGED and not r.hidden]
        statements.note(session, (r.judged.item_id for r in shown if at_once or r.acts))
    _tell(session, rulings, policy)
    report_cases.follow(session, [r.judged.item_id for r in rulings if not r.hidden], actor)


def tell_undetermined(session: Session, items: Iterable[tuple[int, uuid.UUID, str, str]]) -> None:
    """Count and announce items that became undetermined: id, batch, source and reason."""
    count = 0
    for item_id, batch_id, source, reason in items:
        count += 1
        told = _told(item_id, batch_id, source, Verdict.UNDETERMINED) | {"reason": reason}
        _announce(session, EventType.ITEM_UNDETERMINED, told, item_id, batch_id)
    tallies.count(session, tallies.UNDETERMINED, amount=count)


def _keep_decisions(session: Session, rulings: Sequence[Disposition], actor: str) -> None:
    """The outcomes that lists decided, with the entries to blame."""
    rows = []
    entries = []
    for r in rulings:
        if r.entry is not None:
            rows.append(
                {
                    "item_id": r.judged.item_id,
                    "image_id": r.judged.image_id,
                    "class_name": r.entry.class_name,
                    "decision": r.decision,
                    "sampled": False,
                    "review_id": None,
                }
            )
            about = {
                "entry": r.entry.entry_id,
                "match": r.entry.match,
                "class": r.entry.class_name,
                "decision": r.decision,
            }
            entries.append(
                Entry(Event.LIST_DECIDED, actor, r.judged.item_id, r.judged.batch_id, about)
            )
    if rows:
        keep_outcomes(session, rows)
        ledger.append(session, entries)


def _open(
    session: Session, rulings: Sequence[Disposition], policy: Policy, policy_id: int, actor: str
) -> None:
    """Cases for what waits for a person, and for some of what does not."""
    rules = active_rules(session)
    openings = []
    for r in rulings:
        draw = _drawn(r, rules, policy)
        score = r.score_of(draw.class_names[0]) if draw else r.review
        chance = draw.chance if draw else _chance_of_flag(r, rules)
        if score is not None and chance is not None and not r.hidden:
            forbidden = policy.forbidden(score.class_name)
            openings.append(
                Opening(
                    item_id=r.judged.item_id,
                    batch_id=r.judged.batch_id,
                    image_id=r.judged.image_id,
                    policy_id=policy_id,
                    class_name=score.class_name,
                    severity=forbidden.severity,
                    margin=score.margin - threshold_margin(forbidden),
                    sampled=draw is not None,
                    chance=chance,
                )
            )
    open_cases(session, openings, actor)


def _chance_of_flag(ruling: Disposition, rules: Sequence[SamplingRule]) -> ReviewChance | None:
    """Every flag is reviewed but what acts by itself, of which some are; None: not this one."""
    if ruling.review is None:
        return None
    name = ruling.review.class_name
    if ruling.acts:
        return draw_certain(rules, name, ruling.judged.item_id)
    return ReviewChance.of_flag(name)


def _drawn(ruling: Disposition, rules: Sequence[SamplingRule], policy: Policy) -> ClearDraw | None:
    """Whether a clear item is to be reviewed all the same, and for which classes."""
    if ruling.verdict is not Verdict.CLEAR or not rules:
        return None
    scores = _by_nearness(ruling.judged.outcome.scores)
    below = {
        s.class_name: threshold_margin(policy.forbidden(s.class_name)) - s.margin for s in scores
    }
    return draw_clear(rules, below, ruling.judged.item_id)


def _counted(rulings: Sequence[Disposition]) -> Iterable[tuple[str, str]]:
    for r in rulings:
        if r.verdict is Verdict.UNDETERMINED:
            yield tallies.UNDETERMINED, ""
        else:
            yield tallies.JUDGED, ""
        if r.verdict is Verdict.FLAGGED:
            yield tallies.FLAGGED, r.class_name or ""


def _tell(session: Session, rulings: Sequence[Disposition], policy: Policy) -> None:
    """Announce what is not clear; what a list allows is not flagged for the platform."""
    _tell_clear(session, rulings)
    loud = [
        r
        for r in rulings
        if r.verdict is not Verdict.CLEAR and r.decision is not Decision.OVERTURNED
    ]
    ids = [r.judged.item_id for r in loud]
    if not ids:
        return
    sources = dict(session.execute(select(Item.id, Item.source).where(Item.id.in_(ids))).all())
    for r in loud:
        item, batch = r.judged.item_id, r.judged.batch_id
        told = _told(item, batch, sources[item], r.verdict)
        if r.verdict is Verdict.UNDETERMINED:
            told |= {"reason": r.judged.outcome.reason}
            _announce(session, EventType.ITEM_UNDETERMINED, told, item, batch)
        elif r.restricted is not None:  # the platform must act, and needs no more for it
            _announce(session, EventType.ITEM_FLAGGED, told | {"class": r.class_name}, item, batch)
        else:
            told |= {
                "class": r.class_name,
                "probability": r.score and r.score.probability,
                "list_entry": r.entry and r.entry.entry_id,
                "fully_automated": r.acts,
                "statement": stated(session, item) if _acts_now(r, policy) else None,
            }
            _announce(session, EventType.ITEM_FLAGGED, told, item, batch)


def _tell_clear(session: Session, rulings: Sequence[Disposition]) -> None:
    """Announce what is clear, or allowed by a list, where somebody asks to be told."""
    clear = [
        r
        for r in rulings
        if not r.hidden and (r.verdict is Verdict.CLEAR or r.decision is Decision.OVERTURNED)
    ]
    if not clear or not is_wanted(session, EventType.ITEM_CLEAR):
        return
    ids = [r.judged.item_id for r in clear]
    sources = dict(session.execute(select(Item.id, Item.source).where(Item.id.in_(ids))).all())
    for r in clear:
        item, batch = r.judged.item_id, r.judged.batch_id
        told = _told(item, batch, sources[item], r.verdict) | {
            "final": Verdict.CLEAR,
            "list_entry": r.entry and r.entry.entry_id,
        }
        _announce(session, EventType.ITEM_CLEAR, told, item, batch)


def _acts_now(ruling: Disposition, policy: Policy) -> bool:
    """The platform restricts it before any person has looked, and has to say why."""
    if policy.notices is None:
        return False
    listed = ruling.decision is Decision.CONFIRMED
    return ruling.acts or listed or policy.notices.acts_on == "flag"


def _told(item: int, batch: uuid.UUID, source: str, verdict: Verdict) -> dict[str, Any]:
    return {"item": item, "batch": str(batch), "source": source, "verdict": verdict}


def _announce(
    session: Session, type: EventType, told: dict[str, Any], item: int, batch: uuid.UUID
) -> None:
    announce(session, type, f"item {item}", told, item, batch)


def _by_nearness(scores: Iterable[Score]) -> list[Score]:
    """What acts by itself first, and what is furthest over its threshold."""
    return sorted(scores, key=lambda s: s.urgency, reverse=True)
