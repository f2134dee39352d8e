"""Encodes search queries and policies with the served model, which is loaded on demand."""

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from filter_service.db.embeddings import register_encoder
from filter_service.db.screening_checks import widening_of
from filter_service.db.session import Sessions
from filter_service.errors import ModelUnavailable, Permanent
from filter_service.images import Limits, decode
from filter_service.images.views import Box, windows
from filter_service.policy import Policy
from filter_service.settings import Settings

if TYPE_CHECKING:
    from filter_service.encoder import Encoder
    from filter_service.scoring import FloatArray, PolicyVectors


@dataclass(frozen=True, slots=True)
class QueryVector:
    """What somebody looks for, in the space of one stored encoder."""

    encoder_id: int
    vector: "FloatArray"  # (d,) unit
    scale: float  # of the encoder's logits


@dataclass(frozen=True, slots=True)
class WordedPolicy:
    """A policy's texts in the space of one stored encoder, with what cuts them into tokens."""

    encoder_id: int
    vectors: "PolicyVectors"  # without bands, whose measuring takes seconds
    tokenizer: Any


class QueryEncoder(Protocol):
    """Turns a text or an image into a vector; the first call may take seconds."""

    def text(self, text: str) -> QueryVector:
        """Raises Transient when no encoder can be had just now."""

    def image(self, data: bytes) -> QueryVector:
        """Raises ImageError for what is no image, Transient as above."""

    def policy(self, policy: Policy) -> "tuple[int, PolicyVectors]":
        """The stored encoder's id, and a policy in its space; raises Transient as above."""

    def words(self, policy: Policy) -> WordedPolicy:
        """The texts alone; raises AnotherEncoder for another's calibration, Transient as above."""


def load(settings: Settings) -> "Encoder":
    """The encoder that the settings name."""
    from filter_service.encoder import encoder_of  # torch: only where a model is asked

    return encoder_of(settings)


def vector_of(encoder: "Encoder", data: bytes, limits: Limits) -> "FloatArray":
    """The vector of an image's first frame, in one look: (d,) unit; raises ImageError."""
    picture = decode(data, limits).frames[0].picture
    boxes = windows(*picture.size, encoder.preprocessing)
    box = boxes[0] if len(boxes) == 1 else Box(0, 0, *picture.size)
    vector: FloatArray = encoder.encode(encoder.pixels(picture, box)[None])[0]
    return vector


class LazyQueryEncoder:
    """The encoder behind the search (a `QueryEncoder`), loaded by whoever searches first.

    One at a time loads and asks it: a second copy would cost as much memory again, and each pass
    takes all cores.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._settings = settings
        self._sessions = sessions
        self._limits = Limits.of(settings)
        self._turn = threading.Lock()
        self._known: tuple[Encoder, int] | None = None

    def text(self, text: str) -> QueryVector:
        """Raises Transient when no encoder can be had just now."""
        with self._turn:
            encoder, encoder_id = self._loaded()
            return QueryVector(
                encoder_id, encoder.encode_texts([text])[0], encoder.logit_scale.factor
            )

    def image(self, data: bytes) -> QueryVector:
        """Raises ImageError for what is no image, Transient as above."""
        with self._turn:
            encoder, encoder_id = self._loaded()
            vector = vector_of(encoder, data, self._limits)
            return QueryVector(encoder_id, vector, encoder.logit_scale.factor)

    def policy(self, policy: Policy) -> "tuple[int, PolicyVectors]":
        """Every prompt of a policy, encoded once; raises Transient as above."""
        with self._turn:
            encoder, encoder_id = self._loaded()
            with self._sessions.begin() as session:
                encoder.check.widen(widening_of(session, encoder_id))
            return encoder_id, replace(encoder.vectors(policy), bands=encoder.band(policy))

    def words(self, policy: Policy) -> WordedPolicy:
        """The texts alone; raises AnotherEncoder for another's calibration, Transient as above."""
        with self._turn:
            encoder, encoder_id = self._loaded()
            return WordedPolicy(encoder_id, encoder.vectors(policy), encoder.tokenizer)

    def identity(self) -> tuple[int, str]:
        """The stored encoder's id and its fingerprint; raises as `text` does."""
        with self._turn:
            encoder, encoder_id = self._loaded()
            return encoder_id, encoder.fingerprint

    def _loaded(self) -> "tuple[Encoder, int]":
        if self._known is None:
            try:
                encoder = load(self._settings)
            except Permanent as error:  # the operator can mend it, who searches cannot
                raise ModelUnavailable(f"No model can be asked: {error}") from error
            with self._sessions.begin() as session:
                encoder_id = register_encoder(
                    session, encoder.fingerprint, encoder.name, encoder.dim, encoder.details
                )
            self._known = encoder, encoder_id
        return self._known
