"""What a platform does: submit files, ask how they fare, cancel them, try failed ones again."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Image, Item, Queued
from filter_service.errors import UnknownBatch
from filter_service.images import digest
from filter_service.ledger import Entry, Event
from filter_service.policy import Policy
from filter_service.storage import Storage
from filter_service.verdicts import Verdict

CHUNK = 200  # items of one transaction
AT_ONCE = 8  # files in memory while they are being kept

Knock = Callable[[], object]  # tells some worker that there is work


@dataclass(frozen=True, slots=True)
class Submission:
    """A file as it came: its bytes, or the sentence that says why there are none."""

    source: str  # the file's name, for people
    data: bytes | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How far a batch has come."""

    batch: uuid.UUID
    label: str
    submitted_at: datetime
    cancelled_at: datetime | None
    total: int | None  # None while items still arrive
    clear: int
    flagged: int
    undetermined: int
    waiting: int  # without a verdict: queued, or cancelled before one was found

    @property
    def finished(self) -> bool:
        """Nothing more will happen to it."""
        return self.total is not None and (self.waiting == 0 or self.cancelled_at is not None)


def accept(
    sessions: Sessions,
    storage: Storage,
    knock: Knock,
    files: Iterable[Submission],
    policy: Policy,
    *,
    label: str = "",
    priority: int = 0,
    actor: str = "platform",
) -> uuid.UUID:
    """Keep the files, queue an item for each, and knock; -> the batch.

    The bytes are kept before the rows that speak of them, some hundred files at a time: what was
    accepted is judged even if this stops in the middle. A higher priority is judged sooner.
    """
    with sessions.begin() as session:
        policy_id = store_policy(session, policy)
        batch = Batch(id=uuid.uuid4(), policy_id=policy_id, label=label, priority=priority)
        session.add(batch)
        ledger.append(session, [Entry(Event.SUBMITTED, actor, batch_id=batch.id)])
    total = 0
    kept = _keep_all(storage, files)
    while chunk := list(islice(kept, CHUNK)):
        with sessions.begin() as session:
            _add(session, batch.id, chunk, actor)
        knock()
        total += len(chunk)
    with sessions.begin() as session:
        session.execute(update(Batch).where(Batch.id == batch.id).values(total=total))
    return batch.id


def cancel(sessions: Sessions, batch: uuid.UUID, actor: str = "platform") -> int:
    """Take back every item of a batch that has no verdict yet; how many those were.

    A worker that holds one of them finds it gone when it comes to record the verdict.
    """
    with sessions.begin() as session:
        found = _batch(session, batch, lock=True)
        if found.cancelled_at is None:
            found.cancelled_at = datetime.now(UTC)
            ledger.append(session, [Entry(Event.CANCELLED, actor, batch_id=batch)])
    cancelled = 0
    for waiting in _chunks(sessions, _of(batch, None)):
        with sessions.begin() as session:
            gone = _unqueue(session, [item.id for item in waiting])
            ledger.append(session, [Entry(Event.CANCELLED, actor, i, batch) for i in gone])
        cancelled += len(gone)
    return cancelled


def retry(sessions: Sessions, knock: Knock, batch: uuid.UUID, actor: str = "platform") -> int:
    """Queue the undetermined items of a batch again, those without bytes excepted; how many."""
    with sessions.begin() as session:
        found = _batch(session, batch)
    if found.cancelled_at is not None:
        return 0
    retried = 0
    undetermined = _of(batch, Verdict.UNDETERMINED).where(Item.image_id.is_not(None))
    for failed in _chunks(sessions, undetermined):
        with sessions.begin() as session:
            retried += _requeue(session, failed, found.priority, actor)
        knock()
    return retried


def status(sessions: Sessions, batch: uuid.UUID) -> Status:
    """Count a batch's items by verdict."""
    with sessions.begin() as session:
        found = _batch(session, batch)
        counts = dict(
            session.execute(
                select(Item.verdict, func.count())
                .where(Item.batch_id == batch)
                .group_by(Item.verdict)
            ).all()
        )
    return Status(
        batch=batch,
        label=found.label,
        submitted_at=found.submitted_at,
        cancelled_at=found.cancelled_at,
        total=found.total,
        clear=counts.get(Verdict.CLEAR, 0),
        flagged=counts.get(Verdict.FLAGGED, 0),
        undetermined=counts.get(Verdict.UNDETERMINED, 0),
        waiting=counts.get(None, 0),
    )


def items(
    sessions: Sessions,
    batch: uuid.UUID | None = None,
    verdict: Verdict | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[Item]:
    """Items in the order of their ids; give the last one's id as `after` for those that follow."""
    query = select(Item).where(Item.id > after).order_by(Item.id).limit(limit)
    if batch is not None:
        query = query.where(Item.batch_id == batch)
    if verdict is not None:
        query = query.where(Item.verdict == verdict)
    with sessions.begin() as session:
        return list(session.scalars(query))


def _of(batch: uuid.UUID, verdict: Verdict | None) -> Select[Item]:
    return select(Item).where(Item.batch_id == batch, Item.verdict == verdict)  # None: IS NULL


def _chunks(sessions: Sessions, query: Select[Item]) -> Iterator[list[Item]]:
    """The items of a query, some hundred at a time, each item once."""
    after = 0
    while True:
        page = query.where(Item.id > after).order_by(Item.id).limit(CHUNK)
        with sessions.begin() as session:
            found = list(session.scalars(page))
        if not found:
            return
        yield found
        after = found[-1].id


@dataclass(frozen=True, slots=True)
class _Kept:
    source: str
    digest: str = ""
    size: int = 0
    error: str | None = None


def _keep_all(storage: Storage, files: Iterable[Submission]) -> Iterator[_Kept]:
    """Keep a few files at once: each write waits for the disk, and memory holds no more of them."""
    waiting = iter(files)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while few := list(islice(waiting, AT_ONCE)):
            yield from threads.map(partial(_keep, storage), few)


def _keep(storage: Storage, file: Submission) -> _Kept:
    if file.data is None:
        return _Kept(file.source, error=file.error or "the file could not be read")
    name = digest(file.data)
    storage.put(name, file.data)
    return _Kept(file.source, name, len(file.data))


def _add(session: Session, batch_id: uuid.UUID, chunk: list[_Kept], actor: str) -> None:
    """Images, items, queue and ledger of some files; a cancelled batch queues no more."""
    batch = _batch(session, batch_id, lock=True)
    images = _images(session, {k.digest: k.size for k in chunk if k.error is None})
    rows = [_row(batch_id, kept, images.get(kept.digest)) for kept in chunk]
    added = insert(Item).returning(Item.id, sort_by_parameter_order=True)
    ids = list(session.scalars(added, rows))
    if batch.cancelled_at is None:
        readable = [i for i, kept in zip(ids, chunk, strict=True) if kept.error is None]
        _queue(session, readable, batch.priority)
    ledger.append(session, _entries(batch_id, ids, chunk, actor))


def _row(batch: uuid.UUID, kept: _Kept, image: int | None) -> dict[str, object]:
    failed = kept.error is not None
    return {
        "batch_id": batch,
        "image_id": image,
        "source": kept.source,
        "verdict": Verdict.UNDETERMINED if failed else None,
        "reason": kept.error,
        "judged_at": datetime.now(UTC) if failed else None,
    }


def _entries(batch: uuid.UUID, ids: list[int], chunk: list[_Kept], actor: str) -> Iterator[Entry]:
    for item, kept in zip(ids, chunk, strict=True):
        details = {"digest": kept.digest} if kept.error is None else {}
        yield Entry(Event.SUBMITTED, actor, item, batch, details)
        if kept.error is not None:
            yield Entry(Event.FAILED, actor, item, batch, {"reason": kept.error})


def _images(session: Session, sizes: dict[str, int]) -> dict[str, int]:
    """The ids of images by digest; those that are new are added."""
    if not sizes:
        return {}
    rows = [{"digest": digest, "bytes": size} for digest, size in sorted(sizes.items())]
    session.execute(upsert(Image).on_conflict_do_nothing(index_elements=["digest"]), rows)
    found = session.execute(select(Image.digest, Image.id).where(Image.digest.in_(sizes)))
    return dict(found.all())


def _queue(session: Session, items: list[int], priority: int) -> None:
    if rows := [{"item_id": item, "priority": priority} for item in items]:
        session.execute(insert(Queued), rows)


def _unqueue(session: Session, items: list[int]) -> list[int]:
    """Take items off the queue, whoever holds them; -> those that were on it."""
    locked = select(Queued.item_id).where(Queued.item_id.in_(items)).order_by(Queued.item_id)
    gone = delete(Queued).where(Queued.item_id.in_(locked.with_for_update()))
    return sorted(session.scalars(gone.returning(Queued.item_id)))


def _requeue(session: Session, failed: list[Item], priority: int, actor: str) -> int:
    """Take the verdict off undetermined items and queue them; somebody else may be quicker."""
    reasons = {item.id: item.reason for item in failed}
    again = (
        update(Item)
        .where(Item.id.in_(reasons), Item.verdict == Verdict.UNDETERMINED)
        .values(verdict=None, reason=None, judged_at=None)
        .returning(Item.id, Item.batch_id)
    )
    rows = session.execute(again).all()
    _queue(session, [item for item, _ in rows], priority)
    entries = [
        Entry(Event.RETRIED, actor, item, batch, {"reason": reasons[item]})
        for item, batch in sorted(rows)
    ]
    ledger.append(session, entries)
    return len(entries)


def _batch(session: Session, batch: uuid.UUID, lock: bool = False) -> Batch:
    query = select(Batch).where(Batch.id == batch)
    found = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise UnknownBatch(f"There is no batch {batch}: check the id that `submit` printed.")
    return found
