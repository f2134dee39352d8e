"""The web process: every room's routes, put together."""

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from filter_service import __version__
from filter_service.web import (
    appealing,
    documentation,
    erasing,
    explaining,
    exporting,
    finding,
    hooks,
    intake,
    problems,
    shield,
    watching,
)
from filter_service.web.console import (
    custody,
    exports,
    figures,
    item,
    login,
    overview,
    people,
    pictures,
    policies,
    queue,
    records,
    retention,
    rules,
    search,
    statements,
)
from filter_service.web.console import hooks as webhooks
from filter_service.web.pages import HERE
from filter_service.web.service import Service

INTERFACE = (intake, explaining, finding, hooks, appealing, erasing)
CONSOLE = (
    login,
    queue,
    item,
    pictures,
    search,
    overview,
    rules,
    people,
    webhooks,
    records,
    retention,
    statements,
    policies,
    exports,
    exporting,
    figures,
    custody,
)


def create_app(service: Service) -> FastAPI:
    """The pages and the interface over one service."""
    app = FastAPI(
        title="filter_service",
        version=__version__,
        docs_url=None,  # its page loads scripts from elsewhere; `/docs` is ours
        redoc_url=None,
    )
    app.state.service = service
    problems.add_to(app)
    documentation.add_to(app)
    watching.add_to(app)
    shield.add_to(app)  # last, and so outside of the others
    for room in INTERFACE:
        app.include_router(room.router)
    for page in CONSOLE:
        app.include_router(page.router, include_in_schema=False)
    for room in (watching, documentation):
        app.include_router(room.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    return app
