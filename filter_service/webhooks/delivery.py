"""Delivers due webhooks, under leases, in order per subject, with retries."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Update, func, select, update
from sqlalchemy.orm import Session, aliased

from filter_service import ledger
from filter_service.db.lease_queue import DELIVERIES
from filter_service.db.session import Sessions
from filter_service.db.tables import Delivery, DeliveryAttempt, OutboxEvent, WebhookEndpoint
from filter_service.ledger import Entry, Event
from filter_service.settings import Settings
from filter_service.webhooks.sender import Answer, Letter, send

# How long after each failure, as the specification recommends; from then on the last one again.
WAITS = tuple(timedelta(seconds=s) for s in (5, 300, 1800))
WAITS += tuple(timedelta(hours=h) for h in (2, 5, 10, 14, 20, 24))
JITTER = 0.1  # of each wait, more or less, so that not all come back at once
MARGIN = timedelta(seconds=30)  # a lease outlasts the time for one delivery by this
LANES = 16  # deliveries on their way at once
SHARE = 4  # of them to one endpoint; a failing one gets a single one
REST = 1.0  # seconds before an endpoint is looked at again that failed or had nothing
GLANCE = 0.2  # seconds between two looks at what has come due

logger = logging.getLogger(__name__)


def deliver_due(
    sessions: Sessions,
    settings: Settings,
    stop: Callable[[], bool] = lambda: False,
    seconds: float = 60.0,
) -> int:
    """Send what is due until nothing is, the time is over or somebody says stop; how many arrived.

    Endpoints have their own lanes, so that one which hangs holds up nobody else.
    """
    end = time.monotonic() + seconds

    def over() -> bool:
        return stop() or time.monotonic() > end

    arrived = 0
    running: dict[Future[_Ride], int] = {}
    resting: dict[int, float] = {}
    with ThreadPoolExecutor(LANES, thread_name_prefix="webhook") as pool:
        while True:
            busy = Counter(running.values())
            for endpoint, share in [] if over() else _due(sessions):
                if resting.get(endpoint, 0) < time.monotonic():
                    for _ in range(share - busy[endpoint]):
                        ride = pool.submit(_ride, sessions, settings, endpoint, over)
                        running[ride] = endpoint
            if not running:
                return arrived
            for ride in wait(running, GLANCE, FIRST_COMPLETED).done:
                endpoint, result = running.pop(ride), ride.result()
                arrived += result.arrived
                if not result.more:
                    resting[endpoint] = time.monotonic() + REST


@dataclass(frozen=True, slots=True)
class _Ride:
    """What came of one lane."""

    arrived: int
    more: bool  # there may be more to send now


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A delivery that this process may try until its lease ends."""

    endpoint_id: int
    event_id: int
    subject: str
    attempts: int  # this one included
    leased_until: datetime
    now: datetime  # as the database sees it
    letter: Letter


def _due(sessions: Sessions) -> list[tuple[int, int]]:
    """Endpoints for which something is due, and how many lanes each may have."""
    waits = select(Delivery.event_id).where(
        Delivery.endpoint_id == WebhookEndpoint.id, *_open(Delivery), DELIVERIES.free
    )
    query = select(WebhookEndpoint.id, WebhookEndpoint.failing_since).where(
        *_in_use(), waits.exists()
    )
    with sessions.begin() as session:
        return [(id_, 1 if failing else SHARE) for id_, failing in session.execute(query)]


def _ride(
    sessions: Sessions, settings: Settings, endpoint_id: int, over: Callable[[], bool]
) -> _Ride:
    """Send to one endpoint, one after another, until nothing is due or one attempt fails."""
    lease = timedelta(seconds=settings.webhook_seconds) + MARGIN
    arrived = 0
    while not over():
        with sessions.begin() as session:
            claimed = _claim(session, endpoint_id, lease)
        if claimed is None:
            return _Ride(arrived, more=False)
        answer = send(claimed.letter, settings)
        with sessions.begin() as session:
            _settle(session, claimed, answer, timedelta(hours=settings.webhook_hours))
        if not answer.accepted:
            return _Ride(arrived, more=False)
        arrived += 1
    return _Ride(arrived, more=True)


def _claim(session: Session, endpoint_id: int, lease: timedelta) -> _Claimed | None:
    """The delivery that has been due the longest and waits for no earlier one of its subject."""
    earlier = aliased(Delivery)
    blocked = select(earlier.event_id).where(
        earlier.endpoint_id == Delivery.endpoint_id,
        earlier.subject == Delivery.subject,
        earlier.event_id < Delivery.event_id,
        *_open(earlier),
    )
    first = (
        DELIVERIES.select_free(Delivery.event_id, key_share=True)
        .where(Delivery.endpoint_id == endpoint_id, *_open(Delivery), ~blocked.exists())
        .order_by(Delivery.due_at)
        .limit(1)
    )
    claim = (
        DELIVERIES.claim(
            lease,
            Delivery.endpoint_id == endpoint_id,
            Delivery.event_id == first.scalar_subquery(),
            WebhookEndpoint.id == Delivery.endpoint_id,
            *_in_use(),
            OutboxEvent.id == Delivery.event_id,
        )
        .returning(
            Delivery.event_id,
            Delivery.subject,
            Delivery.attempts,
            Delivery.due_at,
            func.now(),
            WebhookEndpoint.url,
            WebhookEndpoint.secret,
            OutboxEvent.message_id,
            OutboxEvent.type,
            OutboxEvent.at,
            OutboxEvent.payload,
        )
        .execution_options(synchronize_session=False)
    )
    row = session.execute(claim).one_or_none()
    if row is None:
        return None
    event, subject, attempts, leased_until, now, url, secret, message, type_, at, payload = row
    letter = Letter(url, secret, str(message), type_, at, payload)
    return _Claimed(endpoint_id, event, subject, attempts, leased_until, now, letter)


def _settle(session: Session, claimed: _Claimed, answer: Answer, limit: timedelta) -> None:
    """Write down what came of an attempt, and when the next one is due."""
    attempt = DeliveryAttempt(
        endpoint_id=claimed.endpoint_id,
        event_id=claimed.event_id,
        status=answer.status,
        problem=answer.problem,
        seconds=answer.seconds,
    )
    session.add(attempt)
    if answer.accepted:
        _arrived(session, claimed)
    else:
        _failed(session, claimed, answer, limit)


def _arrived(session: Session, claimed: _Claimed) -> None:
    """It arrived, even if somebody else has claimed it since; what waited for it may go."""
    session.execute(_this(claimed).values(delivered_at=func.now(), given_up_at=None))
    session.execute(_later(claimed).values(due_at=func.now()))
    session.execute(
        update(WebhookEndpoint)
        .where(
            WebhookEndpoint.id == claimed.endpoint_id, WebhookEndpoint.failing_since.is_not(None)
        )
        .values(failing_since=None)
    )


def _failed(session: Session, claimed: _Claimed, answer: Answer, limit: timedelta) -> None:
    """Put off, or given up; unless the lease has lapsed: then it is somebody else's."""
    last = claimed.letter.at + limit
    again = min(claimed.now + pause(claimed.attempts), max(last, claimed.now))
    fate = {"given_up_at": func.now()} if last <= claimed.now else {"due_at": again}
    mine = _this(claimed).where(*_open(Delivery), Delivery.due_at == claimed.leased_until)
    if session.execute(mine.values(fate).returning(Delivery.event_id)).one_or_none() is None:
        return
    session.execute(_later(claimed).values(due_at=fate.get("due_at", func.now())))
    failing = session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == claimed.endpoint_id, WebhookEndpoint.failing_since.is_(None))
        .values(failing_since=func.now())
        .returning(WebhookEndpoint.id)
    )
    if failing.one_or_none() is not None:
        logger.warning("Webhook %s fails: %s.", claimed.endpoint_id, answer.problem)
    if answer.gone:
        _disable(session, claimed)


def _disable(session: Session, claimed: _Claimed) -> None:
    """The receiver wants no more; what waits is kept, in case somebody enables it again."""
    disabled = session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == claimed.endpoint_id, *_in_use())
        .values(disabled_at=func.now())
        .returning(WebhookEndpoint.url)
    )
    for (url,) in disabled:
        details = {"webhook": claimed.endpoint_id, "url": url, "problem": "410 Gone"}
        ledger.append(session, [Entry(Event.WEBHOOK_REMOVED, "service", details=details)])


def pause(attempts: int) -> timedelta:
    """How long to wait after so many failures."""
    wait = WAITS[min(attempts, len(WAITS)) - 1]
    return wait * random.uniform(1 - JITTER, 1 + JITTER)


def _this(claimed: _Claimed) -> Update:
    return update(Delivery).where(
        Delivery.endpoint_id == claimed.endpoint_id, Delivery.event_id == claimed.event_id
    )


def _later(claimed: _Claimed) -> Update:
    """What of the same subject waits for this delivery."""
    return update(Delivery).where(
        Delivery.endpoint_id == claimed.endpoint_id,
        Delivery.subject == claimed.subject,
        Delivery.event_id > claimed.event_id,
        *_open(Delivery),
    )


def _open(row: type[Delivery]) -> tuple[ColumnElement[bool], ...]:
    return row.delivered_at.is_(None), row.given_up_at.is_(None)


def _in_use() -> tuple[ColumnElement[bool], ...]:
    return WebhookEndpoint.disabled_at.is_(None), WebhookEndpoint.removed_at.is_(None)
