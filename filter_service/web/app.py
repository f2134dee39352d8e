"""Creates the web app: the API, the console's pages, metrics and middleware."""

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from filter_service.settings import VERSION
from filter_service.web.api import documentation, webhook_messages
from filter_service.web.api.routes import RESOURCES
from filter_service.web.console.routes import PAGES
from filter_service.web.http import metrics, problems, security_headers
from filter_service.web.http.pages import HERE
from filter_service.web.http.service import Service


def create_app(service: Service) -> FastAPI:
    """The pages and the interface over one service."""
    app = FastAPI(
        title="filter_service",
        version=VERSION,
        docs_url=None,  # its page loads scripts from elsewhere; `/docs` is ours
        redoc_url=None,
    )
    app.state.service = service
    problems.add_to(app)
    documentation.add_to(app)
    webhook_messages.describe(app.webhooks)
    metrics.add_to(app)
    security_headers.add_to(app)  # last, and so outside of the others
    for resource in RESOURCES:
        app.include_router(resource.router)
    for page in (*PAGES, metrics, documentation):
        app.include_router(page.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    return app
