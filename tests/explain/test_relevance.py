"""The contract that every map keeps, tried on one small network per kind of image tower."""

import numpy as np
import pytest
import torch
from torch import Tensor

from filter_service.encoder import Encoder
from filter_service.errors import NotExplainable
from filter_service.explain.relevance import RelevanceMap, capture
from filter_service.scoring import FloatArray
from tests.support.tiny_encoders import tiny
from tests.support.tiny_inputs import directions, pixels, state

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


def relevance(
    encoder: Encoder, pixels: Tensor, directions: FloatArray
) -> tuple[FloatArray, list[RelevanceMap]]:
    """Embeddings (n, d) of (n, 3, h, w) pixels, and their maps for known directions (n, c, d)."""
    seen = capture(encoder, pixels)
    return seen.z, seen.maps(range(len(seen.z)), directions)


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
