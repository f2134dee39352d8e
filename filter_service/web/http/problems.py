"""Error responses: problem details (RFC 9457) for programs, a page for people."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from filter_service.errors import (
    AnotherEncoder,
    BrokenLedger,
    Conflict,
    ContentGone,
    FilterServiceError,
    ImageError,
    ImageTooLarge,
    InvalidPolicy,
    InvalidRequest,
    InvalidStatement,
    NotAllowed,
    NotExplainable,
    NotSignedIn,
    TooManyTries,
    Transient,
    UnknownBatch,
    UnknownEntry,
    UnknownItem,
    UnknownPerson,
    UnknownPolicy,
    UnsafeAddress,
    for_clients,
)
from filter_service.web.http.pages import render
from filter_service.web.http.security_headers import HEADERS

MEDIA_TYPE = "application/problem+json"
PROGRAMS = ("/v1/", "/metrics", "/live", "/ready", "/openapi.json")  # ask for no pages
SOON = "2"  # seconds after which what passes by itself may have passed
INTERNAL = "The service failed, and its log says how: try again, or tell who runs it."

STATUS: dict[type[FilterServiceError], int] = {
    UnknownPolicy: 404,
    UnknownItem: 404,
    UnknownBatch: 404,
    UnknownPerson: 404,
    UnknownEntry: 404,
    NotExplainable: 404,
    InvalidRequest: 422,
    InvalidPolicy: 422,
    InvalidStatement: 422,
    UnsafeAddress: 422,
    ImageError: 422,
    ImageTooLarge: 413,
    Conflict: 409,
    ContentGone: 410,
    AnotherEncoder: 409,
    BrokenLedger: 409,
    NotSignedIn: 401,
    NotAllowed: 403,
    TooManyTries: 429,
    Transient: 503,
}

TITLES = {  # what each status means here; `/docs` explains them under these names
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Service unavailable",
}


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="Where, as in `#/body/uris/0`.")
    detail: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="Names the kind of problem, and leads to its description.")
    title: str = Field(description="The kind of problem in a few words.")
    status: int
    detail: str = Field(description="What was given, what was expected, and what to do.")
    errors: list[Fault] | None = Field(None, description="Each fault of an invalid request.")


def add_to(app: FastAPI) -> None:
    """Let every error of ours leave as a problem."""
    app.add_exception_handler(FilterServiceError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(NoConnection, _busy)
    app.add_exception_handler(DataError, _unstorable)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's description says of the problems that it may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {s: {"description": TITLES[s], "content": content} for s in sorted(statuses)}


def status_of(error: FilterServiceError) -> int:
    """That of the nearest class in the tree of errors."""
    known = (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    return next(known, 500)


def wants_page(request: Request) -> bool:
    """A browser shows the answer to somebody."""
    if request.url.path.startswith(PROGRAMS):
        return False
    return "text/html" in request.headers.get("accept", "")


def problem(
    request: Request,
    status: int,
    detail: str,
    errors: Sequence[Fault] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The same problem for a program or for a person."""
    title = TITLES.get(status, HTTPStatus(status).phrase)
    if wants_page(request):
        page: Response = render(request, "error.html", status, title=title, detail=detail)
        page.headers.update(headers or {})
        return page
    kind = f"/docs#problem-{status}" if status in TITLES else "about:blank"
    body = Problem(
        type=kind, title=title, status=status, detail=detail, errors=list(errors or []) or None
    )
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, FilterServiceError)
    status = status_of(error)
    if isinstance(error, NotSignedIn) and wants_page(request):
        return _to_login(request)
    if error.public is not None or status == 500:
        logging.getLogger(__name__).error("%s: %s", type(error).__name__, error)
    headers = {
        401: {"WWW-Authenticate": 'Bearer realm="filter_service"'},
        409: {"Retry-After": SOON},
        503: {"Retry-After": SOON},
    }
    detail = " ".join([for_clients(error), *getattr(error, "__notes__", ())])
    return problem(request, status, detail, headers=headers.get(status))


def _to_login(request: Request) -> Response:
    """The log-in page, which leads back: a form's own address would lead to nothing."""
    address = request.url.path
    if request.method != "GET":
        return RedirectResponse("/login", 303)
    if request.url.query:
        address = f"{address}?{request.url.query}"
    return RedirectResponse(f"/login?next={quote(address, safe='')}", 303)


def _http(request: Request, error: Exception) -> Response:
    """Of the framework: no such address, no such method, or a body that cannot be read."""
    assert isinstance(error, HTTPException)
    said = {
        404: f"There is nothing at {request.url.path}; /docs lists what there is.",
        405: f"{request.url.path} does not take {request.method}; /docs says what it takes.",
    }
    plain = error.detail == HTTPStatus(error.status_code).phrase
    detail = said.get(error.status_code, error.detail) if plain else error.detail
    return problem(request, error.status_code, detail, headers=error.headers)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return invalid(request, error.errors())


def invalid(request: Request, errors: Sequence[Any]) -> Response:
    """What pydantic found wrong."""
    faults = [Fault(pointer=_pointer(e["loc"]), detail=e["msg"]) for e in errors]
    detail = "; ".join(f"{f.pointer}: {f.detail}" for f in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return problem(request, 422, f"{detail}{more}. Mend it and send it again.", faults)


def _pointer(location: Sequence[str | int]) -> str:
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "#/" + "/".join(escaped)


def _busy(request: Request, error: Exception) -> Response:
    detail = "All connections to the database are in use: try again in a moment."
    return problem(request, 503, detail, headers={"Retry-After": SOON})


def _unstorable(request: Request, error: Exception) -> Response:
    """The database took no such number or text, which a check before it should have said."""
    logging.getLogger(__name__).warning("%s", error)
    return problem(request, 422, "A value is out of the range that can be kept; send another.")


def _gone(request: Request, error: Exception) -> Response:
    return problem(request, 400, "The connection ended before the request was complete.")


def _broken(request: Request, error: Exception) -> Response:
    """The framework answers these outside of everything else, so the shield is put up here."""
    return problem(request, 500, INTERNAL, headers=HEADERS | {"Cache-Control": "no-store"})
