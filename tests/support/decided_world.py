"""Writes judged, reviewed and appealed items straight into the tables."""

import hashlib
import itertools
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import load_policy, store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Appeal,
    Batch,
    Item,
    ListEntry,
    Report,
    Review,
    ReviewOutcome,
    StoredImage,
    StoredStatement,
)
from filter_service.verdicts import Verdict
from tests.support.review_cases import POLICY, colleague

START = datetime(2026, 3, 1, tzinfo=UTC)
AUTHOR = "person ada"

_numbers = itertools.count()


@dataclass
class Told:
    """An item as it was written, to be counted by hand."""

    id: int
    class_name: str
    verdict: Verdict
    submitted_at: datetime
    judged_at: datetime
    decision: str | None = None
    by: str = "nobody"
    decided_at: datetime | None = None
    seconds: float | None = None
    sampled: bool = False
    appeal: tuple[datetime, datetime, bool] | None = None


class Writer:
    """Writes items one after another, for tests that want some dozens."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.person = colleague(sessions, "ada").id
        with sessions.begin() as session:
            self.policy_id = store_policy(session, POLICY)
            self.classes = load_policy(session, self.policy_id).class_ids
            self.encoder_id = register_encoder(session, "ab" * 32, "simple", 4, {})
            entry = ListEntry(
                kind="allow",
                class_name="gun",
                match="digest",
                image_digest="cd" * 32,
                reason="ours",
                created_by=AUTHOR,
            )
            session.add(entry)
            session.flush()
            self.entry = entry.id

    def batch(self, label: str = "", submitted_at: datetime = START, total: int = 1) -> uuid.UUID:
        found = uuid.uuid4()
        with self.sessions.begin() as session:
            session.add(
                Batch(
                    id=found,
                    policy_id=self.policy_id,
                    label=label,
                    priority=0,
                    submitted_at=submitted_at,
                    total=total,
                )
            )
        return found

    def item(self, batch: uuid.UUID, verdict: Verdict | None = Verdict.FLAGGED, **more: Any) -> int:
        """An item with an image of its own; more columns of items by their names."""
        digest = hashlib.sha256(f"decided {next(_numbers)}".encode()).hexdigest()
        judged = verdict in (Verdict.CLEAR, Verdict.FLAGGED)
        known = {
            "source": "a.jpg",
            "judged_at": START,
            "encoder_id": self.encoder_id if judged else None,
            "class_id": self.classes["gun"] if judged else None,
            "margin": 0.1 if judged else None,
            "probability": 0.525 if judged else None,
        }
        with self.sessions.begin() as session:
            image = session.scalar(
                insert(StoredImage).values(digest=digest, bytes=123).returning(StoredImage.id)
            )
            values = {"batch_id": batch, "image_id": image, "verdict": verdict, **known, **more}
            return session.scalars(insert(Item).values(values).returning(Item.id)).one()

    def decided(
        self,
        item: int,
        decision: str,
        at: datetime,
        *,
        sampled: bool = False,
        seconds: float = 9.5,
        chance: float | None = None,
        evenly: bool = True,
    ) -> int:
        """A person's final decision."""
        with self.sessions.begin() as session:
            review = Review(
                item_id=item,
                stage="first",
                person_id=self.person,
                decision=decision,
                seconds=seconds,
                revealed=True,
                decided_at=at,
                effective_at=at,
                settled_at=at,
            )
            session.add(review)
            session.flush()
            draw = {"sampled": sampled, "chance": chance, "evenly": evenly}
            self._outcome(session, item, decision, at, review.id, **draw)
            return review.id

    def listed(self, item: int, decision: str, at: datetime) -> None:
        """A list's decision."""
        with self.sessions.begin() as session:
            session.get_one(Item, item).list_entry_id = self.entry
            self._outcome(session, item, decision, at, None, sampled=False)

    def reported(self, item: int, source: str, at: datetime, review: int | None = None) -> None:
        """A report that was answered: by a decision, or by what stood before."""
        with self.sessions.begin() as session:
            session.add(
                Report(
                    id=uuid.uuid4(),
                    item_id=item,
                    source=source,
                    reason="It is a gun.",
                    reported_by="key shop",
                    reported_at=at,
                    closed_at=at,
                    final="flagged",
                    review_id=review,
                )
            )

    def appealed(
        self, item: int, opened_at: datetime, closed_at: datetime | None, upheld: bool | None
    ) -> None:
        with self.sessions.begin() as session:
            session.add(
                Appeal(
                    id=uuid.uuid4(),
                    item_id=item,
                    statement="No.",
                    opened_by="key shop",
                    opened_at=opened_at,
                    closed_at=closed_at,
                    upheld=upheld,
                )
            )

    def stated(self, item: int) -> uuid.UUID:
        puid = uuid.uuid4()
        with self.sessions.begin() as session:
            session.add(
                StoredStatement(
                    puid=puid, item_id=item, language="en", document={}, notice="Notice."
                )
            )
        return puid

    def _outcome(
        self,
        session: Any,
        item: int,
        decision: str,
        at: datetime,
        review: int | None,
        **draw: Any,
    ) -> None:
        image, class_id = session.execute(
            select(Item.image_id, Item.class_id).where(Item.id == item)
        ).one()
        names = {number: name for name, number in self.classes.items()}
        session.add(
            ReviewOutcome(
                item_id=item,
                image_id=image,
                class_name=names[class_id],
                decision=decision,
                review_id=review,
                at=at,
                **draw,
            )
        )


def random_world(sessions: Sessions, count: int = 120, days: int = 20) -> list[Told]:
    """Many items, of which some were decided, by people or lists, and some appealed."""
    rng = random.Random(7)
    writer = Writer(sessions)
    found = []
    for _ in range(count):
        submitted = START + timedelta(hours=rng.uniform(0, 24 * days))
        told = Told(
            id=0,
            class_name=rng.choice(["gun", "knife"]),
            verdict=rng.choices(list(Verdict), (60, 35, 5))[0],
            submitted_at=submitted,
            judged_at=submitted + timedelta(seconds=rng.uniform(1, 5000)),
        )
        batch = writer.batch(submitted_at=submitted)
        judged = told.verdict is not Verdict.UNDETERMINED
        told.id = writer.item(
            batch,
            told.verdict,
            judged_at=told.judged_at,
            class_id=writer.classes[told.class_name] if judged else None,
            reason=None if judged else "broken",
        )
        if judged:
            _decide(writer, told, rng)
        found.append(told)
    return found


def _decide(writer: Writer, told: Told, rng: random.Random) -> None:
    at = told.judged_at + timedelta(hours=rng.uniform(0.1, 90))
    decision = rng.choices(["confirmed", "overturned"], (3, 1))[0]
    flagged = told.verdict is Verdict.FLAGGED
    if flagged and rng.random() < 0.15:
        writer.listed(told.id, decision, told.judged_at)
        told.decision, told.by, told.decided_at = decision, "list", told.judged_at
    elif rng.random() < (0.7 if flagged else 0.5):
        seconds = rng.uniform(2, 60)
        writer.decided(told.id, decision, at, sampled=not flagged, seconds=seconds)
        told.decision, told.by, told.decided_at = decision, "people", at
        told.seconds, told.sampled = seconds, not flagged
        if flagged and decision == "confirmed" and rng.random() < 0.5:
            opened = at + timedelta(hours=rng.uniform(1, 50))
            told.appeal = (opened, opened + timedelta(hours=rng.uniform(1, 50)), rng.random() < 0.6)
            writer.appealed(told.id, *told.appeal)
