"""What a class learnt from reviews, as a policy keeps it: a direction that is added to its prompts.

It is part of the document that the digest names, so that nothing about it changes unseen.
"""

import base64
import binascii
import math
from datetime import date
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from filter_service.canonical import canonical, text_digest
from filter_service.policy.strict import Sha256, Strict, Text

Floats = npt.NDArray[np.float32]

LONGEST = 10_000.0  # logits per unit: the steepest direction that a head may have
MOST_DIMENSIONS = 8_192


def packed(vector: npt.NDArray[np.floating]) -> str:
    """A vector, (d,), as a policy keeps it: base64 of little-endian float32."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def unpacked(text: str) -> Floats:
    """The vector, (d,), of what `packed` wrote; ValueError for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a direction is base64 of float32 numbers ({error})") from error
    if not data or len(data) % 4 or len(data) > 4 * MOST_DIMENSIONS:
        raise ValueError(
            f"a direction is base64 of 1 to {MOST_DIMENSIONS} float32 numbers, and this has "
            f"{len(data)} bytes"
        )
    return np.frombuffer(data, "<f4").astype(np.float32)


def _direction(text: str) -> str:
    vector = unpacked(text).astype(np.float64)
    length = float(np.sqrt((vector**2).sum()))
    if not math.isfinite(length):
        raise ValueError("a direction holds finite numbers only: this one has another")
    if length > LONGEST:
        raise ValueError(
            f"a direction changes a margin by {LONGEST:g} logits at most, and this one by "
            f"{length:.4g}: it was not made by head fit"
        )
    return text


class HeadGain(Strict):
    """What a head gained over what stood before, on images that it was not fitted on."""

    value: float = Field(description="Average precision more, on folds that were left out.")
    low: float = Field(description="From there on it lies with 95 % confidence.")
    high: float = Field(description="Up to there.")


class HeadPhrase(Strict):
    """A phrase that carries a part of what a head learnt."""

    text: Text
    share: float = Field(
        ge=-1, le=1, description="Of what was learnt; below 0: it speaks against the class."
    )


class HeadWords(Strict):
    """What a head learnt, as far as words can say it."""

    prompts: float = Field(
        ge=0, le=1, description="Share of the whole direction that the class's prompts account for."
    )
    phrases: tuple[HeadPhrase, ...] = Field((), description="That carry the rest, of the bank.")
    unsaid: float = Field(ge=0, le=1, description="Share of what was learnt that no phrase carries")


class LearntHead(Strict):
    """A direction that reviews taught: its product with an image's vector joins the margin."""

    encoder: Sha256 = Field(description="Fingerprint of the encoder whose vectors it is for.")
    wording: Sha256 = Field(description="Digest of the prompts whose margin it is added to.")
    direction: Annotated[str, AfterValidator(_direction)] = Field(
        description="Logits per unit of each dimension: base64 of little-endian float32."
    )
    offset: float = Field(ge=-LONGEST, le=LONGEST, description="Added as well, logits.")
    strength: float = Field(gt=0, description="How far weights may lie from the prompts', logits.")
    labels: int = Field(ge=1, description="That it learnt from.")
    positives: int = Field(ge=1, description="Of these, those that show the class.")
    until: date = Field(description="The day of the newest of them.")
    gain: HeadGain = Field(description="Of average precision, paired.")
    words: HeadWords = Field(description="What it learnt, in words.")

    @cached_property
    def weights(self) -> Floats:
        """The direction: (d,)."""
        return unpacked(self.direction)

    @property
    def digest(self) -> str:
        """SHA-256 over what moves margins, hex: a calibration is bound to it."""
        return text_digest(canonical([self.encoder, self.direction, self.offset]))

    @property
    def lines(self) -> tuple[str, ...]:
        """For people: on how much it rests, what it gained, and what it learnt."""
        g, w = self.gain, self.words
        carried = [f"{p.share:+.0%} {p.text}" for p in w.phrases]
        return (
            f"{self.labels} labels until {self.until:%d %b %Y}, {self.positives} of which show it",
            f"average precision {g.value:+.3f} ({g.low:+.3f} to {g.high:+.3f}, 95 % confidence)",
            f"the prompts account for {w.prompts:.0%} of its direction",
            f"what it learnt: {', '.join([*carried, f'{w.unsaid:.0%} that no phrase carries'])}",
            f"direction {self.digest[:12]} for encoder {self.encoder[:12]}",
        )
