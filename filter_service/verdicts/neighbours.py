"""Nearest neighbours of a vector: stored images, and wordings of the phrase bank."""

from dataclasses import dataclass

from filter_service.scoring import FloatArray


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An image that a memory holds."""

    digest: str
    vector: FloatArray  # (d,) unit
    margin: float  # as stored
    exact: bool  # the vector is float32
    decision: str | None = None  # what a moderator said


@dataclass(frozen=True, slots=True)
class Phrase:
    """A wording of the phrase bank."""

    text: str
    vector: FloatArray  # (d,) unit
