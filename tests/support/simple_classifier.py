"""A classifier without a model: the first word of an image is its margin."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from filter_service.db.embeddings import register_encoder
from filter_service.db.session import Sessions
from filter_service.errors import UnreadableImage
from filter_service.images.views import View
from filter_service.moderation import WorkerContext
from filter_service.policy import ForbiddenClass, Policy
from filter_service.policy.coverage import Coverage
from filter_service.scoring import FloatArray
from filter_service.storage import Storage
from filter_service.verdicts import KnownVectors, Outcome, judge, score

DIM = 4
FINGERPRINT = "ab" * 32
POLICY = Policy(
    name="shop",
    neutral=("a photo",),
    classes=(
        ForbiddenClass(name="knife", prompts=("a knife",), threshold=0.5),
        ForbiddenClass(name="gun", prompts=("a gun",), threshold=0.5),
    ),
)


@dataclass(frozen=True)
class Explained:
    """As much of an explanation as the rows need."""

    class_name: str
    faithful: bool = True

    def model_dump(self, mode: str) -> dict[str, Any]:
        return {"class_name": self.class_name}


@dataclass(frozen=True)
class Subject:
    digest: str
    words: list[str]  # margin of the first class, then anything
    known: KnownVectors | None


@dataclass
class SimpleJudge:
    """Flags what has a positive margin for the first class; the second is never seen."""

    calls: list[list[str]] = field(default_factory=list)  # digests of each call
    computed: list[str] = field(default_factory=list)  # digests that needed a forward pass
    before: Callable[[Sequence[Subject]], object] = lambda subjects: None

    def prepare(
        self,
        digest: str,
        load: Callable[[], bytes],
        known: KnownVectors | None,
        coverage: Coverage | None = None,
    ) -> Subject:
        words = load().decode().split()
        if words[0] == "unreadable":
            raise UnreadableImage("the bytes are not an image")
        return Subject(digest, words, known)

    def moderate(self, subjects: Sequence[Subject], policy: Policy) -> list[Outcome]:
        self.calls.append([s.digest for s in subjects])
        self.before(subjects)
        return [self._outcome(s, policy) for s in subjects]

    def _outcome(self, subject: Subject, policy: Policy) -> Outcome:
        margins = np.array([[float(subject.words[0]), -5.0][: len(policy.classes)]])
        scores = score(margins, [View()], [True], policy)
        if subject.known is None:
            self.computed.append(subject.digest)
        flagged = [Explained(s.class_name) for s in scores if s.flagged]
        return Outcome(
            digest=subject.digest,
            verdict=judge(scores),
            scores=scores,
            vectors=vector(subject.digest)[None] if subject.known is None else None,
            views=(View(),),
            exact=(True,),
            explanations=tuple(flagged),  # type: ignore[arg-type]
        )


def vector(digest: str) -> FloatArray:
    """Some unit vector of an image: (d,)."""
    seed = int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8])
    z = np.random.default_rng(seed).normal(size=DIM)
    return np.asarray(z / np.linalg.norm(z), dtype=np.float32)


def desk_of(
    sessions: Sessions, storage: Storage, judge: SimpleJudge, lease_seconds: float = 60.0
) -> WorkerContext[Subject]:
    with sessions.begin() as session:
        encoder_id = register_encoder(session, FINGERPRINT, "simple", DIM, {})
    return WorkerContext(
        sessions, storage, judge, encoder_id, batch_size=8, lease_seconds=lease_seconds
    )
