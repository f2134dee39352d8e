"""Browser sessions: opened by password or identity provider, ended by log-out or expiry."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.accounts import login_throttle, passwords, users
from filter_service.db.session import Sessions
from filter_service.db.tables import Login, Person
from filter_service.errors import NotAllowed, NotSignedIn
from filter_service.ledger import Entry, Event


def authenticate(
    sessions: Sessions, login: str, password: str, address: str, hours: float = 12.0
) -> str:
    """A new session's token for somebody who knows the password.

    Raises NotSignedIn, which does not tell what was wrong, and TooManyTries.
    """
    login = login.strip().lower().replace("\0", "")[:200]
    login_throttle.count(sessions, login, address)
    with sessions.begin() as session:
        person = session.scalar(select(Person).where(Person.login == login, _WORKS_HERE))
    right, renewed = passwords.verify(password, person.password_hash if person else None)
    if person is None or not right:
        raise NotSignedIn("This log-in name and password do not belong together: try again.")
    with sessions.begin() as session:
        login_throttle.forgive(session, login, address)
        # Asked again: somebody may have been disabled, or got another password, in the meantime.
        person = session.scalar(
            select(Person)
            .where(Person.id == person.id, Person.password_hash == person.password_hash)
            .where(_WORKS_HERE)
            .with_for_update()
        )
        if person is None:
            raise NotSignedIn("This account was changed just now: try again.")
        if renewed is not None:
            person.password_hash = renewed
        return open_session(session, person, address, "password", hours)


def sign_in_as(
    sessions: Sessions, subject: str, email: str | None, address: str, hours: float = 12.0
) -> str:
    """A new session's token for somebody whom the identity provider vouches for.

    Only people whom an admin added come in: by their subject or, the first time, by a log-in name
    that is their verified e-mail address. Raises NotAllowed for everybody else.
    """
    with sessions.begin() as session:
        people = select(Person).where(_WORKS_HERE).with_for_update()
        person = session.scalar(people.where(Person.subject == subject))
        if person is None and email is not None:
            known = people.where(Person.login == email.lower(), Person.subject.is_(None))
            person = session.scalar(known)
            if person is not None:
                users.link_subject(session, person, subject)
        if person is None:
            who = f"{email or 'Your account'} (subject {subject!r})"
            raise NotAllowed(f"{who} is not known here: ask an admin to add you.")
        return open_session(session, person, address, "identity provider", hours)


def person_of(sessions: Sessions, token: str) -> Person | None:
    """Whose open session this is; None if it ended or never was."""
    if not token:
        return None
    row = (
        select(Person)
        .join(Login, Login.person_id == Person.id)
        .where(Login.digest == _digest(token), Login.expires_at > func.now(), _WORKS_HERE)
    )
    with sessions.begin() as session:
        return session.scalar(row)


def sign_out(sessions: Sessions, token: str) -> None:
    with sessions.begin() as session:
        session.execute(delete(Login).where(Login.digest == _digest(token)))


_WORKS_HERE = Person.disabled_at.is_(None)


def open_session(session: Session, person: Person, address: str, by: str, hours: float) -> str:
    token = secrets.token_urlsafe(32)
    session.execute(delete(Login).where(Login.expires_at < func.now()))
    until = datetime.now(UTC) + timedelta(hours=hours)
    session.add(Login(digest=_digest(token), person_id=person.id, expires_at=until))
    details = {"address": address, "by": by}
    ledger.append(session, [Entry(Event.SIGNED_IN, f"person {person.login}", details=details)])
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
