"""Applies a new version of a policy to what was judged before, as chosen at its activation.

In small batches, oldest first: each is one transaction that also says how far it came. So this may
be killed anywhere and taken up again, and every effect is there once.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session, aliased

from filter_service.db.arrivals import hold_images
from filter_service.db.embeddings import known_vectors
from filter_service.db.policies import load_policy
from filter_service.db.query_encoder import LazyQueryEncoder
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation, Batch, Item
from filter_service.policy import Policy
from filter_service.rollout.activation import Flags
from filter_service.rollout.reevaluation_items import concerns, first_arriving, items_before
from filter_service.rollout.requeue import Old, Sides, VersionAnswer, judge_anew, reopen
from filter_service.scoring import PolicyVectors
from filter_service.settings import Settings
from filter_service.verdicts import KnownVectors, Verdict, judge, score, threshold_margin

STEP = 1_000  # ids of items looked at in one transaction


class PolicyEncoder(Protocol):
    """Puts policies into the space of the served encoder; the first call may take seconds."""

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        """Raises Transient when no encoder can be had just now."""


def reconsider(
    sessions: Sessions,
    settings: Settings,
    notify_workers: Callable[[], object],
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Do what activations ask for, as far as it can be done now; how many items were touched.

    The model is loaded only if there is something to compare with its texts, and forgotten after.
    """
    encoder = policy_encoder(settings, sessions)
    return reconsider_with(sessions, encoder, notify_workers, stop)


def policy_encoder(settings: Settings, sessions: Sessions) -> "Loading":
    """The served encoder for texts alone, loaded by the first question."""
    # Texts are few: they are not worth the memory of an accelerator, nor waiting for one.
    # The band of bfloat16 is the widest, whatever precision the workers screen in.
    precision = "bfloat16" if settings.precision == "auto" else settings.precision
    texts = settings.model_copy(update={"device": "cpu", "precision": precision})
    return Loading(texts, sessions)


@dataclass(frozen=True)
class Loading:
    """An encoder that is loaded by the first question."""

    settings: Settings
    sessions: Sessions

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        return self._encoder.policy(policy)

    @cached_property
    def _encoder(self) -> PolicyEncoder:
        return LazyQueryEncoder(self.settings, self.sessions)


def reconsider_with(
    sessions: Sessions,
    encoder: PolicyEncoder,
    notify_workers: Callable[[], object],
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """The same with a encoder at hand."""
    touched = 0
    sides: dict[int, Sides] = {}  # by activation
    held: set[int] = set()  # activations
    while not stop():
        with sessions.begin() as session:
            work = _next(session, held)
            step = None if work is None else _step(session, work, sides.get(work.id))
        if work is None:
            break
        if step is None:  # between two transactions: none waits for a model
            sides[work.id] = _sides(sessions, work, encoder)
            continue
        touched += step.touched
        if step.queued:
            notify_workers()
        if not step.went_on:
            held.add(work.id)
    return touched


@dataclass(frozen=True, slots=True)
class _Step:
    """What one transaction did."""

    went_on: bool  # False: under the version before, something waits to be judged or still arrives
    touched: int = 0
    queued: bool = False


def _next(session: Session, held: Collection[int]) -> Activation | None:
    """The oldest activation with something left to do, unless it is held or somebody is at it."""
    older = aliased(Activation)
    # Of a name the oldest and no other: what it judges anew is there for the next one to look at.
    first = ~exists().where(
        older.name == Activation.name,
        older.id < Activation.id,
        older.done_at.is_(None),
        older.activated_at.is_not(None),
    )
    return session.scalar(
        select(Activation)
        .where(
            Activation.done_at.is_(None),
            Activation.activated_at.is_not(None),
            Activation.id.not_in(held),
            first,
        )
        .order_by(Activation.id)
        .limit(1)
        .with_for_update(of=Activation, skip_locked=True)
        .execution_options(populate_existing=True)
    )


def _sides(sessions: Sessions, work: Activation, encoder: PolicyEncoder) -> Sides:
    assert work.before_id is not None, "without it there is nothing to do"
    with sessions.begin() as session:
        old = load_policy(session, work.before_id).policy
        new = load_policy(session, work.policy_id).policy
    encoder_id, before = encoder.policy(old)
    return Sides(encoder_id, before, encoder.policy(new)[1])


def _step(session: Session, work: Activation, sides: Sides | None) -> _Step | None:
    """See to the items of some ids, none of which is looked at again; None: the model is needed."""
    arriving = first_arriving(session, work)
    newest = session.scalar(select(func.max(Item.id))) or 0
    until = min(work.reached + STEP, newest)
    if arriving is not None:
        until = max(work.reached, min(until, arriving - 1))
    items = items_before(session, work, until)
    waiting = next((i for i in items if i.waits), None)
    if waiting is not None:  # it will be judged, and then its turn comes
        items = [i for i in items if i.item_id < waiting.item_id]
        until = waiting.item_id - 1
    wanted = [i for i in items if concerns(i, Flags(work.flags))]
    if wanted and sides is None:
        return None
    touched, left = _see_to(session, work, wanted, sides) if wanted and sides else (0, 0)
    ended = waiting is None and arriving is None and until == newest
    went_on = ended or until > work.reached
    values = {
        "reached": until,
        "touched": Activation.touched + touched,
        "left_alone": Activation.left_alone + left,
    }
    if ended:
        values["done_at"] = func.now()
        _close_batches(session, work)
    session.execute(update(Activation).where(Activation.id == work.id).values(values))
    return _Step(went_on, touched, touched > 0 and work.flags == Flags.REEVALUATE)


def _see_to(
    session: Session, work: Activation, items: Sequence[Old], sides: Sides
) -> tuple[int, int]:
    """-> how many were touched, and how many nothing can be said about any more."""
    hold_images(session, {i.image_id for i in items})
    here = [i for i in items if i.encoder_id == sides.encoder_id and not i.bytes_gone]
    known = known_vectors(session, sides.encoder_id, {i.image_id for i in here})
    placed = [(i, known[i.digest]) for i in here if i.digest and i.digest in known]
    answered = [(i, _answer(sides.old, v), _answer(sides.new, v)) for i, v in placed]
    if work.flags == Flags.REOPEN:
        gone = [
            (i, before)
            for i, before, after in answered
            if before.flag is not None and after.verdict is Verdict.CLEAR
        ]
        reopen(session, work, gone, sides)
        return len(gone), len(items) - len(placed)
    changed = [
        i
        for i, before, after in answered
        # The model's answers, both: what a list decides, it decides under the new version, too.
        if (before.verdict, before.flag) != (after.verdict, after.flag) or after.unsure
    ]
    if changed:
        judge_anew(session, work, changed, sides.new.policy)
    return len(changed), len(items) - len(placed)


def _answer(version: PolicyVectors, known: KnownVectors) -> VersionAnswer:
    margins = version.margins(known.vectors)  # (views, classes)
    scores = score(margins, known.views, known.exact, version.policy)
    thresholds = np.array([threshold_margin(c) for c in version.policy.classes])
    near = np.abs(margins - thresholds) < version.bands  # (views, classes)
    return VersionAnswer(judge(scores), scores, bool(near[~np.array(known.exact)].any()))


def _close_batches(session: Session, work: Activation) -> None:
    """No more items come, so that their end can be told."""
    total = select(func.count()).where(Item.batch_id == Batch.id).scalar_subquery()
    session.execute(update(Batch).where(Batch.activation_id == work.id).values(total=total))
