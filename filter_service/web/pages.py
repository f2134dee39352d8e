"""Rendering: Jinja templates with strict names, and what every page knows."""

from functools import cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


@cache
def templates() -> Environment:
    """The environment of every page; what is written into a page is escaped."""
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(request: Request, template: str, status: int = 200, **context: object) -> HTMLResponse:
    """A page; templates know `request` and `caller` (None on the log-in page) besides these."""
    known = {"request": request, "caller": getattr(request.state, "caller", None)}
    page = templates().get_template(template).render(known | context)
    return HTMLResponse(page, status_code=status)
