"""The image tower of the screening pass: products in a lower precision, sums in float32."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

WITH_PRODUCTS = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)


class ScreeningTower(nn.Module):
    """A copy of an image tower that multiplies in `dtype`.

    What a transformer adds up from block to block stays in float32, as its norms do: a tower that
    is in bfloat16 as a whole errs by 1.4 (the bundled one) to 2.2 times as much (ViT-B/32).
    """

    def __init__(self, visual: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.visual = copy.deepcopy(visual)
        parts = list(self.visual.modules())
        for part in parts:
            if isinstance(part, WITH_PRODUCTS):
                part.to(dtype)
        patches = next((p for p in parts if isinstance(p, nn.Conv2d)), None)
        if patches is not None:  # its type is the one that a transformer goes on in
            patches.register_forward_hook(_in_float32)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, h, w) float32 -> (n, d) float32, not normalised."""
        with torch.autocast(pixels.device.type, self.dtype):
            features = self.visual(pixels)
        if isinstance(features, tuple):  # CoCa's tower returns its tokens too
            features = features[0]
        return torch.as_tensor(features, dtype=torch.float32)  # (n, d)


def _in_float32(_part: nn.Module, _given: Any, result: Tensor) -> Tensor:  # noqa: ANN401
    return result.float()
