"""Log-in pages: by password or identity provider, log-out, and changing one's password."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import astuple
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from filter_service import accounts
from filter_service.accounts.callers import Caller
from filter_service.accounts.identity_provider import IdentityProvider, LoginAttempt
from filter_service.errors import FilterServiceError, InvalidRequest, NotSignedIn, TooManyTries
from filter_service.web.http.access import (
    address_of,
    caller,
    check_origin,
    clear_session,
    cookie_name,
    is_secure,
    keep_session,
    token_of,
)
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter()

Here = Annotated[Service, Depends(service)]
Text = Annotated[str, Form()]

AWAY = 600  # seconds that somebody may stay at the provider


@router.get("/login")
def ask(request: Request, here: Here, next: str = "/") -> Response:
    """The log-in page; whoever is signed in goes on."""
    if accounts.person_of(here.sessions, token_of(request, here.settings)) is not None:
        return RedirectResponse(local(next), 303)
    return _page(request, here, next)


@router.post("/login")
def sign_in(
    request: Request,
    here: Here,
    login: Text = "",
    password: Text = "",
    next: Text = "/",
) -> Response:
    check_origin(request, here.settings)
    hours = here.settings.login_hours
    try:
        token = accounts.authenticate(here.sessions, login, password, address_of(request), hours)
    except (NotSignedIn, TooManyTries) as error:
        return _page(request, here, next, error, login)
    answer = RedirectResponse(local(next), 303)
    keep_session(answer, here.settings, token)
    return answer


@router.post("/logout")
def sign_out(request: Request, here: Here, who: Annotated[Caller, Depends(caller)]) -> Response:
    accounts.sign_out(here.sessions, token_of(request, here.settings))
    answer = RedirectResponse("/login", 303)
    clear_session(answer, here.settings)
    return answer


@router.get("/login/provider")
def leave(request: Request, here: Here, next: str = "/") -> Response:
    """To the identity provider."""
    attempt = LoginAttempt.new()
    address = _provider(here).leave(_back_to(request, here), attempt)
    answer = RedirectResponse(address, 303)
    kept = json.dumps([*astuple(attempt), local(next)]).encode()
    _keep_attempt(answer, here, urlsafe_b64encode(kept).decode(), AWAY)
    return answer


@router.get("/login/callback")
def arrive(request: Request, here: Here) -> Response:
    """From the identity provider, with a code that it exchanges for who this is."""
    provider = _provider(here)
    back_to = _back_to(request, here)
    try:
        attempt, then = _attempt(request, here)
        found = provider.arrive(request.query_params, back_to, attempt)
    except NotSignedIn as error:
        return _page(request, here, "/", error)
    token = accounts.sign_in_as(
        here.sessions, found.subject, found.email, address_of(request), here.settings.login_hours
    )
    answer = RedirectResponse(then, 303)
    keep_session(answer, here.settings, token)
    _keep_attempt(answer, here, "", 0)
    return answer


@router.get("/password")
def ask_password(request: Request, who: Annotated[Caller, Depends(caller)]) -> Response:
    """For one's own password."""
    return render(request, "password.html", problem=None)


@router.post("/password")
def change_password(
    request: Request,
    here: Here,
    who: Annotated[Caller, Depends(caller)],
    password: Text = "",
    new: Text = "",
    again: Text = "",
) -> Response:
    """Another password for oneself; other browsers are signed out."""
    if who.person is None:
        raise InvalidRequest("An API key has no password: add another key instead.")
    login, address = who.person.login, address_of(request)
    try:
        if new != again:
            raise InvalidRequest("The new password was not typed twice in the same way.")
        accounts.authenticate(here.sessions, login, password, address)
        accounts.set_password(here.sessions, login, new, who.actor)
    except (NotSignedIn, TooManyTries, InvalidRequest) as error:
        return render(request, "password.html", status=_status(error), problem=str(error))
    token = accounts.authenticate(here.sessions, login, new, address, here.settings.login_hours)
    answer = RedirectResponse("/", 303)
    keep_session(answer, here.settings, token)
    return answer


def local(address: str) -> str:
    """An address of this service to go on to; anything that may lead elsewhere is the start.

    Browsers take a backslash for a slash and leave out tabs and line ends.
    """
    leads_away = address.startswith("//") or "\\" in address
    odd = any(letter <= " " or letter == "\x7f" for letter in address)
    return address if address.startswith("/") and not leads_away and not odd else "/"


def _page(
    request: Request,
    here: Service,
    then: str,
    error: FilterServiceError | None = None,
    login: str = "",
) -> Response:
    return render(
        request,
        "login.html",
        status=_status(error),
        problem=str(error) if error else None,
        login=login,
        next=local(then),
        provider=f"/login/provider?{urlencode({'next': local(then)})}"
        if IdentityProvider.of(here.settings)
        else None,
    )


def _status(error: FilterServiceError | None) -> int:
    if error is None:
        return 200
    if isinstance(error, TooManyTries):
        return 429
    return 422 if isinstance(error, InvalidRequest) else 401


def _provider(here: Service) -> IdentityProvider:
    found = IdentityProvider.of(here.settings)
    if found is None:
        raise InvalidRequest(
            "No identity provider is set (FILTER_SERVICE_OIDC_ISSUER): sign in with a password."
        )
    return found


def _back_to(request: Request, here: Service) -> str:
    """Where the provider sends people back to; it knows this address."""
    base = here.settings.public_url or str(request.base_url)
    return f"{base.rstrip('/')}/login/callback"


def _keep_attempt(answer: Response, here: Service, value: str, seconds: int) -> None:
    answer.set_cookie(
        _attempt_name(here),
        value,
        max_age=seconds,
        httponly=True,
        samesite="lax",  # it must come along when the provider sends the browser back
        secure=is_secure(here.settings),
    )


def _attempt(request: Request, here: Service) -> tuple[LoginAttempt, str]:
    kept = request.cookies.get(_attempt_name(here), "")
    try:
        state, nonce, verifier, then = map(str, json.loads(urlsafe_b64decode(kept)))
    except (TypeError, ValueError) as error:
        raise NotSignedIn(
            "This log-in took too long or was begun elsewhere: begin again."
        ) from error
    return LoginAttempt(state, nonce, verifier), local(then)


def _attempt_name(here: Service) -> str:
    return f"{cookie_name(here.settings)}_attempt"
