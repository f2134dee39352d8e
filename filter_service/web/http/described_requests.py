"""Refuses parameters and body fields that the OpenAPI description does not name."""

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from filter_service.accounts.callers import Caller
from filter_service.policy.spelling import unknown
from filter_service.policy.strict import each_once
from filter_service.web.http.access import caller

TWICE = "stands there more than once; give it once"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
Fault = dict[str, Any]  # as pydantic writes them


async def only_described(request: Request, by: Annotated[Caller, Depends(caller)]) -> None:
    """The dependency of every operation of `/v1`; raises RequestValidationError.

    It comes after whoever asks is known, so that strangers are told that they are strangers.
    """
    path, method = request.scope["route"].path_format, request.method.lower()
    operation = request.app.openapi()["paths"][path][method]
    faults = list(query_faults(request, query_names(operation)))
    taken = operation.get("requestBody", {"content": {}})["content"]
    if not taken:
        faults += await _body_faults(request)
    elif list(taken) == ["application/json"]:
        _refuse_twice(await request.body())
    if faults:
        raise RequestValidationError(faults)


def query_names(operation: dict[str, Any]) -> list[str]:
    """The query parameters that a described operation takes."""
    return [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]


def query_faults(request: Request, known: list[str]) -> Iterator[Fault]:
    """Parameters that nobody knows, and those given twice, of which one would go unread."""
    for name in request.query_params:
        if name not in known:
            yield fault("query", name, unknown(name, known, "parameter"))
        elif len(request.query_params.getlist(name)) > 1:
            yield fault("query", name, TWICE)


def fault(*place_and_message: str) -> Fault:
    """What is wrong at a place of a request, the message last."""
    *place, message = place_and_message
    return {"loc": tuple(place), "msg": message, "type": "value_error"}


def only(*names: str) -> Callable[[Request], None]:
    """A dependency for what is not in the description: no parameters but these."""

    def known(request: Request) -> None:
        if faults := list(query_faults(request, list(names))):
            raise RequestValidationError(faults)

    return known


async def _body_faults(request: Request) -> list[Fault]:
    """Of an operation that takes no body: nothing is what one may send, or no field."""
    if request.headers.get("content-type", "").startswith(FORMS):
        names = [name for name in await request.form() if name != "csrf_token"]
    else:
        names = _fields(await request.body())
    return [fault("body", name, unknown(name, [])) for name in names]


def _fields(body: bytes) -> list[str]:
    """The fields of a JSON object; raises RequestValidationError for another body."""
    try:
        document = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        document = body
    if not isinstance(document, dict | None):
        raise RequestValidationError([fault("body", "is not taken here: send none")])
    return list(document or {})


def _refuse_twice(body: bytes) -> None:
    """A body that is no JSON is left to whoever reads it."""
    try:
        json.loads(body, object_pairs_hook=each_once)
    except json.JSONDecodeError:
        return
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is not JSON ({error}): mend it.") from error
