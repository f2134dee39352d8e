"""Images and directions for the tiny encoders."""

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from filter_service.scoring import FloatArray
from tests.support.tiny_encoders import tiny


def pixels(kind: str, n: int = 3) -> Tensor:
    """Noise of the size that a tower takes: (n, 3, h, w)."""
    size = {"resnet": (64, 64), "oblong": (32, 48), "siglip": (160, 160)}.get(kind, (32, 32))
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1))


def directions(kind: str, n: int = 3, classes: int = 2) -> FloatArray:
    """Directions of the length that margins have: (n, classes, d)."""
    dim = tiny(kind).encode(pixels(kind, 1)).shape[1]
    u = np.random.default_rng(2).normal(size=(n, classes, dim))
    return np.asarray(10.0 * u / np.linalg.norm(u, axis=-1, keepdims=True), dtype=np.float32)


def state(model: nn.Module) -> str:
    """Everything a borrowed model must get back: values, gradients' switches, hooks."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    for module in model.modules():
        digest.update(str((module.training, len(module._forward_hooks))).encode())
    for p in model.parameters():
        digest.update(str((p.requires_grad, p.grad is None)).encode())
    return digest.hexdigest()
