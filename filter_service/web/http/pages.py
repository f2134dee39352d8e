"""Renders the console's pages: templates, navigation, and what all pages share."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from filter_service import accounts
from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.audit.record.record_file import TEMPLATES as RECORD_TEMPLATES
from filter_service.rendering.templates import environment
from filter_service.web.http.service import Service

HERE = Path(__file__).parents[1]  # of the web: templates and static files

NAVIGATION = (  # what the head of every page links to, for those who may
    ("Queue", "/queue", Ability.READ),
    ("Search", "/search", Ability.SEARCH),
    ("Overview", "/overview", Ability.READ),
    ("Accuracy", "/accuracy", Ability.READ),
    ("Undetermined", "/undetermined", Ability.READ),
    ("Lists", "/lists", Ability.RULES),
    ("Policies", "/policies", Ability.READ),
    ("Audit", "/audit", Ability.AUDIT),
    ("Figures", "/figures", Ability.EXPORT),
    ("Exports", "/exports", Ability.EXPORT),
    ("Retention", "/retention", Ability.RETAIN),
    ("Restricted", "/sealed", Ability.CUSTODY),
    ("People", "/people", Ability.PEOPLE),
    ("Keys", "/keys", Ability.PEOPLE),
    ("Webhooks", "/webhooks", Ability.WEBHOOKS),
)


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the navigation."""

    name: str
    address: str
    here: bool


@dataclass(frozen=True, slots=True)
class Exposure:
    """How many images somebody saw unblurred today."""

    by_class: dict[str, int]
    cap: int | None

    @property
    def count(self) -> int:
        return sum(self.by_class.values())


@cache
def templates() -> Environment:
    """The environment of every page, in which records of items are drawn, too."""
    return environment(HERE / "templates", RECORD_TEMPLATES)


@cache
def style() -> str:
    """The sheet of every page."""
    return (HERE / "static" / "style.css").read_text(encoding="utf-8")


def render(request: Request, template: str, status: int = 200, **context: object) -> HTMLResponse:
    """A page; templates know `request` and `caller` (None on the log-in page) besides these."""
    caller: Caller | None = getattr(request.state, "caller", None)
    known = {
        "request": request,
        "caller": caller,
        "csrf_token": getattr(request.state, "csrf_token", ""),
        "navigation": _navigation(request.url.path, caller),
        "exposure": lambda: _exposure(request, caller),  # asked for by whole pages only
    }
    page = templates().get_template(template).render(known | context)
    return HTMLResponse(page, status_code=status)


def _navigation(path: str, caller: Caller | None) -> list[Link]:
    if caller is None:
        return []
    may = ABILITIES[caller.role]
    return [Link(n, to, path.startswith(to)) for n, to, ability in NAVIGATION if ability in may]


def _exposure(request: Request, caller: Caller | None) -> Exposure | None:
    """None for those who see nothing unblurred."""
    if caller is None or caller.person is None or Ability.REVEAL not in ABILITIES[caller.role]:
        return None
    service: Service = request.app.state.service
    cap = caller.person.reveal_cap
    return Exposure(
        accounts.revealed_today(service.sessions, caller.person),
        service.settings.reveal_cap if cap is None else cap,
    )
