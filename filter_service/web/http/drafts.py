"""Forms of the console: what was typed, what came of it, and the answer after it was taken."""

import math
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi.responses import RedirectResponse, Response

from filter_service.db.keyset import LARGEST_ID
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.web.http.problems import status_of


@dataclass(frozen=True, slots=True)
class PendingForm:
    """A form that was sent and refused, or has a consequence that somebody should know first."""

    error: FilterServiceError | None = None
    warning: str | None = None

    @property
    def said(self) -> str:
        return str(self.error) if self.error else self.warning or ""

    @property
    def status(self) -> int:
        return status_of(self.error) if self.error else 200


NOTHING = PendingForm()  # it was not sent yet


def taken(address: str, said: str) -> Response:
    """Go to a page that says what was done: reloading it does nothing again."""
    return RedirectResponse(f"{address}?{urlencode({'done': said})}", status_code=303)


def whole_number(name: str, typed: str) -> int:
    """Raises InvalidRequest."""
    digits = typed.strip()
    if not digits.isascii() or not digits.isdecimal() or not 0 <= int(digits[:20]) <= LARGEST_ID:
        raise _no_number(name, typed)
    return int(digits)


def number(name: str, typed: str) -> float:
    """With a point or a comma; raises InvalidRequest."""
    try:
        value = float(typed.replace(",", "."))
    except ValueError as error:
        raise _no_number(name, typed) from error
    if not math.isfinite(value) or not 0 <= value <= LARGEST_ID:
        raise _no_number(name, typed)
    return value


def _no_number(name: str, typed: str) -> InvalidRequest:
    return InvalidRequest(f"{name}={typed[:40]!r} is no number: write digits only.")
