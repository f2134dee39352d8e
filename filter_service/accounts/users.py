"""User accounts: adding, changing, disabling and listing them."""

import re
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.accounts import passwords
from filter_service.accounts.roles import ABILITIES, Ability, Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Login, Person, PolicyClass
from filter_service.errors import Conflict, InvalidRequest, UnknownPerson
from filter_service.ledger import Entry, Event
from filter_service.rendering.plain_names import plain

_LOGIN = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,199}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_CAP = range(2**31)


@dataclass(frozen=True, slots=True)
class Profile:
    """The attributes of an account that an admin sets."""

    role: Role
    name: str = ""
    classes: tuple[str, ...] | None = None  # that this person may see; None: all
    reveal_cap: int | None = None  # unblurred images a day; None: as the settings say
    subject: str | None = None  # at the identity provider

    def checked(self) -> "Profile":
        """Itself, with a name in which nothing hides; raises InvalidRequest."""
        if self.role is Role.SERVICE:
            raise InvalidRequest("The role 'service' is for API keys, not people: choose another.")
        for what, text in (("name", self.name or None), ("subject", self.subject)):
            if text is not None and not _TEXT.fullmatch(text):
                raise InvalidRequest(f"The {what} {text!r} must be one line of 1 to 200 letters.")
        if self.classes == ():
            raise InvalidRequest("No class is left to see: name some, or leave it open for all.")
        for name in self.classes or ():
            if not _TEXT.fullmatch(name):
                raise InvalidRequest(f"{name!r} cannot be a class: give names as policies do.")
        if self.reveal_cap is not None and self.reveal_cap not in _CAP:
            raise InvalidRequest(f"The daily cap {self.reveal_cap} must be a count from 0.")
        return replace(self, name=plain(self.name))

    @property
    def columns(self) -> dict[str, Any]:
        return {
            "role": self.role.value,
            "name": self.name,
            "classes": None if self.classes is None else list(self.classes),
            "reveal_cap": self.reveal_cap,
            "subject": self.subject,
        }

    @classmethod
    def of(cls, person: Person) -> "Profile":
        classes = None if person.classes is None else tuple(person.classes)
        return cls(Role(person.role), person.name, classes, person.reveal_cap, person.subject)


def add_person(
    sessions: Sessions, login: str, profile: Profile, password: str | None, actor: str
) -> Person:
    """Somebody new; without a password only an identity provider can let them in.

    Raises InvalidRequest for a weak password or a wrong profile, Conflict if the name is taken.
    """
    login = login.strip().lower()
    if not _LOGIN.fullmatch(login):
        raise InvalidRequest(
            f"The log-in name {login!r} must start with a letter or digit and have at most 200 "
            "letters, digits and . _ @ + - in all."
        )
    profile = profile.checked()
    hashed = None if password is None else passwords.new(password, login)
    person = Person(login=login, password_hash=hashed, **profile.columns)
    try:
        with sessions.begin() as session:
            session.add(person)
            session.flush()
            session.refresh(person)
            ledger.append(
                session, [Entry(Event.PERSON_ADDED, actor, details=_person_details(person))]
            )
    except IntegrityError as error:
        raise _taken(login, profile) from error
    return person


def change_person(sessions: Sessions, login: str, profile: Profile, actor: str) -> Person:
    """Replace what is said of somebody; Conflict if nobody would be left as admin."""
    profile = profile.checked()
    try:
        with sessions.begin() as session:
            person = _locked(session, login)
            if profile.role is not Role.ADMIN:
                _keep_an_admin(session, person)
            before = Profile.of(person)
            for column, value in profile.columns.items():
                setattr(person, column, value)
            if before != profile:
                _record_change(session, person, actor, _person_details(person))
    except IntegrityError as error:
        raise _taken(login, profile) from error
    return person


def disable_person(sessions: Sessions, login: str, actor: str) -> None:
    """Let somebody in no more, and end the sessions that are open."""
    with sessions.begin() as session:
        person = _locked(session, login)
        _keep_an_admin(session, person)
        if person.disabled_at is None:
            person.disabled_at = session.scalar(select(func.now()))
            _record_change(session, person, actor, {"login": person.login, "disabled": True})
        _end_sessions(session, person)


def enable_person(sessions: Sessions, login: str, actor: str) -> None:
    """Let somebody in again."""
    with sessions.begin() as session:
        person = _locked(session, login)
        if person.disabled_at is not None:
            person.disabled_at = None
            _record_change(session, person, actor, {"login": person.login, "disabled": False})


def set_password(sessions: Sessions, login: str, password: str, actor: str) -> None:
    """Another password; whoever is signed in under this name has to sign in again."""
    found = person_named(sessions, login)
    hashed = passwords.new(password, found.login)
    with sessions.begin() as session:
        person = _locked(session, login)
        person.password_hash = hashed
        _record_change(session, person, actor, {"login": person.login, "password": "changed"})
        _end_sessions(session, person)


def link_subject(session: Session, person: Person, subject: str) -> None:
    """Remember who this is at the identity provider."""
    replace(Profile.of(person), subject=subject).checked()
    person.subject = subject
    _record_change(session, person, "service", _person_details(person))


def person_named(sessions: Sessions, login: str) -> Person:
    """Raises UnknownPerson."""
    with sessions.begin() as session:
        found = session.scalar(select(Person).where(Person.login == login.strip().lower()))
    if found is None:
        raise _unknown(login)
    return found


def everybody(sessions: Sessions, after: str = "", limit: int = 100) -> list[Person]:
    """People by log-in name, those after a name."""
    rows = select(Person).where(Person.login > after).order_by(Person.login).limit(limit)
    with sessions.begin() as session:
        return list(session.scalars(rows))


def colleagues(sessions: Sessions, person: Person, limit: int = 200) -> list[str]:
    """Whom somebody can hand a case to."""
    reviewers = [role.value for role, may in ABILITIES.items() if Ability.REVIEW in may]
    query = select(Person.login).where(
        Person.disabled_at.is_(None), Person.id != person.id, Person.role.in_(reviewers)
    )
    with sessions.begin() as session:
        return list(session.scalars(query.order_by(Person.login).limit(limit)))


def known_classes(sessions: Sessions) -> list[str]:
    """The classes of all stored policies, of which a person may see all or some."""
    with sessions.begin() as session:
        return list(session.scalars(select(PolicyClass.name).distinct().order_by(PolicyClass.name)))


def _locked(session: Session, login: str) -> Person:
    # Admins are locked first and all of them, so that two cannot take each other's role at once.
    session.execute(select(Person.id).where(_ADMINS).order_by(Person.id).with_for_update())
    wanted = select(Person).where(Person.login == login.strip().lower())
    found = session.scalar(wanted.with_for_update())
    if found is None:
        raise _unknown(login)
    return found


_ADMINS = (Person.role == Role.ADMIN.value) & Person.disabled_at.is_(None)


def _keep_an_admin(session: Session, person: Person) -> None:
    admins = set(session.scalars(select(Person.id).where(_ADMINS)))
    if admins == {person.id}:
        raise Conflict(
            f"{person.login!r} is the last admin: make somebody else an admin before that."
        )


def _end_sessions(session: Session, person: Person) -> None:
    session.execute(delete(Login).where(Login.person_id == person.id))


def _record_change(session: Session, person: Person, actor: str, details: dict[str, Any]) -> None:
    ledger.append(session, [Entry(Event.PERSON_CHANGED, actor, details=details)])


def _person_details(person: Person) -> dict[str, Any]:
    return {"login": person.login, **Profile.of(person).columns}


def _taken(login: str, profile: Profile) -> Conflict:
    if profile.subject is None:
        return Conflict(f"Somebody is called {login!r} already: choose another log-in name.")
    return Conflict(
        f"Somebody has the log-in name {login!r} or the subject {profile.subject!r} already: "
        "each can belong to one person only."
    )


def _unknown(login: str) -> UnknownPerson:
    return UnknownPerson(f"Nobody has the log-in name {login!r}: `user list` shows everybody.")
