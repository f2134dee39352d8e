"""Works off the queue of pending fetches, with claims and retries."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, select, update

from filter_service import ledger
from filter_service.db.arrivals import arrived, enqueue, expect, keep_images, unwanted
from filter_service.db.lease_queue import FETCHES
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Fetch, Item
from filter_service.egress.client import Internet
from filter_service.egress.private_networks import private_networks
from filter_service.egress.uri_rules import shown
from filter_service.errors import FilterServiceError, ImageError, UnsafeAddress, for_clients
from filter_service.images import digest
from filter_service.intake.download import get
from filter_service.ledger import Entry, Event
from filter_service.moderation.results import FailedItem, fail
from filter_service.settings import Settings
from filter_service.storage import Storage

AT_ONCE = 8  # downloads, each with as many bytes in memory as an image may have
ATTEMPTS = 8  # with the pauses between them about two hours
PAUSE = timedelta(seconds=10)  # before the second attempt; three times as long after each
LONGEST_PAUSE = timedelta(hours=1)
MARGIN = 60.0  # seconds for what has no limit of its own: the resolver and the store
ACTOR = "service"


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A fetch that one thread may do until its lease ends."""

    item_id: int
    uri: str
    attempt: int
    until: datetime
    problem: str | None


@dataclass(frozen=True, slots=True)
class _Round:
    """What the threads of one call share."""

    sessions: Sessions
    storage: Storage
    settings: Settings
    notify_workers: Callable[[], object]
    internet: Internet
    until: float  # on the monotonic clock: no fetch is begun after that


def fetch_due(
    sessions: Sessions,
    storage: Storage,
    settings: Settings,
    notify_workers: Callable[[], object] = lambda: None,
    *,
    seconds: float = 20.0,
    internet: Internet | None = None,
) -> int:
    """Fetch what is due, some at once, and queue it; how many attempts were made.

    From public addresses and the operator's own networks, unless told another Internet.

    None is begun after so many seconds: call it again while it finds something to do. Whoever is
    killed meanwhile leaves fetches that are due again some time later.
    """
    reached = internet or Internet(also=private_networks(settings.fetch_private))
    this = _Round(sessions, storage, settings, notify_workers, reached, time.monotonic() + seconds)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as threads:
        return sum(threads.map(_work, [this] * AT_ONCE))


def _work(this: _Round) -> int:
    """One thread's part: claim, fetch, record, until nothing is due."""
    done = 0
    while time.monotonic() < this.until and (claimed := _claim(this)):
        done += 1
        _attempt(this, claimed)
    return done


def _claim(this: _Round) -> _Claimed | None:
    """The next fetch that nobody holds; it is due again when its holder must have been killed."""
    lease = timedelta(seconds=2 * this.settings.fetch_seconds + MARGIN)
    due = FETCHES.select_free(Fetch.item_id).order_by(Fetch.due_at, Fetch.item_id).limit(1)
    claim = FETCHES.claim(lease, Fetch.item_id == due.scalar_subquery())
    told = (Fetch.item_id, Fetch.uri, Fetch.attempts, Fetch.due_at, Fetch.problem)
    with this.sessions.begin() as session:
        row = session.execute(claim.returning(*told)).one_or_none()
    if row is None:
        return None
    item_id, uri, attempt, until, problem = row
    assert until is not None, "it was set just now"
    return _Claimed(item_id, uri, attempt, until, problem)


def _attempt(this: _Round, claimed: _Claimed) -> None:
    if claimed.attempt > ATTEMPTS:  # the last one had no end: it killed who made it
        problem = claimed.problem or "whoever fetched it was killed"
        _give_up(this, claimed, f"given up after {ATTEMPTS} attempts: {problem}")
        return
    settings = this.settings
    try:
        data = get(
            claimed.uri,
            settings.fetch_hosts,
            settings.fetch_seconds,
            settings.max_bytes,
            this.internet,
            inside=bool(settings.fetch_private),
        )
        name = digest(data)
        with this.sessions.begin() as session:
            expected = expect(session, [name])
        this.storage.put(name, data)
    except (UnsafeAddress, ImageError) as error:
        _give_up(this, claimed, str(error))
    except FilterServiceError as error:
        _put_off(this, claimed, for_clients(error))
    else:
        _arrive(this, claimed, name, len(data), expected)


def _arrive(this: _Round, claimed: _Claimed, name: str, size: int, expected: Sequence[int]) -> None:
    """Give the item its image and queue it; once, however many have fetched it."""
    with this.sessions.begin() as session:
        waiting = (Fetch.item_id == claimed.item_id, Fetch.due_at.is_not(None))
        if session.scalar(delete(Fetch).where(*waiting).returning(Fetch.item_id)) is None:
            unwanted(session, expected)  # cancelled, erased, or somebody else was quicker
            return
        image = keep_images(session, {name: size})[name]
        arrived(session, expected)
        of = select(Batch.id, Batch.priority).join(Item).where(Item.id == claimed.item_id)
        batch, priority = session.execute(of).one()
        session.execute(update(Item).where(Item.id == claimed.item_id).values(image_id=image))
        enqueue(session, [claimed.item_id], priority)
        details = {"digest": name, "bytes": size, "uri": shown(claimed.uri)}
        ledger.append(session, [Entry(Event.FETCHED, ACTOR, claimed.item_id, batch, details)])
    this.notify_workers()


def _put_off(this: _Round, claimed: _Claimed, problem: str) -> None:
    """Try again later, if it is not hopeless yet."""
    if claimed.attempt >= ATTEMPTS:
        _give_up(this, claimed, f"given up after {claimed.attempt} attempts: {problem}")
        return
    pause = min(PAUSE * 3 ** (claimed.attempt - 1), LONGEST_PAUSE)
    with this.sessions.begin() as session:
        session.execute(FETCHES.hold(pause, *_mine(claimed)).values(problem=problem))


def _give_up(this: _Round, claimed: _Claimed, reason: str) -> None:
    """Make the item undetermined; what refers to its bytes stays, for whoever retries it."""
    with this.sessions.begin() as session:
        given_up = update(Fetch).where(*_mine(claimed)).values(due_at=None, problem=reason)
        if session.scalar(given_up.returning(Fetch.item_id)) is not None:
            fail(session, [FailedItem(claimed.item_id, reason)], ACTOR)


def _mine(claimed: _Claimed) -> tuple[ColumnElement[bool], ...]:
    """The fetch, if its claim has not lapsed and gone to somebody else."""
    return Fetch.item_id == claimed.item_id, Fetch.due_at == claimed.until
