"""Loads the search's model in the background, once for each web process."""

import threading
from dataclasses import dataclass, field

from fastapi import Request

from filter_service.db.query_encoder import QueryEncoder
from filter_service.errors import FilterServiceError, ModelUnavailable
from filter_service.web.http.service import Service


@dataclass
class Warm:
    """Loads the model for the search in the background, so that nobody waits blindly."""

    seeker: QueryEncoder
    _done: threading.Event = field(default_factory=threading.Event)
    _problem: FilterServiceError | None = None

    def __post_init__(self) -> None:
        threading.Thread(target=self._load, daemon=True).start()

    def ready(self, seconds: float) -> bool:
        """Whether it is there within this time; raises what made it fail."""
        if self._done.wait(seconds) and self._problem is not None:
            raise self._problem
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        return self._problem is not None

    def _load(self) -> None:
        try:
            self.seeker.text("a picture")
        except FilterServiceError as error:
            self._problem = error
        except Exception as error:  # it would be lost in this thread
            self._problem = ModelUnavailable(
                f"The model for the search cannot be loaded ({type(error).__name__}: {error}): "
                "try again, or tell who runs this service."
            )
        self._done.set()


def warming(request: Request, here: Service) -> Warm:
    """One for each web process; one that failed is tried again."""
    state = request.app.state
    warm: Warm | None = getattr(state, "warm", None)
    if warm is None or warm.failed or warm.seeker is not here.seeker:
        warm = state.warm = Warm(here.seeker)
    return warm
