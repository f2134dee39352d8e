"""Who is asking: a person with a session cookie, or a platform with an API key."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from filter_service.db.tables import Person
from filter_service.people import Ability, Role


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request."""

    actor: str  # how the ledger calls them: "person LOGIN" or "key NAME"
    role: Role
    person: Person | None  # None: an API key


def caller(request: Request) -> Caller:
    """The dependency of everything that needs somebody; raises NotSignedIn.

    A request that changes something and comes with a cookie must also bring the session's CSRF
    token, as a form field `csrf_token` or a header `X-CSRF-Token`; raises NotAllowed without it.
    """
    raise NotImplementedError


def able(ability: Ability) -> Callable[..., Caller]:
    """A dependency that gives the caller if its role has this ability; raises NotAllowed."""
    raise NotImplementedError
