"""The API's documentation: `/openapi.json` for programs, `/docs` for people."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from filter_service.web.http.access import cookie_name
from filter_service.web.http.pages import render
from filter_service.web.http.problems import TITLES, Problem
from filter_service.web.http.service import Service

router = APIRouter()

METHODS = ("get", "post", "put", "patch", "delete")
INTRODUCTION = """\
Images are submitted in batches and judged under a policy; each becomes an item with a verdict:
`clear`, `flagged` or `undetermined`, never a silent clear. Errors are problem details (RFC 9457).
Lists are read page by page: give a page's `next` as `after`. Send an API key as a bearer token.
"""
EXPLAINED = {  # what to do about each kind of problem
    400: "The body is cut short, or is not what its type says.",
    401: "Send an API key as a bearer token, or sign in.",
    403: "The key's or the person's role, classes or daily cap forbid it.",
    404: "The id, name or address is unknown here.",
    405: "The address is right, the method is not.",
    409: "Another request is at the same thing, or was quicker: look again, then decide.",
    410: "It was deleted, as a rule of retention or a request said; it does not come back.",
    413: "Send less at once; the detail names the limit.",
    415: "Send one of the content types that are listed with the request.",
    422: "`errors` lists each fault with its place.",
    429: "Wait; the detail says how long.",
    500: "A fault of ours, in the service's log.",
    503: "Database, image store or model do not answer: try again.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked, as its page shows it."""

    method: str
    path: str
    summary: str
    description: str
    parameters: list[dict[str, Any]]
    bodies: dict[str, Any]  # by content type
    responses: dict[str, Any]


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """The description as a page; a small script of our own sends what somebody tries."""
    description = request.app.openapi()
    schemas = description["components"]["schemas"]

    def example(body: dict[str, Any]) -> object:
        """Of a body: its own, or its schema's; None: there is none."""
        schema = body["schema"]
        named = schemas.get(schema.get("$ref", "").rpartition("/")[2], {})
        shown = (one for one in (body, schema, named) for one in _examples(one))
        return next(shown, None)

    return render(
        request,
        "documentation.html",
        description=description,
        operations=list(_operations(description)),
        schemas=schemas,
        example=example,
        problems=[(status, TITLES[status], EXPLAINED[status]) for status in sorted(TITLES)],
    )


def _examples(told: dict[str, Any]) -> list[Any]:
    return [told["example"]] if "example" in told else list(told.get("examples", ()))


def add_to(app: FastAPI) -> None:
    """Let the app describe itself as it is."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with our problems and ways of signing in."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        description=INTRODUCTION,
        routes=app.routes,
        webhooks=app.webhooks.routes,
    )
    here: Service = app.state.service
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    template = "#/components/schemas/{model}"
    problem = Problem.model_json_schema(ref_template=template)
    schemas |= problem.pop("$defs", {}) | {"Problem": problem}
    for told in (o for path in found.get("webhooks", {}).values() for o in path.values()):
        told["responses"].pop("422", None)  # FastAPI's own; nobody tells us what was wrong
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemes = components.setdefault("securitySchemes", {})
    schemes["Session"] = {
        "type": "apiKey",
        "in": "cookie",
        "name": cookie_name(here.settings),
        "description": "A browser's session; what changes something also needs X-CSRF-Token.",
    }
    for name in [n for n in schemes if n != "Session"]:
        for operation in (o for path in found["paths"].values() for o in path.values()):
            if {name: []} in operation.get("security", []):
                operation["security"].append({"Session": []})
    return found


def _operations(description: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in description["paths"].items():
        for method in (m for m in METHODS if m in methods):
            told = methods[method]
            yield Operation(
                method=method.upper(),
                path=path,
                summary=told.get("summary", ""),
                description=told.get("description", ""),
                parameters=told.get("parameters", []),
                bodies=told.get("requestBody", {}).get("content", {}),
                responses=told.get("responses", {}),
            )
