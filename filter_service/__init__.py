"""Batch content-filtering moderation of images, with explanations that have been tested.

from filter_service import decode, load_encoder, moderate, read_policy

outcomes = moderate([decode(data)], read_policy(path), load_encoder("bundled"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filter_service.encoder import Encoder as Encoder
    from filter_service.encoder import load_encoder as load_encoder
    from filter_service.errors import FilterServiceError as FilterServiceError
    from filter_service.images import Image as Image
    from filter_service.images import Limits as Limits
    from filter_service.images import decode as decode
    from filter_service.pipeline import moderate as moderate
    from filter_service.policy import Policy as Policy
    from filter_service.policy import read_policy as read_policy
    from filter_service.verdicts import Outcome as Outcome
    from filter_service.verdicts import Score as Score
    from filter_service.verdicts import Verdict as Verdict

    __version__: str

_ROOMS = {
    "Encoder": "encoder",
    "load_encoder": "encoder",
    "FilterServiceError": "errors",
    "Image": "images",
    "Limits": "images",
    "decode": "images",
    "moderate": "pipeline",
    "Policy": "policy",
    "read_policy": "policy",
    "Outcome": "verdicts",
    "Score": "verdicts",
    "Verdict": "verdicts",
}

__all__ = [
    "Encoder",
    "FilterServiceError",
    "Image",
    "Limits",
    "Outcome",
    "Policy",
    "Score",
    "Verdict",
    "decode",
    "load_encoder",
    "moderate",
    "read_policy",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (a module's attributes are of every type)
    """Import a room when it is first asked for, so that `filter_service` alone loads no torch."""
    if name == "__version__":
        return import_module(f"{__name__}.settings").VERSION
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
