"""Creates, checks, lists and revokes API keys, of which only digests are stored."""

import hashlib
import re
import secrets
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from filter_service import ledger
from filter_service.accounts import clients
from filter_service.db.session import Sessions
from filter_service.db.tables import ApiKey, Client
from filter_service.errors import Conflict, InvalidRequest, NotSignedIn, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.rendering.plain_names import plain

START = "fsk_"
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


def add_key(
    sessions: Sessions,
    name: str,
    actor: str,
    client: str | None = None,
    *,
    all_clients: bool = False,
    policies: bool = False,
) -> str:
    """A new key; this is the only time that anybody sees it.

    It belongs to the client of that name; without one, to the client called like the key, which is
    made if there is none. One of the operator's own sees all clients, and may be one that proposes
    and activates policies.

    Raises InvalidRequest for an odd name, Conflict for one that a valid key has, UnknownEntry for a
    client that there is not.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"The key's name {name!r} must be one line of 1 to 100 letters.")
    name = plain(name)
    if policies and not all_clients:
        raise InvalidRequest(
            f"The key {name!r} is to propose policies, which are the operator's: make it one of "
            "your own, which sees all clients, too."
        )
    secret = START + secrets.token_urlsafe(32)
    key = ApiKey(name=name, prefix=secret[:12], digest=_digest(secret), created_by=actor)
    key.all_clients, key.policies = all_clients, policies
    try:
        with sessions.begin() as session:
            whose = clients.of_key(session, name, client, actor)
            key.client_id = whose.id
            session.add(key)
            session.flush()
            details = {"key": key.id, "name": name, "prefix": key.prefix, "client": whose.name}
            if all_clients:
                details["sees"] = "every client"
            if policies:
                details["may"] = "propose and activate policies"
            ledger.append(session, [Entry(Event.KEY_ADDED, actor, details=details)])
    except IntegrityError as error:
        raise Conflict(
            f"A key called {name!r} is in use: revoke it first or choose another name."
        ) from error
    return secret


def key_of(sessions: Sessions, secret: str) -> ApiKey:
    """The key that is valid; raises NotSignedIn for any other."""
    valid = select(ApiKey).where(ApiKey.digest == _digest(secret), ApiKey.revoked_at.is_(None))
    with sessions.begin() as session:
        found = session.scalar(valid)
    if found is None:
        raise NotSignedIn(f"The API key {_shown(secret)} is not valid: ask an admin for another.")
    return found


def keys(sessions: Sessions, after: int = 0, limit: int = 100) -> list[tuple[ApiKey, str]]:
    """Keys with their clients' names as they were made, revoked ones too; those after an id."""
    rows = select(ApiKey, Client.name).join(Client, Client.id == ApiKey.client_id)
    page = rows.where(ApiKey.id > after).order_by(ApiKey.id).limit(limit)
    with sessions.begin() as session:
        return [(key, client) for key, client in session.execute(page)]


def revoke_key(sessions: Sessions, key_id: int, actor: str) -> ApiKey:
    """The key opens nothing from now on; raises UnknownEntry."""
    with sessions.begin() as session:
        wanted = select(ApiKey).where(ApiKey.id == key_id).with_for_update()
        key = session.scalar(wanted) if 0 < key_id < 2**31 else None
        if key is None:
            raise UnknownEntry(f"No API key has the id {key_id}: `key list` shows them all.")
        if key.revoked_at is None:
            key.revoked_at = datetime.now(UTC)
            details = {"key": key.id, "name": key.name, "prefix": key.prefix}
            ledger.append(session, [Entry(Event.KEY_REVOKED, actor, details=details)])
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def _shown(secret: str) -> str:
    """Enough of a key to find it by, and not enough to use it."""
    return f"{secret[:12]!r}…" if secret.startswith(START) else "that was sent"
