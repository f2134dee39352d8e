"""How far the fast pass may lead from the exact one, measured on probe images for each cause.

A JPEG much larger than the encoder's input is decoded at half its size (`glance`), and the first
look may be in a lower precision. An image's slack is the sum of the bands of what applies to it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from filter_service.encoder.probes import probes
from filter_service.images import Image, Limits, decode
from filter_service.scoring import FloatArray, PolicyVectors

# Times the root mean square of the probes' deviations, which is steadier than their largest. The
# largest among 20,000 pictures of other kinds is given by `python -m benchmarks.bands`.
SAFETY = 12.0
STANDARD = Limits()


class Screener(Protocol):
    """What is measured: an encoder."""

    input_size: int

    @property
    def screening_is_exact(self) -> bool: ...

    def pixels(self, frame: PIL.Image.Image) -> Tensor: ...
    def encode(self, pixels: Tensor) -> FloatArray: ...
    def screen(self, pixels: Tensor) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class Probed:
    """The probe images' vectors: (probes, d) unit each."""

    exact: FloatArray  # of full decoding, in float32
    drafted: FloatArray  # of decoding at half the size, in float32
    screened: FloatArray  # of full decoding, in the screening precision

    def bands(
        self, vectors: PolicyVectors
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Of drafting and of the screening precision, in logits: (classes,) each."""
        exact = vectors.margins(self.exact)  # (probes, classes)
        drafting = vectors.margins(self.drafted) - exact
        precision = vectors.margins(self.screened) - exact
        return SAFETY * _size(drafting), SAFETY * _size(precision)


def glance(data: bytes, input_size: int, limits: Limits = STANDARD) -> Image:
    """Decode an image for the first look of an encoder of this input size; raises ImageError.

    A JPEG eight times as large as the input is decoded at half its size. Not smaller ones, and
    never at 1/4 or 1/8: that saves little more (5.2, 3.5 and 2.7 ms at 1/2, 1/4 and 1/8 where in
    full takes 11) but moves margins up to six times as far.
    """
    return decode(data, limits, at_least=2 * input_size, reduction=2)


def probe(encoder: Screener) -> Probed:
    """Take every probe image both ways."""
    files = list(probes(encoder.input_size))
    full = torch.stack([encoder.pixels(decode(f).frames[0].picture) for f in files])
    half = [encoder.pixels(glance(f, encoder.input_size).frames[0].picture) for f in files]
    exact = encoder.encode(full)
    screened = exact if encoder.screening_is_exact else encoder.screen(full)
    return Probed(exact, encoder.encode(torch.stack(half)), screened)


def _size(deviations: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Root mean square: (probes, classes) -> (classes,)."""
    return np.asarray(np.sqrt((deviations**2).mean(axis=0)))
