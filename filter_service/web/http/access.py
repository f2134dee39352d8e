"""Authenticates requests, by session cookie or API key, and checks abilities and CSRF."""

import hmac
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from filter_service import accounts
from filter_service.accounts import ABILITIES, Ability, Role
from filter_service.accounts.callers import Caller
from filter_service.db.scope import Scope
from filter_service.errors import NotAllowed, NotSignedIn
from filter_service.settings import Settings
from filter_service.web.http.service import Service, service

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_bearer = HTTPBearer(
    auto_error=False, scheme_name="API key", description="A key that starts with `fsk_`."
)


async def _csrf_sent(request: Request) -> str:
    """The CSRF token that came with a request that needs one."""
    if request.method in SAFE or "authorization" in request.headers:
        return ""
    if (header := request.headers.get("x-csrf-token")) is not None:
        return header
    if not request.headers.get("content-type", "").startswith(_FORMS):
        return ""
    field = (await request.form()).get("csrf_token")
    return field if isinstance(field, str) else ""


def caller(
    request: Request,
    here: Annotated[Service, Depends(service)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    csrf: Annotated[str, Depends(_csrf_sent)],
) -> Caller:
    """The dependency of everything that needs somebody; raises NotSignedIn.

    A request that changes something and comes with a cookie must also bring the session's CSRF
    token, as a form field `csrf_token` or a header `X-CSRF-Token`; raises NotAllowed without it.
    """
    if bearer is not None:
        key = accounts.key_of(here.sessions, bearer.credentials)
        scope = Scope(key.client_id, key.all_clients)
        rights = frozenset({Ability.POLICIES} if key.policies else ())
        found = Caller(f"key {key.name}", Role.SERVICE, None, scope, rights)
    else:
        token = token_of(request, here.settings)
        person = accounts.person_of(here.sessions, token)
        if person is None:
            raise NotSignedIn("Nobody is signed in: sign in, or send an API key as a bearer token.")
        request.state.csrf_token = csrf_token(token)
        if request.method not in SAFE and not _equal(csrf, request.state.csrf_token):
            raise NotAllowed(
                "The form's CSRF token is missing or of another session: reload the page and "
                "send it again."
            )
        found = Caller(f"person {person.login}", Role(person.role), person)
    request.state.caller = found
    return found


def able(ability: Ability) -> Callable[..., Caller]:
    """A dependency that gives the caller if its role has this ability; raises NotAllowed."""

    def allowed(found: Annotated[Caller, Depends(caller)]) -> Caller:
        if ability not in ABILITIES[found.role]:
            raise NotAllowed(
                f"{found.actor} has the role {found.role.value!r}, which may not "
                f"{_DOING[ability]}: an admin can give another role."
            )
        return found

    return allowed


def able_any(*abilities: Ability) -> Callable[..., Caller]:
    """The same for a role that has one of several abilities."""

    def allowed(found: Annotated[Caller, Depends(caller)]) -> Caller:
        if not set(abilities) & ABILITIES[found.role]:
            raise NotAllowed(
                f"{found.actor} has the role {found.role.value!r}, which may neither "
                f"{' nor '.join(_DOING[a] for a in abilities)}: an admin can give another role."
            )
        return found

    return allowed


_DOING = {
    Ability.SUBMIT: "submit batches",
    Ability.READ: "read items",
    Ability.SEARCH: "search",
    Ability.REVEAL: "see images unblurred",
    Ability.REVIEW: "decide about items",
    Ability.REVIEW_SENIOR: "decide escalated cases",
    Ability.APPEAL: "open appeals",
    Ability.REPORT: "report pictures",
    Ability.RULES: "change rules and lists",
    Ability.RETRY: "retry items",
    Ability.PEOPLE: "manage people and keys",
    Ability.WEBHOOKS: "manage webhooks",
    Ability.AUDIT: "read the ledger and everybody's reviews",
    Ability.EXPORT: "export",
    Ability.POLICIES: "activate policies",
    Ability.RETAIN: "erase, hold or change how long things are kept",
    Ability.CUSTODY: "see what is locked away",
}


def csrf_token(token: str) -> str:
    """What forms of a session carry; whoever sees it learns nothing about the session's token."""
    return hmac.digest(token.encode(errors="surrogateescape"), b"csrf", "sha256").hex()


def is_secure(settings: Settings) -> bool:
    return (settings.public_url or "").lower().startswith("https://")


def cookie_name(settings: Settings) -> str:
    """Browsers take a name with this prefix from this very host and over TLS only."""
    return "__Host-filter_service" if is_secure(settings) else "filter_service"


def token_of(request: Request, settings: Settings) -> str:
    """The session that the browser brings; empty if none."""
    return request.cookies.get(cookie_name(settings), "")


def keep_session(answer: Response, settings: Settings, token: str) -> None:
    answer.set_cookie(
        cookie_name(settings),
        token,
        max_age=int(settings.login_hours * 3600),
        httponly=True,
        samesite="lax",
        secure=is_secure(settings),
    )


def clear_session(answer: Response, settings: Settings) -> None:
    answer.delete_cookie(
        cookie_name(settings), httponly=True, samesite="lax", secure=is_secure(settings)
    )


def address_of(request: Request) -> str:
    """Where the request comes from, as the server sees it or a trusted proxy says."""
    return request.client.host if request.client else "unknown"


def check_origin(request: Request, settings: Settings) -> None:
    """Another site's page may not sign somebody in; raises NotAllowed.

    There is no session yet whose token the form could carry, but browsers say where a form
    comes from. Programs that say nothing carry no one else's cookies either.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    elif origin is not None:
        hosts = {request.headers.get("host"), urlsplit(settings.public_url or "").netloc or None}
        ours = urlsplit(origin).netloc in hosts - {None}
    else:
        ours = True
    if not ours:
        raise NotAllowed(
            f"The log-in form was sent from {origin or 'another site'!r}: open this "
            "service's own log-in page."
        )


def _equal(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode(errors="replace"), expected.encode())
