"""PDQ: copies of a picture are near each other, other pictures are not, plain ones have none."""

import io

import numpy as np
import PIL.Image
import pytest

from filter_service.demo.samples import FOLDER as SAMPLES
from filter_service.perceptual import BITS, NEAR, differing, packed, pdq

FILES = sorted(SAMPLES.glob("*.jpg"))[:40]


def opened() -> list[PIL.Image.Image]:
    return [PIL.Image.open(f).convert("RGB") for f in FILES]


def copied(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Made smaller, and compressed once more."""
    file = io.BytesIO()
    picture.resize((230, 230)).save(file, "JPEG", quality=60)
    return PIL.Image.open(file).convert("RGB")


def hashes(pictures: list[PIL.Image.Image]) -> dict[int, str]:
    found = {i: pdq(p) for i, p in enumerate(pictures)}
    return {i: h for i, h in found.items() if h is not None}


def test_copies_are_near_and_others_are_far() -> None:
    originals, copies = hashes(opened()), hashes([copied(p) for p in opened()])
    both = sorted(originals.keys() & copies.keys())
    assert len(both) > 30
    a, b = packed([originals[i] for i in both]), packed([copies[i] for i in both])
    distances = differing(a[:, None], b[None])  # (n, n)
    others = distances[~np.eye(len(both), dtype=bool)]
    assert distances.diagonal().max() <= NEAR < 80 < others.min()


@pytest.mark.parametrize("colour", ["white", "grey"])
def test_a_plain_picture_has_no_hash(colour: str) -> None:
    assert pdq(PIL.Image.new("RGB", (300, 200), colour)) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (640, 480)])
def test_every_size_is_hashed(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = pdq(PIL.Image.fromarray(noise))
    assert found is None or (len(found) == BITS and set(found) <= {"0", "1"})


def test_differing_counts_the_bits() -> None:
    a, b = "0" * BITS, "1" * 7 + "0" * (BITS - 8) + "1"
    assert differing(packed([a, b]), packed([b])).tolist() == [8, 0]
    assert packed([]).shape == (0, 4)
