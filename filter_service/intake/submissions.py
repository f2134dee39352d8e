"""Receives batches: keeps bytes, adds items to the queue, with the effect of once."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from sqlalchemy import insert, text, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.arrays import columns
from filter_service.db.arrivals import arrived, enqueue_kept, expect, keep_images
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Fetch, ItemAttribute
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.images import digest
from filter_service.intake.abandoned_batches import close
from filter_service.intake.batches import batch_in
from filter_service.intake.idempotency import BegunBatch, Once, alone, begin
from filter_service.intake.item_lists import CHUNK
from filter_service.ledger import Entry, Event
from filter_service.moderation.disposition import tell_undetermined
from filter_service.policy import Policy
from filter_service.rendering.plain_names import plain
from filter_service.reviews.report_input import ReportInput
from filter_service.reviews.reports import add_submitted, require_class
from filter_service.storage import Storage

AT_ONCE = 8  # files that are being kept, each in a thread: a write waits for the disk
TOGETHER = 50  # files in memory meanwhile,
MUCH = 16 * 2**20  # or as many as make so many bytes; at least as many as threads

# Numbers are given out in the order of the rows.
_ITEMS = text("""
    INSERT INTO items (batch_id, client_id, image_id, source, verdict, reason, judged_at)
    SELECT :batch, :client, image_id, source,
           CASE WHEN reason IS NOT NULL THEN 'undetermined'::verdict END, reason,
           CASE WHEN reason IS NOT NULL THEN now() END
    FROM unnest(:images ::bigint[], :sources ::varchar[], :reasons ::varchar[])
        WITH ORDINALITY AS new (image_id, source, reason, place)
    ORDER BY place RETURNING id
""")

Notify = Callable[[], object]  # tells some worker that there is work


@dataclass(frozen=True, slots=True)
class Submission:
    """A file as it came: its bytes, where to fetch them, or why there are none."""

    source: str  # the file's name, for people
    data: bytes | None = None
    error: str | None = None
    uri: str | None = None
    report: ReportInput | None = None  # somebody says that it is forbidden
    attributes: Mapping[str, str] = field(default_factory=dict)  # what is known of it beside


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
    with alone(sessions, once):
        batch = Batch(id=uuid.uuid4(), label=plain(label), priority=priority)
        batch.client_id = scope.client_id
        begun = begin(sessions, policy, batch, actor, once, scope)
        if not begun.finished:
            rest = map(partial(_plain, policy=policy), islice(files, begun.accepted, None))
            try:
                _receive(sessions, notify_workers, begun, _keep_all(sessions, storage, rest), actor)
            except BaseException as error:
                if once is None:  # else the same request again takes it up where it stopped
                    error.add_note(_close_short(sessions, begun.batch))
                raise
    return begun.batch


def _receive(
    sessions: Sessions,
    notify_workers: Notify,
    begun: BegunBatch,
    kept: Iterator["_Kept"],
    actor: str,
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


@dataclass(slots=True)
class _Kept:
    source: str
    digest: str = ""
    size: int = 0
    error: str | None = None
    uri: str | None = None  # the bytes are still there
    expected: int | None = None  # by which the bytes are held until there is an item
    report: ReportInput | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Its bytes can be judged."""
        return self.error is None and self.uri is None


def _keep_all(sessions: Sessions, storage: Storage, files: Iterable[Submission]) -> Iterator[_Kept]:
    """Keep some files at once; memory holds no more of them."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for few in _some(files):
            named = _expected(sessions, [_named(file) for file in few])
            pairs = list(zip(named, few, strict=True))
            shares = [pairs[i::AT_ONCE] for i in range(min(AT_ONCE, len(pairs)))]
            list(threads.map(partial(_keep, storage), shares))
            yield from named


def _some(files: Iterable[Submission]) -> Iterator[list[Submission]]:
    """As many as are held in memory."""
    few: list[Submission] = []
    size = 0
    for file in files:
        few.append(file)
        size += len(file.data or b"")
        if len(few) >= TOGETHER or (len(few) >= AT_ONCE and size >= MUCH):
            yield few
            few, size = [], 0
    if few:
        yield few


def _plain(file: Submission, policy: Policy) -> Submission:
    """Nothing hides in what people will read; what is fetched is fetched as it was written."""
    error = None if file.error is None else plain(file.error)
    if error is None and file.report is not None:
        error = _unreportable(policy, file.report)
    return replace(file, source=plain(file.source), error=error)


def _unreportable(policy: Policy, report: ReportInput) -> str | None:
    """Why nobody could be asked about it; its item is undetermined then, and says so."""
    try:
        require_class(policy, report)
    except InvalidRequest as error:
        return f"{error} Submit it again."
    return None


def _named(file: Submission) -> _Kept:
    if file.uri is not None and file.error is None:
        return _Kept(file.source, uri=file.uri, report=file.report, attributes=file.attributes)
    if file.data is None or file.error is not None:
        return _Kept(file.source, error=file.error or "the file could not be read")
    return _Kept(
        file.source,
        digest(file.data),
        len(file.data),
        report=file.report,
        attributes=file.attributes,
    )


def _expected(sessions: Sessions, named: Sequence[_Kept]) -> list[_Kept]:
    """Nobody deletes the bytes that are about to be kept."""
    with sessions.begin() as session:
        held = iter(expect(session, [k.digest for k in named if k.here]))
    for kept in named:
        kept.expected = next(held) if kept.here else None
    return list(named)


def _keep(storage: Storage, share: Sequence[tuple[_Kept, Submission]]) -> None:
    for kept, file in share:
        if kept.here:
            assert file.data is not None
            storage.put(kept.digest, file.data)


def _add(session: Session, batch_id: uuid.UUID, chunk: list[_Kept], actor: str) -> None:
    """Images, items, queue and ledger of some files; a cancelled batch queues no more."""
    batch = batch_in(session, batch_id, lock=True)
    images = keep_images(session, {k.digest: k.size for k in chunk if k.here})
    arrived(session, [k.expected for k in chunk if k.expected is not None])
    rows = [(images.get(kept.digest), kept.source, kept.error) for kept in chunk]
    about = {"batch": batch.id, "client": batch.client_id}
    ids = sorted(session.scalars(_ITEMS, about | columns("images sources reasons", rows)).all())
    _keep_attributes(session, ids, chunk)
    if batch.cancelled_at is None:
        readable = [i for i, kept in zip(ids, chunk, strict=True) if kept.here]
        enqueue_kept(session, readable, batch.priority)
        _fetch_later(session, {i: k.uri for i, k in zip(ids, chunk, strict=True) if k.uri})
    ledger.append(session, _entries(batch_id, ids, chunk, actor))
    reported = {i: k.report for i, k in zip(ids, chunk, strict=True) if k.report is not None}
    add_submitted(session, reported, actor)
    failed = [
        (item, batch_id, k.source, k.error)
        for item, k in zip(ids, chunk, strict=True)
        if k.error is not None
    ]
    if failed:
        tell_undetermined(session, failed)


def _entries(batch: uuid.UUID, ids: list[int], chunk: list[_Kept], actor: str) -> Iterator[Entry]:
    for item, kept in zip(ids, chunk, strict=True):
        details = {"digest": kept.digest} if kept.here else {}
        yield Entry(Event.SUBMITTED, actor, item, batch, details)
        if kept.error is not None:
            yield Entry(Event.FAILED, actor, item, batch, {"reason": kept.error})


def _keep_attributes(session: Session, ids: list[int], chunk: list[_Kept]) -> None:
    """What the platform said of each item."""
    rows = [
        {"item_id": item, "name": name, "value": value}
        for item, kept in zip(ids, chunk, strict=True)
        for name, value in kept.attributes.items()
    ]
    if rows:
        session.execute(insert(ItemAttribute), rows)


def _fetch_later(session: Session, uris: dict[int, str]) -> None:
    if rows := [{"item_id": item, "uri": uri} for item, uri in uris.items()]:
        session.execute(insert(Fetch), rows)
