"""Admin pages for user accounts and API keys."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Self
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel

from filter_service import accounts
from filter_service.accounts import Ability, Profile, Role, passwords
from filter_service.accounts.callers import Caller
from filter_service.db.tables import Person
from filter_service.errors import Conflict, FilterServiceError, InvalidRequest, UnknownEntry
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter()

Here = Annotated[Service, Depends(service)]
Admin = Annotated[Caller, Depends(able(Ability.PEOPLE))]
Text = Annotated[str, Form()]

ROLES = {  # those of people, and what they are for
    Role.MODERATOR: "reviews and decides",
    Role.SENIOR: "decides escalated cases, edits rules and lists",
    Role.POLICY_EDITOR: "edits rules and lists, retries",
    Role.AUDITOR: "reads everything but what is restricted, changes nothing",
    Role.CUSTODIAN: "keeps what is restricted, and sees nothing else",
    Role.ADMIN: "does everything but open what is restricted",
}
PAGE = 50


@dataclass(frozen=True, slots=True)
class OneTimeSecret:
    """A password or key that is shown once, and whose it is."""

    name: str
    secret: str


class AccountForm(BaseModel):
    """The fields of somebody's form, as they were typed."""

    name: str = ""
    role: str = ""
    classes: str = ""
    reveal_cap: str = ""
    subject: str = ""
    after: str = ""  # where the page began

    @classmethod
    def of(cls, person: Person) -> Self:
        """As if somebody had typed what is so."""
        return cls(
            name=person.name,
            role=person.role,
            classes=", ".join(person.classes or ()),
            reveal_cap="" if person.reveal_cap is None else str(person.reveal_cap),
            subject=person.subject or "",
        )

    @property
    def profile(self) -> Profile:
        """Raises InvalidRequest."""
        if self.role not in list(ROLES):
            raise InvalidRequest(f"{self.role!r} is no role: choose one of {', '.join(ROLES)}.")
        cap = self.reveal_cap.strip()
        if cap and not re.fullmatch("[0-9]{1,9}", cap):
            raise InvalidRequest(f"The daily cap {cap!r} must be a count from 0, or empty.")
        return Profile(
            Role(self.role),
            self.name.strip(),
            tuple(name.strip() for name in self.classes.split(",") if name.strip()) or None,
            int(cap) if cap else None,
            self.subject.strip() or None,
        )


class NewAccountForm(AccountForm):
    """The form for somebody new."""

    login: str = ""
    vouched: bool = False  # signs in at the identity provider only


@router.get("/people")
def show_people(
    request: Request, here: Here, who: Admin, after: str = "", changed: str = ""
) -> Response:
    return _people(request, here, after=after, changed=changed)


@router.post("/people")
def add(
    request: Request, here: Here, who: Admin, form: Annotated[NewAccountForm, Form()]
) -> Response:
    """Somebody new; their password is made here and shown once, unless a provider vouches."""
    password = None if form.vouched else passwords.generate()
    login = form.login.strip().lower()

    def act() -> None:
        accounts.add_person(here.sessions, login, form.profile, password, who.actor)

    shown = OneTimeSecret(login, password) if password else None
    return _people(request, here, act, changed=login, shown=shown, added=form)


@router.post("/people/{login}")
def change(
    request: Request, here: Here, who: Admin, login: str, form: Annotated[AccountForm, Form()]
) -> Response:
    def act() -> None:
        accounts.change_person(here.sessions, login, form.profile, who.actor)

    return _people(request, here, act, after=form.after, changed=login)


@router.post("/people/{login}/password")
def reset_password(
    request: Request, here: Here, who: Admin, login: str, after: Text = ""
) -> Response:
    """Another password, made here and shown once."""
    password = passwords.generate()

    def act() -> None:
        accounts.set_password(here.sessions, login, password, who.actor)

    return _people(
        request, here, act, after=after, changed=login, shown=OneTimeSecret(login, password)
    )


@router.post("/people/{login}/disable")
def disable(request: Request, here: Here, who: Admin, login: str, after: Text = "") -> Response:
    def act() -> None:
        accounts.disable_person(here.sessions, login, who.actor)

    return _people(request, here, act, after=after, changed=login)


@router.post("/people/{login}/enable")
def enable(request: Request, here: Here, who: Admin, login: str, after: Text = "") -> Response:
    def act() -> None:
        accounts.enable_person(here.sessions, login, who.actor)

    return _people(request, here, act, after=after, changed=login)


@router.get("/keys")
def show_keys(request: Request, here: Here, who: Admin, after: int = 0) -> Response:
    return _keys(request, here, after=after)


@router.post("/keys")
def add_key(
    request: Request,
    here: Here,
    who: Admin,
    name: Text = "",
    client: Text = "",
    all_clients: Annotated[bool, Form()] = False,
) -> Response:
    """A new key, shown once."""
    try:
        secret = accounts.add_key(
            here.sessions, name, who.actor, client.strip() or None, all_clients=all_clients
        )
        shown = OneTimeSecret(name.strip(), secret)
    except (InvalidRequest, Conflict, UnknownEntry) as error:
        return _keys(request, here, error=error)
    return _keys(request, here, shown=shown)


@router.post("/keys/{key_id}/revoke")
def revoke_key(here: Here, who: Admin, key_id: int, after: Annotated[int, Form()] = 0) -> Response:
    accounts.revoke_key(here.sessions, key_id, who.actor)
    return RedirectResponse(f"/keys?after={after}", 303)


def _people(
    request: Request,
    here: Service,
    act: Callable[[], None] | None = None,
    *,
    after: str = "",
    changed: str = "",
    shown: OneTimeSecret | None = None,
    added: NewAccountForm | None = None,
) -> Response:
    """Everybody, after something was done; what is shown once is not behind a redirect."""
    error: FilterServiceError | None = None
    if act is not None:
        try:
            act()
        except (InvalidRequest, Conflict) as refused:
            error = refused
        else:
            if shown is None:
                query = urlencode({"after": after, "changed": changed})
                return RedirectResponse(f"/people?{query}", 303)
    found = accounts.everybody(here.sessions, after, PAGE + 1)
    return render(
        request,
        "people.html",
        status=_status(error),
        problem=str(error) if error else None,
        everybody=found[:PAGE],
        after=after,
        next=found[PAGE - 1].login if len(found) > PAGE else None,
        changed=changed,
        shown=None if error else shown,
        added=added if added and error else NewAccountForm(role=Role.MODERATOR),
        typed=AccountForm.of,
        roles=ROLES,
        classes=accounts.known_classes(here.sessions),
        cap=here.settings.reveal_cap,
        provider=here.settings.oidc_issuer,
    )


def _keys(
    request: Request,
    here: Service,
    *,
    after: int = 0,
    shown: OneTimeSecret | None = None,
    error: FilterServiceError | None = None,
) -> Response:
    found = accounts.keys(here.sessions, after, PAGE + 1)
    return render(
        request,
        "keys.html",
        status=_status(error),
        problem=str(error) if error else None,
        keys=found[:PAGE],
        after=after,
        next=found[PAGE - 1][0].id if len(found) > PAGE else None,
        shown=shown,
    )


def _status(error: FilterServiceError | None) -> int:
    if error is None:
        return 200
    return 409 if isinstance(error, Conflict) else 422
