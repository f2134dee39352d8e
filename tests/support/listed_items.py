"""Records items of given margins, hashes and vectors, as a worker records them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import insert, text

from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import load_policy, store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, Person, QueueEntry
from filter_service.images.views import View
from filter_service.moderation.disposition import JudgedItem
from filter_service.moderation.results import ClassifierIdentity, record
from filter_service.policy import Policy
from filter_service.reviews.hash_matching import Matcher
from filter_service.scoring import FloatArray
from filter_service.verdicts import Outcome, Verdict, judge, score
from tests.support.simple_classifier import FINGERPRINT, POLICY, Explained

DIM = 8


@dataclass
class Desk:
    """A worker that records whatever a test says it judged."""

    sessions: Sessions
    encoder_id: int
    policy_id: int
    batch: uuid.UUID
    matcher: Matcher
    policy: Policy = POLICY
    worker: uuid.UUID = field(default_factory=uuid.uuid4)

    def judge(
        self,
        *margins: tuple[float, float] | None,
        vectors: FloatArray | None = None,
        hashes: Sequence[str | None] | None = None,
        digests: Sequence[str] | None = None,
    ) -> list[int]:
        """Record an item for each pair of margins, None being unreadable; -> their ids."""
        names = list(digests or [uuid.uuid4().hex * 2 for _ in margins])
        items, images = self._queued(names)
        judged = []
        for i, pair in enumerate(margins):
            z = None if vectors is None else vectors[i]
            found = outcome(names[i], pair, z, hashes[i] if hashes else None, self.policy)
            judged.append(JudgedItem(items[i], self.batch, images[i], found))
        self.record(judged)
        return items

    def record(self, judged: Sequence[JudgedItem]) -> int:
        with self.sessions.begin() as session:
            policy = load_policy(session, self.policy_id)
        source = ClassifierIdentity(
            self.worker, "worker test", self.matcher, FINGERPRINT, self.policy_id, policy
        )
        with self.sessions.begin() as session:
            return record(session, judged, source)

    def queue(self, items: Sequence[int]) -> None:
        """On the queue, and held by this worker."""
        with self.sessions.begin() as session:
            rows = [{"item_id": i, "priority": 0, "worker": self.worker} for i in items]
            session.execute(insert(QueueEntry), rows)

    def _queued(self, names: list[str]) -> tuple[list[int], list[int]]:
        with self.sessions.begin() as session:
            images = {}
            for name in names:
                images[name] = session.scalar(
                    text(
                        "INSERT INTO images (digest, bytes) VALUES (decode(:d, 'hex'), 1) "
                        "ON CONFLICT (digest) DO UPDATE SET pdq = images.pdq RETURNING id"
                    ),
                    {"d": name},
                )
            rows = [{"batch_id": self.batch, "image_id": images[n], "source": n[:8]} for n in names]
            added = insert(Item).returning(Item.id, sort_by_parameter_order=True)
            items = list(session.scalars(added, rows))
        self.queue(items)
        return items, [images[n] for n in names]


def outcome(
    digest: str,
    margins: tuple[float, float] | None,
    z: FloatArray | None,
    pdq: str | None,
    policy: Policy = POLICY,
) -> Outcome:
    if margins is None:
        return Outcome(digest, Verdict.UNDETERMINED, reason="the bytes are not an image")
    scores = score(np.array([margins]), [View()], [True], policy)
    return Outcome(
        digest=digest,
        verdict=judge(scores),
        scores=scores,
        vectors=None if z is None else z[None],
        views=(View(),),
        exact=(True,),
        explanations=tuple(Explained(s.class_name) for s in scores if s.flagged),  # type: ignore[misc]
        pdq=pdq,
    )


def desk_of(sessions: Sessions, policy: Policy = POLICY) -> Desk:
    with sessions.begin() as session:
        encoder = register_encoder(session, "ab" * 32, "simple", DIM, {})
        policy_id = store_policy(session, policy)
        batch = Batch(id=uuid.uuid4(), policy_id=policy_id, label="", priority=0)
        session.add(batch)
    return Desk(sessions, encoder, policy_id, batch.id, Matcher(encoder), policy)


def person_of(sessions: Sessions, login: str, role: str = "senior") -> Person:
    with sessions.begin() as session:
        person = Person(login=login, name=login, role=role)
        session.add(person)
    return person


def bits(seed: int, flipped: int = 0) -> str:
    """Some hash, with so many of its first bits turned."""
    digits = np.random.default_rng(seed).integers(0, 2, 256)
    digits[:flipped] ^= 1
    return "".join(map(str, digits))


def turned(degrees: Sequence[float]) -> FloatArray:
    """Unit vectors at these angles from the first axis, each in its own plane: (n, d)."""
    angles = np.radians(np.array(degrees))
    vectors = np.zeros((len(angles), DIM), dtype=np.float32)
    vectors[:, 0] = np.cos(angles)
    vectors[np.arange(len(angles)), 1 + np.arange(len(angles)) % (DIM - 1)] = np.sin(angles)
    return vectors


def pictures(sessions: Sessions) -> dict[str, str | None]:
    with sessions.begin() as session:
        rows = session.execute(text("SELECT encode(digest, 'hex'), pdq::text FROM images"))
        return dict(rows.all())
