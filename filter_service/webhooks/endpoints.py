"""Webhook endpoints: adding, listing, removing and retrying them."""

import base64
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Update, and_, func, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Delivery, WebhookEndpoint
from filter_service.egress.uri_rules import PORTS, parse, shown
from filter_service.errors import InvalidRequest, UnknownEntry, UnsafeAddress
from filter_service.ledger import Entry, Event
from filter_service.settings import Settings

SECRET_BYTES = 32  # the specification asks for 24 to 64

_PLAIN = re.compile(r"[a-z]+://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:/[!-~]*)?", re.I)


class EventType(StrEnum):
    """What a platform can be told."""

    BATCH_FINISHED = "batch.finished"
    ITEM_FLAGGED = "item.flagged"
    ITEM_CLEAR = "item.clear"  # to those alone who ask for it
    ITEM_UNDETERMINED = "item.undetermined"
    REVIEW_DECIDED = "review.decided"
    APPEAL_OPENED = "appeal.opened"
    APPEAL_CLOSED = "appeal.closed"
    CLASS_DRIFTED = "class.drifted"  # of no batch, so that the operator's endpoints alone are told
    REPORT_OPENED = "report.opened"
    REPORT_CLOSED = "report.closed"


ON_REQUEST = frozenset({EventType.ITEM_CLEAR})  # not among all that is told unless asked


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint in its present state."""

    id: int
    url: str
    events: tuple[EventType, ...] | None  # None: all but those on request
    created_by: str
    created_at: datetime
    failing_since: datetime | None  # no delivery has succeeded since then
    disabled_at: datetime | None  # it answered 410 Gone
    client_id: int | None = None  # None: the operator's, told of every client


def add_endpoint(
    sessions: Sessions,
    settings: Settings,
    url: str,
    events: Sequence[str] | None,
    actor: str,
    scope: Scope = OPERATOR,
) -> tuple[Endpoint, str]:
    """-> the endpoint and its secret, which is shown this once; it is told of its own client only.

    Raises UnsafeAddress or InvalidRequest.
    """
    check(url, settings)
    wanted = None if events is None else [_event(name).value for name in dict.fromkeys(events)]
    if wanted == []:
        raise InvalidRequest(
            f"Name the events to be told of, some of {_names()}, or leave them out."
        )
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    row = WebhookEndpoint(
        url=url, secret=secret, events=wanted, created_by=actor, client_id=scope.owner
    )
    with sessions.begin() as session:
        session.add(row)
        session.flush()
        session.refresh(row)
        details = {"webhook": row.id, "url": url, "events": wanted}
        ledger.append(session, [Entry(Event.WEBHOOK_ADDED, actor, details=details)])
    return _endpoint(row), secret


def check(url: str, settings: Settings) -> None:
    """Raise UnsafeAddress for what no webhook may be sent to, as far as the address itself tells.

    What its host's name leads to is looked at whenever something is sent.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in PORTS:
        raise UnsafeAddress(f"{shown(url)!r} is no webhook: it begins with https:// or http://.")
    if not settings.webhook_private:
        parse(url)
    elif not _PLAIN.fullmatch(url) or not urlsplit(url).hostname:
        raise UnsafeAddress(f"{shown(url)!r} is no address: write https://host/path.")


def endpoints(
    sessions: Sessions, after: int = 0, limit: int = 100, scope: Scope = OPERATOR
) -> list[Endpoint]:
    """Those in use, in the order of their ids; those that follow `after`."""
    query = (
        select(WebhookEndpoint)
        .where(_seen(scope), WebhookEndpoint.id > after)
        .order_by(WebhookEndpoint.id)
        .limit(limit)
    )
    with sessions.begin() as session:
        return [_endpoint(row) for row in session.scalars(query)]


def endpoint(sessions: Sessions, endpoint_id: int, scope: Scope = OPERATOR) -> Endpoint:
    """Raises UnknownEntry."""
    with sessions.begin() as session:
        return _endpoint(endpoint_row(session, endpoint_id, scope))


def remove(sessions: Sessions, endpoint_id: int, actor: str, scope: Scope = OPERATOR) -> None:
    """Send nothing more there; what was on its way is given up, and the secret forgotten."""
    with sessions.begin() as session:
        endpoint_row(session, endpoint_id, scope)
        session.execute(_waiting(endpoint_id).values(given_up_at=func.now()))
        row = endpoint_row(session, endpoint_id, scope, lock=True)
        row.removed_at, row.secret = func.now(), ""
        details = {"webhook": endpoint_id, "url": row.url}
        ledger.append(session, [Entry(Event.WEBHOOK_REMOVED, actor, details=details)])


def retry(sessions: Sessions, endpoint_id: int, actor: str, scope: Scope = OPERATOR) -> None:
    """Send what waits there now, instead of later; also to an endpoint that was disabled."""
    with sessions.begin() as session:
        endpoint_row(session, endpoint_id, scope)
        session.execute(_waiting(endpoint_id).values(due_at=func.now()))
        endpoint_row(session, endpoint_id, scope, lock=True).disabled_at = None
        details = {"webhook": endpoint_id}
        ledger.append(session, [Entry(Event.REDELIVERED, actor, details=details)])


def endpoint_row(
    session: Session, endpoint_id: int, scope: Scope, *, lock: bool = False
) -> WebhookEndpoint:
    """The row of an endpoint in use that somebody sees; raises UnknownEntry."""
    query = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, _seen(scope))
    found = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if found is None:
        raise UnknownEntry(f"There is no webhook {endpoint_id}: list them to see those in use.")
    return found


def _seen(scope: Scope) -> ColumnElement[bool]:
    """In use, and theirs."""
    in_use: ColumnElement[bool] = WebhookEndpoint.removed_at.is_(None)
    return in_use if scope.everyone else and_(in_use, WebhookEndpoint.client_id == scope.owner)


def _waiting(endpoint_id: int) -> Update:
    """What waits for an endpoint, locked in order and before it, as those do who deliver."""
    waiting = (
        select(Delivery.event_id)
        .where(
            Delivery.endpoint_id == endpoint_id,
            Delivery.delivered_at.is_(None),
            Delivery.given_up_at.is_(None),
        )
        .order_by(Delivery.event_id)
        .with_for_update(key_share=True)
    )
    return update(Delivery).where(
        Delivery.endpoint_id == endpoint_id, Delivery.event_id.in_(waiting)
    )


def _event(name: str) -> EventType:
    if name not in list(EventType):
        raise InvalidRequest(f"{name!r} is no event: choose some of {_names()}.")
    return EventType(name)


def _names() -> str:
    return ", ".join(EventType)


def _endpoint(row: WebhookEndpoint) -> Endpoint:
    return Endpoint(
        row.id,
        row.url,
        None if row.events is None else tuple(EventType(e) for e in row.events),
        row.created_by,
        row.created_at,
        row.failing_since,
        row.disabled_at,
        row.client_id,
    )
