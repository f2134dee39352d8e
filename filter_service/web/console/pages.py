"""Rendering: Jinja templates with strict names, and what every page knows."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from filter_service import accounts
from filter_service.accounts import ABILITIES, Ability
from filter_service.web.http.access import Caller
from filter_service.web.http.service import Service

HERE = Path(__file__).parent

NAVIGATION = (  # what the head of every page links to, for those who may
    ("Queue", "/queue", Ability.READ),
    ("Search", "/search", Ability.SEARCH),
    ("Overview", "/overview", Ability.READ),
    ("Undetermined", "/undetermined", Ability.READ),
    ("Lists", "/lists", Ability.RULES),
    ("Policies", "/policies", Ability.READ),
    ("Audit", "/audit", Ability.AUDIT),
    ("Figures", "/figures", Ability.EXPORT),
    ("Exports", "/exports", Ability.EXPORT),
    ("Retention", "/retention", Ability.RETAIN),
    ("Sealed", "/sealed", Ability.CUSTODY),
    ("People", "/people", Ability.PEOPLE),
    ("Keys", "/keys", Ability.PEOPLE),
    ("Webhooks", "/webhooks", Ability.WEBHOOKS),
)


STAGES = {  # what the stages of a review are called
    "first": "first look",
    "second": "second look",
    "senior": "for a senior",
    "appeal": "appeal",
}


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
    """The environment of every page; what is written into a page is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": ago,
        "clock": clock,
        "coded": coded,
        "number": number,
        "percent": percent,
        "signed": signed,
    }
    environment.globals["STAGES"] = STAGES
    return environment


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


def ago(at: datetime) -> str:
    """How long ago something was, in its two largest units at most."""
    return span((datetime.now(UTC) - at).total_seconds())


def span(seconds: float) -> str:
    """A length of time in words short enough for a table."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} days"


def clock(at: datetime) -> str:
    """A moment as people read it, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def coded(text: str) -> Markup:
    """A docstring's text, in which `backticks` stand around code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def signed(value: float, digits: int = 1) -> str:
    """With its sign, never "-0.0"."""
    rounded = round(value, digits) or 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−")


def number(value: float, digits: int = 1) -> str:
    return f"{round(value, digits) or 0.0:.{digits}f}".replace("-", "−")


def percent(share: float) -> str:
    """A probability, with as many digits as tell it from certainty."""
    for digits in (0, 1, 2, 3):
        rounded = round(100 * share, digits)
        if 1 <= rounded <= 99 or (0 < rounded < 100 and digits):
            return f"{rounded:.{digits}f} %"
    return "over 99.999 %" if share > 0.5 else "under 0.001 %"
