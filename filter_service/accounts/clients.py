"""Adds, finds and lists clients: the owners of API keys, batches and webhooks."""

import re
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import Client
from filter_service.errors import Conflict, InvalidRequest, UnknownEntry
from filter_service.ledger import Entry, Event
from filter_service.rendering.plain_names import plain

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


def add_client(sessions: Sessions, name: str, actor: str) -> Client:
    """Raises InvalidRequest for an odd name, Conflict for one that is taken."""
    with sessions.begin() as session:
        added = _add(session, _checked(name), actor)
    if added is None:
        raise Conflict(f"There is a client called {name.strip()!r} already: choose another name.")
    return added


def client_named(sessions: Sessions, name: str) -> Client:
    """Raises UnknownEntry."""
    with sessions.begin() as session:
        return named(session, name)


def client_names(sessions: Sessions, chosen: str | None = None, limit: int = 200) -> list[str]:
    """The clients that a list can be narrowed to; none where there is only one."""
    with sessions.begin() as session:
        names = session.scalars(select(Client.name).order_by(Client.name).limit(limit)).all()
    return list(names) if len(names) > 1 or chosen else []


def named_by_id(sessions: Sessions, ids: Iterable[int]) -> dict[int, str]:
    """What some are called."""
    with sessions.begin() as session:
        rows = session.execute(select(Client.id, Client.name).where(Client.id.in_(set(ids))))
        return {client: name for client, name in rows}


def clients(sessions: Sessions, after: int = 0, limit: int = 100) -> list[Client]:
    """In the order in which they were made; those after an id."""
    rows = select(Client).where(Client.id > after).order_by(Client.id).limit(limit)
    with sessions.begin() as session:
        return list(session.scalars(rows))


def of_key(session: Session, key: str, client: str | None, actor: str) -> Client:
    """Whose a new key is: the named client's, or else that one's which is called like the key.

    The second is made where there is none: whoever forgets to say whose a key is shares nothing.
    """
    if client is not None:
        return named(session, client)
    return _add(session, key, actor) or named(session, key)


def _add(session: Session, name: str, actor: str) -> Client | None:
    """None: there is one of this name."""
    new = upsert(Client).values(name=name, created_by=actor).on_conflict_do_nothing()
    added: Client | None = session.scalar(new.returning(Client))
    if added is not None:
        told = {"client": added.id, "name": name}
        ledger.append(session, [Entry(Event.CLIENT_ADDED, actor, details=told)])
    return added


def named(session: Session, name: str) -> Client:
    """Raises UnknownEntry."""
    found = session.scalar(select(Client).where(Client.name == plain(name.strip())))
    if found is None:
        raise UnknownEntry(
            f"There is no client {name!r}: `client list` shows them all, `client add` makes one."
        )
    return found


def _checked(name: str) -> str:
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"The client's name {name!r} must be one line of 1 to 100 letters.")
    return plain(name)
