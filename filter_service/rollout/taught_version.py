"""Builds the version of a policy whose class has a head, learnt from what people decided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.head_words import head_words
from filter_service.calibration.heads import (
    HeadProposal,
    LabelledVectors,
    propose_head,
    require_enough,
)
from filter_service.calibration.labelled_margins import Floats
from filter_service.calibration.labelled_vectors import (
    VectorLabels,
    stream_vectors,
    usable,
    vector_labels,
)
from filter_service.calibration.starting_policy import readable
from filter_service.calibration.training_labels import TrainingRow
from filter_service.db.policies import policy_id_of
from filter_service.db.tables import StoredPhrase
from filter_service.errors import InvalidRequest
from filter_service.policy import ForbiddenClass, Policy
from filter_service.policy.learnt_head import HeadGain, HeadWords, LearntHead, packed
from filter_service.scoring import (
    ClassVectors,
    FloatArray,
    LearntDirection,
    PolicyVectors,
    learnt_direction,
)
from filter_service.verdicts import threshold_margin


class ServedEncoder(Protocol):
    """The encoder that a head is learnt for."""

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        """The stored encoder's id, and a policy in its space."""

    def identity(self) -> tuple[int, str]:
        """Its id and its fingerprint."""


@dataclass(frozen=True, slots=True)
class TaughtClass:
    """What reviews taught one class, and the version that they make."""

    before: ForbiddenClass
    after: ForbiddenClass
    head: LearntHead
    proposal: HeadProposal
    training: tuple[TrainingRow, ...]
    contradicting: int  # labels left out: the same picture to the model, with opposite answers
    unseen: int  # labels of which this encoder has no vector


@dataclass(frozen=True, slots=True)
class _Class:
    """A class of a policy as one encoder takes it."""

    policy: Policy
    forbidden: ForbiddenClass
    encoder: tuple[int, str]  # id, fingerprint
    classes: tuple[ClassVectors, ...]  # of the policy
    prompts: ClassVectors  # of this one, without any head
    standing: LearntDirection | None  # the head that is served now
    ids: Sequence[int]  # of the class in all versions with these words


def prompts_alone(policy: Policy, name: str) -> Policy:
    """A policy in which a class has learnt nothing."""
    classes = [
        c.model_copy(update={"head": None, "calibration": None}) if c.name == name else c
        for c in policy.classes
    ]
    return policy.model_copy(update={"classes": tuple(classes)})


def teach(session: Session, policy: Policy, name: str, seeker: ServedEncoder) -> TaughtClass:
    """Learn a head from the newest labels, for the encoder that is served.

    Raises InvalidRequest for a class that the policy has not, for too few labels, and where the
    head's gain is not above zero for sure; NotAllowed for a restricted class; AnotherEncoder where
    another class learnt something from another one.
    """
    of = _class(session, policy, name, seeker)
    known = vector_labels(session, name, of.ids, of.encoder[0])
    unseen = usable(session, name) - len(known)
    contradicted = known.contradicted() if len(known) else np.zeros(0, np.bool_)
    known = known.among(~contradicted)
    _require_vectors(of, known, unseen, int(contradicted.sum()))
    require_enough(known.truths, name)
    labelled = LabelledVectors(
        known.vectors.astype(np.float64), of.prompts.margins(known.vectors), known.truths
    )
    standing = replace(of.prompts, learnt=of.standing).margins(known.vectors)
    proposal = propose_head(labelled, name, standing=standing)
    if not proposal.proven:
        raise InvalidRequest(_unproven(of, proposal))
    head = _head(of, known, proposal, _words(session, of, known, proposal.direction))
    threshold = _threshold(session, of, proposal)
    update = {"head": head, "threshold": threshold, "calibration": None, "certain": None}
    return TaughtClass(
        before=of.forbidden,
        after=of.forbidden.model_copy(update=update),
        head=head,
        proposal=proposal,
        training=_training(known, labelled),
        contradicting=int(contradicted.sum()),
        unseen=unseen,
    )


def taught_policy(policy: Policy, taught: TaughtClass) -> Policy:
    """The version to be proposed."""
    classes = tuple(taught.after if c.name == taught.after.name else c for c in policy.classes)
    made = policy.model_copy(update={"classes": classes})
    return Policy.model_validate(made.model_dump(mode="json"))


def same_share(before: Floats, after: Floats, threshold: float) -> float:
    """The margin over which as many of a stream lie as lay over a threshold before.

    before, after (n,): margins of the same images, logits. Where none lay over it, it stays as far
    above them as it was.
    """
    ranked = np.sort(after)[::-1]
    over = int((before >= threshold).sum())
    if over == 0:
        return float(ranked[0] + threshold - before.max()) if len(before) else threshold
    if over == len(before):
        return float(ranked[-1] + threshold - before.min())
    return float((ranked[over - 1] + ranked[over]) / 2)


def _class(session: Session, policy: Policy, name: str, seeker: ServedEncoder) -> _Class:
    policy_id = policy_id_of(session, policy)
    ids = labels.same_words(session, policy_id, name, besides=("head",))
    forbidden = policy.forbidden(name)
    encoder_id, placed = seeker.policy(prompts_alone(policy, name))
    fingerprint = seeker.identity()[1]
    own = forbidden.head if forbidden.head and forbidden.head.encoder == fingerprint else None
    return _Class(
        policy=policy,
        forbidden=forbidden,
        encoder=(encoder_id, fingerprint),
        classes=placed.classes,
        prompts=next(c for c in placed.classes if c.name == name),
        standing=learnt_direction(own) if own else None,
        ids=ids,
    )


def _require_vectors(of: _Class, known: VectorLabels, unseen: int, contradicted: int) -> None:
    if not len(known) and (unseen or contradicted):
        raise InvalidRequest(
            f"{of.forbidden.name} learns nothing: of its {unseen + contradicted} labels encoder "
            f"{of.encoder[1][:12]} has a vector of {contradicted}, and these contradict each "
            "other: judge the labelled pictures with it, and review again."
        )


def _unproven(of: _Class, found: HeadProposal) -> str:
    g = found.gain
    return (
        f"{of.forbidden.name} stays as it is: a head of {found.labels} labels, {found.positives} "
        f"of which show it, changes its average precision of {found.before:.3f} by {g.value:+.3f} "
        f"({g.low:+.3f} to {g.high:+.3f}, 95 % confidence), which is not above 0 for sure. Review "
        "more, or mend its prompts."
    )


def _threshold(session: Session, of: _Class, proposal: HeadProposal) -> float:
    """The probability at which the same share of the stream is flagged as before."""
    stream = stream_vectors(session, of.ids, of.encoder[0])
    before = replace(of.prompts, learnt=of.standing).margins(stream)
    after = replace(of.prompts, learnt=proposal.direction).margins(stream)
    margin = same_share(before, after, threshold_margin(of.forbidden))
    return readable(1 / (1 + math.exp(-max(margin, -700.0))))


def _words(
    session: Session, of: _Class, known: VectorLabels, direction: LearntDirection
) -> HeadWords:
    """By the prompts' direction at the labelled images that show the class."""
    shown = known.vectors[known.truths]
    prompts = np.asarray(
        np.mean([of.prompts.direction(z) for z in shown], axis=0, dtype=np.float64)
    )
    candidates = _phrases(session, of)
    vectors: FloatArray = np.array(list(candidates.values()), np.float32)
    return head_words(prompts, direction.weights.astype(np.float64), list(candidates), vectors)


def _phrases(session: Session, of: _Class) -> dict[str, FloatArray]:
    """Those of the bank, what the class is contrasted with, and other open classes' prompts."""
    query = select(StoredPhrase.text, StoredPhrase.vector).order_by(StoredPhrase.text)
    bank = session.execute(query.where(StoredPhrase.encoder_id == of.encoder[0])).all()
    found = {row.text: row.vector for row in bank}
    found |= dict(zip(of.policy.neutral_of(of.forbidden), of.prompts.neutral, strict=False))
    for c, v in zip(of.policy.classes, of.classes, strict=True):
        if c.name != of.forbidden.name and c.sealed is None:
            found |= dict(zip(c.prompts, v.prompts, strict=True))
    return found


def _head(of: _Class, known: VectorLabels, proposal: HeadProposal, words: HeadWords) -> LearntHead:
    assert known.newest is not None, "it learnt from labels"
    gain = proposal.gain
    return LearntHead(
        encoder=of.encoder[1],
        wording=of.policy.wording(of.forbidden),
        direction=packed(proposal.direction.weights),
        offset=proposal.direction.offset,
        strength=proposal.strength,
        labels=proposal.labels,
        positives=proposal.positives,
        until=known.newest.date(),
        gain=HeadGain(value=gain.value, low=gain.low, high=gain.high),
        words=words,
    )


def _training(known: VectorLabels, labelled: LabelledVectors) -> tuple[TrainingRow, ...]:
    rows = zip(
        known.images.tolist(),
        known.items,
        known.truths.tolist(),
        labelled.margins.tolist(),
        known.views,
        strict=True,
    )
    return tuple(TrainingRow(i, item, t, m, v.frame, v.name) for i, item, t, m, v in rows)
