"""Classifies one batch of claimed items, policy by policy, with failures kept apart."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from filter_service.db.policies import KnownPolicy, load_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredEncoder
from filter_service.errors import ImageError, Transient, for_clients
from filter_service.moderation.batch_size import BatchSize
from filter_service.moderation.disposition import JudgedItem
from filter_service.moderation.leases import ClaimedItem, Leases
from filter_service.moderation.queue_place import QueuePlace
from filter_service.moderation.recorder import Recorder
from filter_service.moderation.results import ClassifierIdentity, record
from filter_service.policy import Policy
from filter_service.policy.coverage import Coverage
from filter_service.reviews.hash_matching import Matcher
from filter_service.storage import Storage
from filter_service.verdicts import KnownVectors, Outcome, Verdict

S = TypeVar("S")  # what a judge makes of an image before it judges: pixels, as a rule
T = TypeVar("T")

logger = logging.getLogger(__name__)


class Classifier(Protocol[S]):
    """The interface of the model that judges images."""

    def prepare(
        self,
        digest: str,
        load: Callable[[], bytes],
        known: KnownVectors | None,
        coverage: Coverage | None = None,
    ) -> S:
        """Decode one image, in any thread; raises ImageError. Known vectors may spare it that.

        `coverage` is the policy's; None: as the service is set.
        """

    def moderate(self, subjects: Sequence[S], policy: Policy) -> list[Outcome]:
        """One outcome for each subject, in order."""


@dataclass(frozen=True)
class WorkerContext(Generic[S]):
    """What a worker works with, built once for each process."""

    sessions: Sessions
    storage: Storage
    judge: Classifier[S]
    encoder_id: int
    batch_size: int = 64
    decode_threads: int = 2
    lease_seconds: float = 60.0
    policies: dict[int, KnownPolicy] = field(default_factory=dict)
    place: QueuePlace = field(default_factory=QueuePlace)

    @cached_property
    def size(self) -> BatchSize:
        """How many items are claimed together."""
        return BatchSize(self.batch_size)

    @cached_property
    def matcher(self) -> Matcher:
        """The lists, read once and again when they change."""
        return Matcher(self.encoder_id)

    @cached_property
    def fingerprint(self) -> str:
        """The encoder's, as the ledger names it."""
        with self.sessions.begin() as session:
            return session.get_one(StoredEncoder, self.encoder_id).fingerprint

    def prepare(
        self, digest: str, known: KnownVectors | None, coverage: Coverage | None = None
    ) -> S:
        return self.judge.prepare(digest, partial(self.storage.get, digest), known, coverage)

    def policy(self, policy_id: int) -> KnownPolicy:
        """A stored policy, read once."""
        if policy_id not in self.policies:
            with self.sessions.begin() as session:
                self.policies[policy_id] = load_policy(session, policy_id)
        return self.policies[policy_id]


@dataclass(frozen=True, slots=True)
class Ready(Generic[S]):
    """A claimed item, and its image on the way from storage; items of one image share it."""

    item: ClaimedItem
    subjects: "Future[list[S | Answer]]"  # of some images; this one's is at the place
    place: int

    @property
    def subject(self) -> "S | Answer":
        return self.subjects.result()[self.place]


Look = tuple[str, Coverage | None]  # an image by its digest, and which parts of it are looked at


def prepare_all(
    desk: WorkerContext[S], looks: Sequence[Look], known: Mapping[str, KnownVectors]
) -> "list[S | Answer]":
    """Some images, in whatever thread, or what the failure of each means."""
    return [
        _attempt(digest, partial(desk.prepare, digest, known.get(digest), coverage))
        for digest, coverage in looks
    ]


def judge(
    desk: WorkerContext[S], leases: Leases, batch: Sequence[Ready[S]], records: Recorder
) -> None:
    """Judge a batch, and let it be recorded."""
    known: dict[str, KnownVectors] = {}  # computed for one policy, spared the next
    for policy_id, group in groupby(sorted(batch, key=_policy), key=_policy):
        items = list(group)
        policy = desk.policy(policy_id)
        answers = _answers(desk, policy.policy, items, known)
        known |= _vectors(answers.values())
        source = ClassifierIdentity(
            leases.worker, leases.actor, desk.matcher, desk.fingerprint, policy_id, policy
        )
        records.add(partial(_record, desk, leases, source, [r.item for r in items], answers))


def _policy(ready: Ready[S]) -> int:
    return ready.item.policy_id


Answer = Outcome | Transient  # what came out for an image, or why to try again later


def _answers(
    desk: WorkerContext[S],
    policy: Policy,
    items: Sequence[Ready[S]],
    known: Mapping[str, KnownVectors],
) -> dict[str, Answer]:
    """An answer for every image, by digest."""
    subjects: dict[str, S] = {}
    answers: dict[str, Answer] = {}
    for digest, ready in {r.item.digest: r for r in items}.items():
        if digest in known:
            again = partial(desk.prepare, digest, known[digest], policy.coverage)
            prepared = _attempt(digest, again)
        else:
            prepared = ready.subject
        if isinstance(prepared, Outcome | Transient):
            answers[digest] = prepared
        else:
            subjects[digest] = prepared
    return answers | _moderate(desk, policy, subjects)


def _moderate(
    desk: WorkerContext[S], policy: Policy, subjects: Mapping[str, S]
) -> dict[str, Answer]:
    """All images in one go; if that fails one by one, so that the one to blame stands alone."""
    if not subjects:
        return {}
    try:
        outcomes = desk.judge.moderate(list(subjects.values()), policy)
    except Exception:  # whatever a model raises, the other images are to be judged
        logger.warning("A batch of %d failed; now one by one.", len(subjects), exc_info=True)
        return {d: _attempt(d, partial(_alone, desk, policy, s)) for d, s in subjects.items()}
    return dict(zip(subjects, outcomes, strict=True))


def _alone(desk: WorkerContext[S], policy: Policy, subject: S) -> Outcome:
    return desk.judge.moderate([subject], policy)[0]


def _attempt(digest: str, compute: Callable[[], T]) -> T | Answer:
    """What was computed for one image, or what its failure means."""
    try:
        return compute()
    except Transient as error:
        return error
    except ImageError as error:
        return Outcome(digest, Verdict.UNDETERMINED, reason=str(error))
    except Exception as error:  # a fault of ours in one image is not to stop the others
        logger.exception("Image %s could not be judged.", digest)
        reason = f"judging failed ({_without_path(error)})"
        return Outcome(digest, Verdict.UNDETERMINED, reason=reason)


def _without_path(error: Exception) -> str:
    """What platforms are told of a fault of ours; the log has the whole of it."""
    said = (error.strerror or "") if isinstance(error, OSError) else str(error)
    return f"{type(error).__name__}: {said}"


def _vectors(answers: Iterable[Answer]) -> dict[str, KnownVectors]:
    return {
        o.digest: KnownVectors(o.vectors, o.views, o.exact, o.extent)
        for o in answers
        if isinstance(o, Outcome) and o.vectors is not None
    }


def _record(
    desk: WorkerContext[S],
    leases: Leases,
    source: ClassifierIdentity,
    items: Sequence[ClaimedItem],
    answers: Mapping[str, Answer],
) -> int:
    """Record what was answered, and put off what was not; how many items were still ours."""
    judged = []
    for item in items:
        answer = answers[item.digest]
        if isinstance(answer, Transient):
            logger.warning("Item %s is tried again later. %s", item.item_id, answer)
            leases.postpone([item], for_clients(answer))
        else:
            judged.append(JudgedItem(item.item_id, item.batch_id, item.image_id, answer))
    with desk.sessions.begin() as session:
        recorded = record(session, judged, source)
    leases.forget(items)
    return recorded
