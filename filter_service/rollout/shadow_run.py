"""Compares what shadows would flag with what was flagged, from kept vectors, a little at each run.

One transaction sees to the items of some ids and says how far it came, so that a run may end
anywhere, and no item counts twice. Nothing but the shadow's own rows is written.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
from sqlalchemy import exists, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service.db.arrivals import hold_images
from filter_service.db.embeddings import known_vectors
from filter_service.db.policies import load_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Item,
    PolicyShadow,
    PolicyVersion,
    Restriction,
    ShadowFlag,
    StoredImage,
    StoredPolicy,
    StoredScore,
)
from filter_service.errors import FilterServiceError
from filter_service.policy import Policy
from filter_service.rollout.reevaluation import PolicyEncoder, policy_encoder
from filter_service.rollout.shadows import end_of_activated
from filter_service.scoring import PolicyVectors
from filter_service.settings import Settings
from filter_service.verdicts import KnownVectors, Verdict, threshold_margin

logger = logging.getLogger(__name__)

STEP = 1_000  # ids of items looked at in one transaction
WAIT = timedelta(hours=1)  # that an item may be judged late


@dataclass
class PolicyTexts:
    """Policies in the served encoder's space, remembered: a shadow is asked again every minute.

    The model is loaded for a policy that is new here, and forgotten after.
    """

    settings: Settings
    sessions: Sessions
    _known: dict[str, tuple[int, PolicyVectors]] = field(default_factory=dict)  # by digest

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        """Raises Transient when no encoder can be had just now."""
        if policy.digest not in self._known:
            encoder = policy_encoder(self.settings, self.sessions)
            self._known[policy.digest] = encoder.policy(policy)
        return self._known[policy.digest]


@dataclass(frozen=True, slots=True)
class ShadowedItem:
    """An item that was judged, and by which version."""

    id: int
    image_id: int
    digest: str | None
    encoder_id: int | None
    policy_id: int


@dataclass(frozen=True, slots=True)
class _Step:
    went_on: bool  # False: nothing is left, or what comes next still waits to be judged
    seen: int = 0


def run_shadows(
    sessions: Sessions, encoder: PolicyEncoder, stop: Callable[[], bool] = lambda: False
) -> int:
    """Look at what was judged since the last time; how many items were compared.

    A version that cannot be asked just now is put off, and keeps no other from looking.
    """
    end_of_activated(sessions)
    with sessions.begin() as session:
        running = session.scalars(
            select(PolicyShadow.id).where(PolicyShadow.ended_at.is_(None)).order_by(PolicyShadow.id)
        ).all()
    seen = 0
    for shadow in running:
        try:
            seen += _run(sessions, encoder, shadow, stop)
        except FilterServiceError as error:
            logger.warning("Shadow %d is put off. %s", shadow, error)
    return seen


def _run(
    sessions: Sessions, encoder: PolicyEncoder, shadow_id: int, stop: Callable[[], bool]
) -> int:
    seen, version = 0, None
    while not stop():
        with sessions.begin() as session:
            step = _step(session, shadow_id, version)
            policy = None if step is not None else _policy_of(session, shadow_id)
        if step is not None:
            seen += step.seen
            if not step.went_on:
                break
        elif policy is not None:  # between two transactions: none waits for a model
            version = encoder.policy(policy)
    return seen


def _policy_of(session: Session, shadow_id: int) -> Policy:
    shadow = session.get_one(PolicyShadow, shadow_id)
    return load_policy(session, shadow.policy_id).policy


def _step(
    session: Session, shadow_id: int, version: tuple[int, PolicyVectors] | None
) -> _Step | None:
    """See to the items of some ids, none of which is looked at again; None: the model is needed."""
    shadow = session.get(PolicyShadow, shadow_id, with_for_update={"skip_locked": True})
    if shadow is None or shadow.ended_at is not None:
        return _Step(False)
    newest, waiting = session.execute(_BOUNDS, {"after": shadow.reached, "wait": WAIT}).one()
    until = min(shadow.reached + STEP, newest, newest if waiting is None else waiting - 1)
    items = _items(session, shadow, until)
    if items and version is None:
        return None
    went_on, seen = until < newest and until > shadow.reached, 0
    if items and version is not None:
        seen = _see_to(session, shadow, items, version)
    shadow.reached = until
    return _Step(went_on, seen)


def _items(session: Session, shadow: PolicyShadow, until: int) -> list[ShadowedItem]:
    """Live traffic under the policy's name: not what was judged anew, nor what is locked away."""
    own_name = exists().where(
        PolicyVersion.client_id == Batch.client_id, PolicyVersion.policy_id == Batch.policy_id
    )
    rows = (
        select(Item.id, StoredImage.id, StoredImage.digest, Item.encoder_id, Batch.policy_id)
        .join(Batch, Batch.id == Item.batch_id)
        .join(StoredPolicy, StoredPolicy.id == Batch.policy_id)
        .join(StoredImage, StoredImage.id == Item.image_id)
        .where(
            Item.id > shadow.reached,
            Item.id <= until,
            Item.verdict.in_([Verdict.CLEAR, Verdict.FLAGGED]),
            Item.supersedes.is_(None),
            StoredPolicy.name == shadow.name,
            ~own_name,
            ~exists().where(Restriction.image_id == Item.image_id),
        )
        .order_by(Item.id)
    )
    return [ShadowedItem(*row) for row in session.execute(rows)]


def _see_to(
    session: Session,
    shadow: PolicyShadow,
    items: Sequence[ShadowedItem],
    version: tuple[int, PolicyVectors],
) -> int:
    encoder_id, vectors = version
    hold_images(session, {i.image_id for i in items})  # or an erasure would miss the new rows
    here = [i for i in items if i.encoder_id == encoder_id]
    known = known_vectors(session, encoder_id, {i.image_id for i in here})
    compared = [i for i in here if i.digest in known]
    looked = {i.id: _look(known[i.digest], vectors) for i in compared if i.digest is not None}
    flagged = _judged(session, compared, encoder_id)
    rows = []
    for item in compared:
        by_shadow, restricted, unsure = looked[item.id]
        shadow.unsure += unsure
        by_judge = flagged.get(item.id, set())
        rows += [
            {
                "shadow_id": shadow.id,
                "class_name": name,
                "item_id": item.id,
                "by_shadow": name in by_shadow,
                "by_judge": name in by_judge,
            }
            for name in sorted(by_shadow | by_judge if not restricted else ())
        ]
    if rows:
        session.execute(upsert(ShadowFlag).on_conflict_do_nothing(), rows)
    shadow.seen += len(compared)
    shadow.left_alone += len(items) - len(compared)
    return len(compared)


def _look(known: KnownVectors, version: PolicyVectors) -> tuple[set[str], bool, bool]:
    """Classes that a version flags; whether a restricted one is among them; whether it is unsure.

    Of what it would lock away nothing is kept.
    """
    margins = version.margins(known.vectors)  # (views, classes)
    thresholds = np.array([threshold_margin(c) for c in version.policy.classes])
    over = np.asarray((margins >= thresholds).any(axis=0))  # (classes,)
    names = {c.name for c, flag in zip(version.policy.classes, over, strict=True) if flag}
    sealed = {c.name for c in version.policy.classes if c.sealed is not None}
    near = np.abs(margins - thresholds) < version.bands  # (views, classes)
    return names, bool(names & sealed), bool(near[~np.array(known.exact)].any())


def _judged(
    session: Session, items: Sequence[ShadowedItem], encoder_id: int
) -> dict[int, set[str]]:
    """Classes that each item was flagged for by its own version, by its margins; lists aside."""
    flagged: dict[int, set[str]] = {}
    for policy_id in {i.policy_id for i in items}:
        own = [i for i in items if i.policy_id == policy_id]
        by_image = _flags_of(session, policy_id, encoder_id, {i.image_id for i in own})
        flagged |= {i.id: by_image.get(i.image_id, set()) for i in own}
    return flagged


def _flags_of(
    session: Session, policy_id: int, encoder_id: int, images: Collection[int]
) -> dict[int, set[str]]:
    """Classes by image, of one version; but for restricted ones."""
    known = load_policy(session, policy_id)
    classes = {known.class_ids[c.name]: c for c in known.policy.classes if c.sealed is None}
    thresholds = {class_id: threshold_margin(c) for class_id, c in classes.items()}
    rows = session.execute(
        select(StoredScore.image_id, StoredScore.class_id, StoredScore.margin).where(
            StoredScore.encoder_id == encoder_id,
            StoredScore.class_id.in_(classes),
            StoredScore.image_id.in_(images),
        )
    )
    flagged: dict[int, set[str]] = {}
    for image_id, class_id, margin in rows:
        if margin >= thresholds[class_id]:
            flagged.setdefault(image_id, set()).add(classes[class_id].name)
    return flagged


# The newest item, and the first one after some id that will soon have a verdict.
_BOUNDS = text("""
    SELECT coalesce((SELECT max(id) FROM items), 0), least(
        (SELECT min(item_id) FROM queue
            WHERE item_id > :after AND queued_at > now() - CAST(:wait AS interval)),
        (SELECT min(item_id) FROM fetches WHERE item_id > :after AND due_at IS NOT NULL)
    )
""")
