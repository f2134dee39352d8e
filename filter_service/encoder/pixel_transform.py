"""Makes a model's input of a picture: open_clip's own steps, the last of them as one look-up."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from open_clip.transform import Compose, Normalize, ToTensor
from torch import Tensor

LEVELS = 256  # of a channel


class PixelTransform:
    """What an image transform of open_clip does, to the bit, in less time.

    Once a picture has its size, each of its values goes through scaling and normalisation by
    itself: the result for each of the 256 levels of each channel is looked up.
    """

    def __init__(self, transform: Callable[[PIL.Image.Image], Tensor]) -> None:
        assert isinstance(transform, Compose), "open_clip composes its transforms"
        *shaping, scaling, normalising = transform.transforms
        assert isinstance(scaling, ToTensor), "this is how open_clip's evaluation transforms end"
        assert isinstance(normalising, Normalize), "likewise"
        self._shaped = Compose(shaping)
        levels = np.arange(LEVELS, dtype=np.uint8)
        every = PIL.Image.fromarray(np.stack([levels] * 3, axis=-1)[None])  # 256 x 1
        self._table = normalising(scaling(every)).numpy()[:, 0]  # (3, 256)

    def __call__(self, picture: PIL.Image.Image) -> Tensor:
        """-> (3, h, w) float32."""
        values: npt.NDArray[np.uint8] = np.asarray(self._shaped(picture))  # (h, w, 3)
        pixels = np.empty((3, *values.shape[:2]), np.float32)
        for channel, (table, into) in enumerate(zip(self._table, pixels, strict=True)):
            np.take(table, values[..., channel], out=into, mode="clip")  # clip: needs no copy
        return torch.from_numpy(pixels)
