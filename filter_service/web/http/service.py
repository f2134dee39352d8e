"""What the pages and the interface work with, made once for each web process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request

from filter_service.db.session import Sessions
from filter_service.policy import Policy
from filter_service.scoring import FloatArray, PolicyVectors
from filter_service.settings import Settings
from filter_service.storage import Storage


@dataclass(frozen=True, slots=True)
class Sought:
    """What somebody looks for, in the space of one stored encoder."""

    encoder_id: int
    vector: FloatArray  # (d,) unit
    scale: float  # of the encoder's head


class Seeker(Protocol):
    """Turns a text or an image into a vector; the first call may take seconds."""

    def text(self, text: str) -> Sought:
        """Raises Transient when no encoder can be had just now."""

    def image(self, data: bytes) -> Sought:
        """Raises ImageError for what is no image, Transient as above."""

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        """The stored encoder's id, and a policy in its space; raises Transient as above."""


@dataclass(frozen=True)
class Service:
    """Database, images, workers and a seeker."""

    settings: Settings
    sessions: Sessions
    storage: Storage
    knock: Callable[[], object]
    seeker: Seeker


def service(request: Request) -> Service:
    """The dependency of every page: `Annotated[Service, Depends(service)]`."""
    found: Service = request.app.state.service
    return found
