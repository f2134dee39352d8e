"""What the pages and the interface work with, made once for each web process."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from filter_service.db.session import Sessions
from filter_service.query_encoder import QueryEncoder
from filter_service.settings import Settings
from filter_service.storage import Storage


@dataclass(frozen=True)
class Service:
    """Database, images, workers and a seeker."""

    settings: Settings
    sessions: Sessions
    storage: Storage
    notify_workers: Callable[[], object]
    seeker: QueryEncoder


def service(request: Request) -> Service:
    """The dependency of every page: `Annotated[Service, Depends(service)]`."""
    found: Service = request.app.state.service
    return found
