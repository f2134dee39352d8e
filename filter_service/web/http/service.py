"""What all web routes work with: settings, database, image store and query encoder."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from filter_service.db.query_encoder import QueryEncoder
from filter_service.db.session import Sessions
from filter_service.settings import Settings
from filter_service.storage import Storage


@dataclass(frozen=True)
class Service:
    """Settings, database, image store, notification of workers, and query encoder."""

    settings: Settings
    sessions: Sessions
    storage: Storage
    notify_workers: Callable[[], object]
    seeker: QueryEncoder


def service(request: Request) -> Service:
    """The dependency of every page: `Annotated[Service, Depends(service)]`."""
    found: Service = request.app.state.service
    return found
