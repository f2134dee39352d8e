"""Review rules: when a second look is required, and which items nobody waits for are sampled."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.accounts import Ability, may
from filter_service.db.session import Sessions
from filter_service.db.tables import Person, ReviewRule
from filter_service.errors import InvalidRequest, NotAllowed, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.policy.strict import Name
from filter_service.reviews.case_opening import ReviewChance

_NAME: TypeAdapter[str] = TypeAdapter(Name)

CERTAIN_SHARE = 0.05  # of flags that act by themselves, reviewed where no rule says how many


class RuleKind(StrEnum):
    """What a rule asks for."""

    SECOND_LOOK = "second_look"  # a blind decision by another person
    CLEAR_SAMPLE = "clear_sample"  # clear items are reviewed, to estimate what is missed
    CERTAIN_SAMPLE = "certain_sample"  # flags that act by themselves are, to see how many are right


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """A share of some items, drawn at random but always the same ones."""

    id: int
    kind: RuleKind
    class_name: str | None  # None: every class
    margin_below: float | None  # only so many logits from its threshold; None: any
    share: float  # of those, above 0 to 1
    created_by: str
    created_at: datetime


class RuleSubject(Protocol):
    """What a rule needs to know of an item."""

    @property
    def item_id(self) -> int: ...
    @property
    def class_name(self) -> str: ...
    @property
    def margin(self) -> float: ...


def add_rule(
    sessions: Sessions,
    person: Person,
    kind: RuleKind,
    *,
    class_name: str | None = None,
    margin_below: float | None = None,
    share: float = 1.0,
) -> SamplingRule:
    """Ask for second looks or samples from now on."""
    _require(person)
    _check(kind, class_name, margin_below, share)
    rule = {
        "kind": kind,
        "class_name": class_name,
        "margin_below": margin_below,
        "share": share,
    }
    actor = f"person {person.login}"
    with sessions.begin() as session:
        row = session.scalars(
            insert(ReviewRule).values(created_by=actor, **rule).returning(ReviewRule)
        ).one()
        ledger.append(session, [Entry(Event.RULE_ADDED, actor, details={"rule": row.id, **rule})])
        return _rule(row)


def remove_rule(sessions: Sessions, person: Person, rule_id: int) -> None:
    """Ask no more; what was drawn already stays drawn."""
    _require(person)
    gone = (
        update(ReviewRule)
        .where(ReviewRule.id == rule_id, ReviewRule.removed_at.is_(None))
        .values(removed_at=func.now())
        .returning(ReviewRule.id)
    )
    with sessions.begin() as session:
        if session.scalar(gone) is None:
            raise UnknownEntry(f"There is no rule {rule_id} to remove: look at the list of rules.")
        actor = f"person {person.login}"
        ledger.append(session, [Entry(Event.RULE_REMOVED, actor, details={"rule": rule_id})])


def active_rules(session: Session) -> list[SamplingRule]:
    """The rules that hold now, oldest first."""
    rows = select(ReviewRule).where(ReviewRule.removed_at.is_(None)).order_by(ReviewRule.id)
    return [_rule(row) for row in session.scalars(rows)]


def asks_second_look(rules: Sequence[SamplingRule], case: RuleSubject) -> bool:
    """Whether the first decision about this case is to be checked by another person."""
    return any(
        rule.kind is RuleKind.SECOND_LOOK
        and rule.class_name in (None, case.class_name)
        and (rule.margin_below is None or abs(case.margin) < rule.margin_below)
        and _drawn(rule, case.item_id)
        for rule in rules
    )


@dataclass(frozen=True, slots=True)
class ClearDraw:
    """For which classes a clear item is reviewed all the same, and how likely that was."""

    class_names: tuple[str, ...]  # nearest first
    chance: ReviewChance


def draw_clear(
    rules: Sequence[SamplingRule], below: Mapping[str, float], item_id: int
) -> ClearDraw | None:
    """Whether a clear item is to be reviewed; `below`: logits under the threshold, by class.

    Each rule draws by itself, so that the chance is that of being drawn by any that could have.
    """
    could = {name: [r for r in rules if _concerns(r, name, gap)] for name, gap in below.items()}
    every = {rule.id: rule for some in could.values() for rule in some}
    drew = {rule.id for rule in every.values() if _drawn(rule, item_id)}
    names = tuple(n for n, some in could.items() if any(r.id in drew for r in some))
    if not names:
        return None
    chance = ReviewChance(
        any_of(rule.share for rule in every.values()),
        {name: any_of(rule.share for rule in could[name]) for name in names},
        evenly=any(every[rule].margin_below is None for rule in drew),
    )
    return ClearDraw(names, chance)


def draw_certain(
    rules: Sequence[SamplingRule], class_name: str, item_id: int
) -> ReviewChance | None:
    """Whether a flag that acts by itself is to be reviewed all the same.

    The rules for its class say how likely that is, and without one CERTAIN_SHARE.
    """
    shares = {
        rule.id: rule.share
        for rule in rules
        if rule.kind is RuleKind.CERTAIN_SAMPLE and rule.class_name in (None, class_name)
    } or {0: CERTAIN_SHARE}  # no rule has the number 0
    if not any(_falls_to(rule_id, share, item_id) for rule_id, share in shares.items()):
        return None
    return ReviewChance.of_flag(class_name, any_of(shares.values()))


def _concerns(rule: SamplingRule, class_name: str, below: float) -> bool:
    """Whether a rule could draw a clear item for a class."""
    return (
        rule.kind is RuleKind.CLEAR_SAMPLE
        and rule.class_name in (None, class_name)
        and (rule.margin_below is None or below < rule.margin_below)
    )


def any_of(shares: Iterable[float]) -> float:
    """The chance of being drawn by any rule of these shares, each of which draws by itself."""
    return 1 - math.prod(1 - share for share in shares)


def _drawn(rule: SamplingRule, item_id: int) -> bool:
    return _falls_to(rule.id, rule.share, item_id)


def _falls_to(rule_id: int, share: float, item_id: int) -> bool:
    """At random, but the same for ever and everywhere, so that it can be checked afterwards."""
    digest = hashlib.blake2b(f"{rule_id}/{item_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def _require(person: Person) -> None:
    if not may(person, Ability.RULES):
        raise NotAllowed(
            f"{person.login} may not change rules as {person.role}: ask a policy editor."
        )


def _check(
    kind: RuleKind, class_name: str | None, margin_below: float | None, share: float
) -> None:
    if kind is RuleKind.CERTAIN_SAMPLE and margin_below is not None:
        raise InvalidRequest(
            "Flags that act by themselves are drawn evenly, however far they are from the "
            "threshold: leave the margin out."
        )
    if not 0 < share <= 1:
        raise InvalidRequest(f"The share is {share}: give a number above 0 and at most 1.")
    if margin_below is not None and not (math.isfinite(margin_below) and margin_below > 0):
        raise InvalidRequest(f"The margin is {margin_below}: give logits above 0, or none for any.")
    try:
        _NAME.validate_python("any" if class_name is None else class_name)
    except ValidationError as error:
        raise InvalidRequest(
            f"{class_name!r} names no class: use lower case, digits, - and _; none is every class."
        ) from error


def _rule(row: ReviewRule) -> SamplingRule:
    return SamplingRule(
        id=row.id,
        kind=RuleKind(row.kind),
        class_name=row.class_name,
        margin_below=row.margin_below,
        share=row.share,
        created_by=row.created_by,
        created_at=row.created_at,
    )
