"""The contract that every map keeps, tried on one small network per kind of image tower."""

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from filter_service.encoder import Encoder
from filter_service.errors import NotExplainable
from filter_service.explain.relevance import RelevanceMap, capture
from filter_service.scoring import FloatArray
from tests.tiny import tiny

EXPLAINED = [
    "vit",
    "oblong",
    "layer scale",
    "average",
    "average first",
    "norm after",
    "pooler",
    "coca",
    "siglip",
    "resnet",
]
REFUSED = ["parallel"]


def pixels(kind: str, n: int = 3) -> Tensor:
    """Noise of the size that a tower takes: (n, 3, h, w)."""
    size = {"resnet": (64, 64), "oblong": (32, 48), "siglip": (160, 160)}.get(kind, (32, 32))
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1))


def directions(kind: str, n: int = 3, classes: int = 2) -> FloatArray:
    """Directions of the length that margins have: (n, classes, d)."""
    dim = tiny(kind).encode(pixels(kind, 1)).shape[1]
    u = np.random.default_rng(2).normal(size=(n, classes, dim))
    return np.asarray(10.0 * u / np.linalg.norm(u, axis=-1, keepdims=True), dtype=np.float32)


def relevance(
    encoder: Encoder, pixels: Tensor, directions: FloatArray
) -> tuple[FloatArray, list[RelevanceMap]]:
    """Embeddings (n, d) of (n, 3, h, w) pixels, and their maps for known directions (n, c, d)."""
    seen = capture(encoder, pixels)
    return seen.z, seen.maps(range(len(seen.z)), directions)


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


@pytest.mark.parametrize("kind", EXPLAINED)
class TestEveryMap:
    """What any method has to keep, on any tower."""

    def test_map_and_remainder_add_up_to_the_score(self, kind: str) -> None:
        u = directions(kind)
        z, maps = relevance(tiny(kind), pixels(kind), u)
        served = np.einsum("ncd,nd->nc", u, z)
        sums = np.stack([m.grid.sum(axis=(1, 2)) + m.remainder for m in maps])
        assert np.abs(sums - served).max() < 1e-4

    def test_the_score_explained_is_the_score_served(self, kind: str) -> None:
        u = directions(kind)
        _, maps = relevance(tiny(kind), pixels(kind), u)
        served = np.einsum("ncd,nd->nc", u, tiny(kind).encode(pixels(kind)))
        assert np.abs(np.stack([m.explained for m in maps]) - served).max() < 1e-4

    def test_one_image_gets_the_map_it_gets_among_others(self, kind: str) -> None:
        _, together = relevance(tiny(kind), pixels(kind), directions(kind))
        _, alone = relevance(tiny(kind), pixels(kind)[1:2], directions(kind)[1:2])
        assert np.abs(together[1].grid - alone[0].grid).max() < 1e-4

    def test_a_map_does_not_depend_on_the_other_classes(self, kind: str) -> None:
        _, both = relevance(tiny(kind), pixels(kind), directions(kind))
        _, one = relevance(tiny(kind), pixels(kind), directions(kind)[:, 1:])
        assert np.abs(both[0].grid[1] - one[0].grid[0]).max() < 1e-4

    def test_the_model_is_left_as_it_was(self, kind: str) -> None:
        before = state(tiny(kind).model)
        relevance(tiny(kind), pixels(kind), directions(kind))
        assert state(tiny(kind).model) == before

    def test_the_model_is_left_as_it_was_when_the_forward_raises(self, kind: str) -> None:
        before = state(tiny(kind).model)
        with pytest.raises(Exception):  # noqa: B017  (each tower has its own error)
            capture(tiny(kind), torch.zeros(1, 7, 32, 32))
        assert state(tiny(kind).model) == before

    def test_the_map_is_not_flat(self, kind: str) -> None:
        _, maps = relevance(tiny(kind), pixels(kind), directions(kind))
        assert all(np.ptp(m.grid) > 1e-6 for m in maps)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tower_without_an_exact_map_is_refused_by_name(kind: str) -> None:
    with pytest.raises(NotExplainable, match="VisionTransformer; what is missing: "):
        relevance(tiny(kind), pixels(kind), directions(kind))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tower_without_a_map_is_encoded_all_the_same(kind: str) -> None:
    seen = capture(tiny(kind), pixels(kind))
    assert np.array_equal(seen.z, tiny(kind).encode(pixels(kind)))
