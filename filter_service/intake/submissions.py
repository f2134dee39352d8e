"""Batches of images: submission, status, listing of items, cancellation and retry."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, islice

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, true, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.arrivals import arrived, enqueue, expect, hold_images, keep_images
from filter_service.db.policies import store_policy
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Fetch,
    IdempotencyKey,
    Item,
    PolicyClass,
    QueueEntry,
    StoredImage,
)
from filter_service.db.unjudged import UnjudgedReason, unjudged
from filter_service.errors import Conflict, FilterServiceError, InvalidRequest, UnknownBatch
from filter_service.images import digest
from filter_service.intake.abandoned_batches import close
from filter_service.ledger import Entry, Event
from filter_service.moderation.disposition import tell_undetermined
from filter_service.policy import Policy
from filter_service.rendering.plain_names import plain
from filter_service.storage import Storage
from filter_service.verdicts import Verdict

CHUNK = 200  # items of one transaction
HOLDING = 5  # items of one image that are named
AT_ONCE = 8  # files in memory while they are being kept

Notify = Callable[[], object]  # tells some worker that there is work


@dataclass(frozen=True, slots=True)
class Submission:
    """A file as it came: its bytes, where to fetch them, or why there are none."""

    source: str  # the file's name, for people
    data: bytes | None = None
    error: str | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class Once:
    """The idempotency key of a request: sent again, it has the effect of one."""

    owner: str  # whose key it is
    key: str
    request: str  # SHA-256 of everything that was asked, hex


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
    waiting: int  # queued, being judged or being fetched
    cancelled: int  # with the batch, before there was a verdict
    erased: int  # likewise
    stranded: int  # without a verdict, and nobody will come to find one

    @property
    def finished(self) -> bool:
        """Nothing more will happen to it."""
        return self.total is not None and (self.waiting == 0 or self.cancelled_at is not None)


def accept(  # noqa: PLR0913  (what may be left out is a parameter, too)
    sessions: Sessions,
    storage: Storage,
    notify_workers: Notify,
    files: Iterable[Submission],
    policy: Policy,
    *,
    label: str = "",
    priority: int = 0,
    actor: str = "platform",
    once: Once | None = None,
    scope: Scope = OPERATOR,
) -> uuid.UUID:
    """Keep the files, queue an item for each, and wake workers; -> the batch.

    The bytes are kept before the rows that speak of them, some hundred files at a time: what was
    accepted is judged even if this stops in the middle. What has an address instead is queued when
    its bytes were fetched. A higher priority is judged sooner.

    With `once`, the same request again gives the same batch, and takes up one that was cut short
    where it stopped; without, such a batch is closed with what it holds, and a note on the error
    names it (a chore closes that of a process that was killed). Raises InvalidRequest for another
    request under a key that was used, and Conflict while somebody else is at it.
    """
    with _alone(sessions, once):
        batch = Batch(id=uuid.uuid4(), label=plain(label), priority=priority)
        batch.client_id = scope.client_id
        begun = _begin(sessions, policy, batch, actor, once, scope)
        if not begun.finished:
            rest = map(_plain, islice(files, begun.accepted, None))
            try:
                _receive(sessions, notify_workers, begun, _keep_all(sessions, storage, rest), actor)
            except BaseException as error:
                if once is None:  # else the same request again takes it up where it stopped
                    error.add_note(_close_short(sessions, begun.batch))
                raise
    return begun.batch


def cancel(
    sessions: Sessions, batch: uuid.UUID, actor: str = "platform", scope: Scope = OPERATOR
) -> int:
    """Take back every item of a batch that has no verdict yet; how many those were.

    A worker that holds one of them finds it gone when it comes to record the verdict.
    """
    with sessions.begin() as session:
        found = _batch(session, batch, scope, lock=True)
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


def retry(
    sessions: Sessions,
    notify_workers: Notify,
    batch: uuid.UUID,
    actor: str = "platform",
    scope: Scope = OPERATOR,
) -> int:
    """Queue the undetermined items of a batch again, or fetch them; how many.

    What came without bytes and without an address to fetch them from stays as it is, and so does
    what was deleted since.
    """
    with sessions.begin() as session:
        found = _batch(session, batch, scope)
    if found.cancelled_at is not None:
        return 0
    retried = 0
    fetchable = select(Fetch.item_id).where(Fetch.item_id == Item.id).exists()
    undetermined = _of(batch, Verdict.UNDETERMINED).where(_has_bytes() | fetchable)
    for failed in _chunks(sessions, undetermined):
        with sessions.begin() as session:
            retried += _requeue(session, failed, found.priority, actor)
        notify_workers()
    return retried


def retry_items(
    sessions: Sessions, notify_workers: Notify, items: Sequence[int], actor: str = "platform"
) -> int:
    """Queue these items again as far as they are undetermined and can be judged; how many."""
    wanted = (
        select(Item, Batch.priority)
        .join(Batch, Batch.id == Item.batch_id)
        .where(
            Item.id.in_(items),
            Item.verdict == Verdict.UNDETERMINED,
            _has_bytes(),
            Batch.cancelled_at.is_(None),
        )
        .order_by(Batch.priority, Item.id)
    )
    retried = 0
    with sessions.begin() as session:
        rows = session.execute(wanted).all()
        for priority, same in groupby(rows, key=lambda row: row[1]):
            retried += _requeue(session, [item for item, _ in same], priority, actor)
    if retried:
        notify_workers()
    return retried


def status(sessions: Sessions, batch: uuid.UUID, scope: Scope = OPERATOR) -> Status:
    """Count a batch's items by verdict."""
    with sessions.begin() as session:
        found = _batch(session, batch, scope)
        counts = dict(
            session.execute(
                select(Item.verdict, func.count())
                .where(Item.batch_id == batch)
                .group_by(Item.verdict)
            ).all()
        )
        why = unjudged().label("why")
        unjudged_of = select(why, func.count()).where(
            Item.batch_id == batch, Item.verdict.is_(None)
        )
        rest = dict(session.execute(unjudged_of.group_by(why)).all())
    return Status(
        batch=batch,
        label=found.label,
        submitted_at=found.submitted_at,
        cancelled_at=found.cancelled_at,
        total=found.total,
        clear=counts.get(Verdict.CLEAR, 0),
        flagged=counts.get(Verdict.FLAGGED, 0),
        undetermined=counts.get(Verdict.UNDETERMINED, 0),
        **{each.value: rest.get(each.value, 0) for each in UnjudgedReason},
    )


def items(
    sessions: Sessions,
    batch: uuid.UUID | None = None,
    verdict: Verdict | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[Item]:
    """Items in the order of their ids; give the last one's id as `after` for those that follow."""
    with sessions.begin() as session:
        return list(session.scalars(_items(batch, verdict, after, limit)))


def items_with_classes(
    sessions: Sessions,
    batch: uuid.UUID | None = None,
    verdict: Verdict | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[tuple[Item, str | None]]:
    """Items as above, each with its class: of a flagged one, or the nearest of a clear one."""
    query = _items(batch, verdict, after, limit).add_columns(PolicyClass.name)
    with sessions.begin() as session:
        rows = session.execute(query.outerjoin(PolicyClass, PolicyClass.id == Item.class_id))
        return [(item, name) for item, name in rows]


def newest_items(sessions: Sessions, digests: Sequence[str]) -> dict[str, list[int]]:
    """The newest few items that hold each image, by the image's digest."""
    newest = (
        select(Item.id)
        .where(Item.image_id == StoredImage.id)
        .order_by((Item.id + 0).desc())  # or the planner walks all items from the newest
        .limit(HOLDING)
        .lateral("newest")
    )
    query = select(StoredImage.digest, newest.c.id).join(newest, true())
    found: dict[str, list[int]] = {digest: [] for digest in digests}
    with sessions.begin() as session:
        rows = session.execute(
            query.where(StoredImage.digest.in_(digests)).order_by(newest.c.id.desc())
        )
        for digest, item in rows:
            found[digest].append(item)
    return found


def _items(
    batch: uuid.UUID | None, verdict: Verdict | None, after: int, limit: int
) -> Select[Item]:
    query = select(Item).where(Item.id > after).order_by(Item.id).limit(limit)
    if batch is not None:
        query = query.where(Item.batch_id == batch)
    if verdict is not None:
        query = query.where(Item.verdict == verdict)
    return query


def _has_bytes() -> ColumnElement[bool]:
    """The storage keeps its image."""
    kept = select(StoredImage.id).where(
        StoredImage.id == Item.image_id, StoredImage.bytes_gone_at.is_(None)
    )
    return kept.exists()


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
class _Begun:
    """A batch that takes items."""

    batch: uuid.UUID
    accepted: int  # its first items, which are there from an earlier try
    finished: bool  # all of them are


@contextmanager
def _alone(sessions: Sessions, once: Once | None) -> Iterator[None]:
    """Nobody else works on this request meanwhile; who is killed gives way at once.

    The lock is a connection's, outside the pool: requests that hold one and wait for another would
    block each other. Its transaction has no snapshot, and so stands in nobody's way.
    """
    if once is None:
        yield
        return
    name = f"{once.owner}\n{once.key}"
    with sessions.kw["bind"].connect() as connection:
        connection.detach()
        lock = func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0))
        if not connection.scalar(select(lock)):
            raise Conflict(
                f"The request with the idempotency key {once.key!r} is being worked on: wait for "
                "its answer, or send it again in a few seconds."
            )
        yield


def _begin(
    sessions: Sessions,
    policy: Policy,
    batch: Batch,
    actor: str,
    once: Once | None,
    scope: Scope,
) -> _Begun:
    """A new batch, or the one that an earlier try of the same request has begun.

    The key stands from the moment at which there is a batch: a process killed before that leaves
    nothing, one killed later leaves a batch that the next try finds and completes.
    """
    with sessions.begin() as session:
        if once is not None and (begun := _begun(session, once)):
            return begun
        batch.policy_id = store_policy(session, policy, scope.owner)
        session.add(batch)
        if once is not None:
            session.add(IdempotencyKey(**asdict(once), batch_id=batch.id))
        ledger.append(session, [Entry(Event.SUBMITTED, actor, batch_id=batch.id)])
    return _Begun(batch.id, accepted=0, finished=False)


def _begun(session: Session, once: Once) -> _Begun | None:
    known = session.get(IdempotencyKey, (once.owner, once.key))
    if known is None:
        return None
    if known.request != once.request:
        raise InvalidRequest(
            f"The idempotency key {once.key!r} was used for another request: send what was sent "
            "with it before, or take a new key."
        )
    batch = _batch(session, known.batch_id)
    if batch.total is not None:
        return _Begun(batch.id, batch.total, finished=True)
    counted = select(func.count()).select_from(Item).where(Item.batch_id == batch.id)
    return _Begun(batch.id, session.scalar(counted) or 0, finished=False)


def _receive(
    sessions: Sessions, notify_workers: Notify, begun: _Begun, kept: Iterator["_Kept"], actor: str
) -> None:
    """Add what comes to a batch, some hundred items at a time, and close it."""
    total = begun.accepted
    while chunk := list(islice(kept, CHUNK)):
        with sessions.begin() as session:
            _add(session, begun.batch, chunk, actor)
        notify_workers()
        total += len(chunk)
    with sessions.begin() as session:
        session.execute(update(Batch).where(Batch.id == begun.batch).values(total=total))


def _close_short(sessions: Sessions, batch: uuid.UUID) -> str:
    """Close a batch that was cut short; -> the sentence that says so."""
    try:
        with sessions.begin() as session:
            total = close(session, batch)
    except FilterServiceError:
        return f"Batch {batch} was cut short, and could not be closed: cancel it."
    return f"Batch {batch} was cut short: it holds the first {total} files, and these are judged."


@dataclass(frozen=True, slots=True)
class _Kept:
    source: str
    digest: str = ""
    size: int = 0
    error: str | None = None
    uri: str | None = None  # the bytes are still there
    expected: int | None = None  # by which the bytes are held until there is an item

    @property
    def here(self) -> bool:
        """Its bytes can be judged."""
        return self.error is None and self.uri is None


def _keep_all(sessions: Sessions, storage: Storage, files: Iterable[Submission]) -> Iterator[_Kept]:
    """Keep a few files at once: each write waits for the disk, and memory holds no more of them."""
    waiting = iter(files)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        while few := list(islice(waiting, AT_ONCE)):
            named = _expected(sessions, list(threads.map(_named, few)))
            data = [file.data for file in few]
            yield from threads.map(partial(_keep, storage), named, data)


def _plain(file: Submission) -> Submission:
    """Nothing hides in what people will read; what is fetched is fetched as it was written."""
    error = None if file.error is None else plain(file.error)
    return replace(file, source=plain(file.source), error=error)


def _named(file: Submission) -> _Kept:
    if file.uri is not None and file.error is None:
        return _Kept(file.source, uri=file.uri)
    if file.data is None:
        return _Kept(file.source, error=file.error or "the file could not be read")
    return _Kept(file.source, digest(file.data), len(file.data))


def _expected(sessions: Sessions, named: Sequence[_Kept]) -> list[_Kept]:
    """Nobody deletes the bytes that are about to be kept."""
    with sessions.begin() as session:
        held = iter(expect(session, [k.digest for k in named if k.here]))
    return [replace(k, expected=next(held)) if k.here else k for k in named]


def _keep(storage: Storage, kept: _Kept, data: bytes | None) -> _Kept:
    if kept.here:
        assert data is not None
        storage.put(kept.digest, data)
    return kept


def _add(session: Session, batch_id: uuid.UUID, chunk: list[_Kept], actor: str) -> None:
    """Images, items, queue and ledger of some files; a cancelled batch queues no more."""
    batch = _batch(session, batch_id, lock=True)
    images = keep_images(session, {k.digest: k.size for k in chunk if k.here})
    arrived(session, [k.expected for k in chunk if k.expected is not None])
    rows = [_row(batch, kept, images.get(kept.digest)) for kept in chunk]
    added = insert(Item).returning(Item.id, sort_by_parameter_order=True)
    ids = list(session.scalars(added, rows))
    if batch.cancelled_at is None:
        readable = [i for i, kept in zip(ids, chunk, strict=True) if kept.here]
        enqueue(session, readable, batch.priority)
        _fetch_later(session, {i: k.uri for i, k in zip(ids, chunk, strict=True) if k.uri})
    ledger.append(session, _entries(batch_id, ids, chunk, actor))
    failed = [
        (item, batch_id, k.source, k.error)
        for item, k in zip(ids, chunk, strict=True)
        if k.error is not None
    ]
    if failed:
        tell_undetermined(session, failed)


def _row(batch: Batch, kept: _Kept, image: int | None) -> dict[str, object]:
    failed = kept.error is not None
    return {
        "batch_id": batch.id,
        "client_id": batch.client_id,
        "image_id": image,
        "source": kept.source,
        "verdict": Verdict.UNDETERMINED if failed else None,
        "reason": kept.error,
        "judged_at": datetime.now(UTC) if failed else None,
    }


def _entries(batch: uuid.UUID, ids: list[int], chunk: list[_Kept], actor: str) -> Iterator[Entry]:
    for item, kept in zip(ids, chunk, strict=True):
        details = {"digest": kept.digest} if kept.here else {}
        yield Entry(Event.SUBMITTED, actor, item, batch, details)
        if kept.error is not None:
            yield Entry(Event.FAILED, actor, item, batch, {"reason": kept.error})


def _fetch_later(session: Session, uris: dict[int, str]) -> None:
    if rows := [{"item_id": item, "uri": uri} for item, uri in uris.items()]:
        session.execute(insert(Fetch), rows)


def _fetch_again(session: Session, items: list[int]) -> None:
    """Let fetches that were given up start anew."""
    anew = update(Fetch).where(Fetch.item_id.in_(items), Fetch.due_at.is_(None))
    session.execute(anew.values(due_at=func.now(), attempts=0, problem=None))


def _unqueue(session: Session, items: list[int]) -> list[int]:
    """Take items off the queue, whoever holds them, and fetch no more; -> those that waited."""
    gone: list[int] = []
    for table in (
        Fetch,
        QueueEntry,
    ):  # in this order, or what was fetched meanwhile would be queued
        locked = select(table.item_id).where(table.item_id.in_(items)).order_by(table.item_id)
        taken = delete(table).where(table.item_id.in_(locked.with_for_update()))
        gone += session.scalars(taken.returning(table.item_id))
    return sorted(gone)


def _requeue(session: Session, failed: list[Item], priority: int, actor: str) -> int:
    """Take the verdict off undetermined items and queue them; somebody else may be quicker."""
    reasons = {item.id: item.reason for item in failed}
    hold_images(session, [item.image_id for item in failed if item.image_id is not None])
    again = (
        update(Item)
        .where(
            Item.id.in_(reasons),
            Item.verdict == Verdict.UNDETERMINED,
            Item.image_id.is_(None) | _has_bytes(),
        )
        .values(verdict=None, reason=None, judged_at=None)
        .returning(Item.id, Item.batch_id, Item.image_id)
    )
    rows = sorted(session.execute(again).all())
    enqueue(session, [item for item, _, image in rows if image is not None], priority)
    _fetch_again(session, [item for item, _, image in rows if image is None])
    entries = [
        Entry(Event.RETRIED, actor, item, batch, {"reason": reasons[item]})
        for item, batch, _ in rows
    ]
    ledger.append(session, entries)
    return len(entries)


def _batch(
    session: Session, batch: uuid.UUID, scope: Scope = OPERATOR, *, lock: bool = False
) -> Batch:
    query = select(Batch).where(Batch.id == batch, scope.has(Batch.client_id))
    found = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise UnknownBatch(f"There is no batch {batch}: check the id that `submit` printed.")
    return found
