"""Measures on probe images how far screening may deviate from float32: the error band.

Both see the same pixels: JPEGs are decoded in full. At half their size it is twice as fast, but
fine print turns into other patterns there: the bundled model's margins moved by up to 2.7 logits,
where 0.1 to 0.2 are usual. No band that holds this is worth having.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from filter_service.encoder.probes import probes
from filter_service.images import decode
from filter_service.scoring import FloatArray, PolicyVectors

# Times the root mean square of the probes' deviations, which is steadier than their largest. Of
# 12,000 pictures of other kinds (`python -m benchmarks.bands`), the furthest margin needed 27.5:
# moiré of fine rings. Of 80,000 margins of 20,000 fresh pictures the furthest needed 21. A band is
# no bound, hence the running check.
SAFETY = 36.0


class Screener(Protocol):
    """What an encoder has to offer so that its band can be measured."""

    input_size: int

    @property
    def screening_is_exact(self) -> bool: ...

    def pixels(self, frame: PIL.Image.Image) -> Tensor: ...
    def encode(self, pixels: Tensor) -> FloatArray: ...
    def screen(self, pixels: Tensor) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class ProbeVectors:
    """The probe images' vectors: (probes, d) unit each."""

    exact: FloatArray  # in float32
    screened: FloatArray  # in the screening precision

    def band(self, vectors: PolicyVectors) -> npt.NDArray[np.float64]:
        """In logits: (classes,)."""
        deviations = vectors.margins(self.screened) - vectors.margins(self.exact)  # (p, classes)
        return SAFETY * _size(deviations)


def probe(encoder: Screener) -> ProbeVectors:
    """Take every probe image both ways."""
    pictures = [decode(f).frames[0].picture for f in probes(encoder.input_size)]
    pixels = torch.stack([encoder.pixels(p) for p in pictures])  # (probes, 3, h, w)
    exact = encoder.encode(pixels)
    return ProbeVectors(exact, exact if encoder.screening_is_exact else encoder.screen(pixels))


def _size(deviations: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Root mean square: (probes, classes) -> (classes,)."""
    return np.asarray(np.sqrt((deviations**2).mean(axis=0)))
