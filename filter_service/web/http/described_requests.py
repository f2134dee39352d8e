"""Refuses parameters and body fields that the OpenAPI description does not name."""

import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from filter_service.accounts.callers import Caller
from filter_service.policy.spelling import unknown
from filter_service.policy.strict import each_once
from filter_service.web.http.access import caller

TWICE = "stands there more than once; give it once"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
Fault = dict[str, Any]  # as pydantic writes them


class StrictRequest(Request):
    """A request whose JSON is parsed once; that something stands in it twice is remembered."""

    async def json(self) -> Any:  # noqa: ANN401  (whatever was sent)
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body(), object_pairs_hook=self._object)
        return self._json

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        try:
            return each_once(pairs)
        except ValueError as error:
            self.state.twice = error
            return dict(pairs)


class StrictRoute(APIRoute):
    """A route of `/v1`: its requests are strict, and `only_described` says what is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


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
    elif twice := getattr(request.state, "twice", None):
        raise HTTPException(400, f"The body is not JSON ({twice}): mend it.")
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
