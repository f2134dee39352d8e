"""PDQ: copies of a picture are near each other, other pictures are not, plain ones have none."""

import io

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from filter_service.demo import SAMPLES
from filter_service.images.perceptual_hash import BITS, NEAR, differing, packed, pdq

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


def bits_between(one: PIL.Image.Image, other: PIL.Image.Image) -> int:
    a, b = pdq(one), pdq(other)
    assert a and b
    return int(differing(packed([a]), packed([b]))[0])


def test_copies_are_near_and_others_are_far() -> None:
    originals, copies = hashes(opened()), hashes([copied(p) for p in opened()])
    both = sorted(originals.keys() & copies.keys())
    assert len(both) > 30
    a, b = packed([originals[i] for i in both]), packed([copies[i] for i in both])
    distances = differing(a[:, None], b[None])  # (n, n)
    others = distances[~np.eye(len(both), dtype=bool)]
    assert distances.diagonal().max() <= NEAR < 80 < others.min()


@pytest.fixture(scope="module")
def page() -> PIL.Image.Image:
    """A page of print, as a scanner sees it."""
    paper = PIL.Image.new("RGB", (1240, 1754), "white")
    draw, font = PIL.ImageDraw.Draw(paper), PIL.ImageFont.load_default(22)
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrst   "), (52, 100))
    for i, line in enumerate(letters):
        draw.text((80, 90 + 30 * i), "".join(line), "black", font)
    return paper


@pytest.mark.parametrize("share", [0.3, 0.35, 0.5, 0.62, 0.75, 0.9, 1.3])
def test_a_scaled_copy_of_print_is_near(page: PIL.Image.Image, share: float) -> None:
    copy = page.resize((round(1240 * share), round(1754 * share)), PIL.Image.Resampling.LANCZOS)
    assert bits_between(page, copy) <= 20 < NEAR


def test_a_hash_of_before_this_reduction_is_near() -> None:
    """Lists hold hashes that were made with a box filter, and are matched with new ones."""
    then = [
        "5ed8f630e00380c72d6e3f7b7a87d0c4b52e9fd94801c667b57b3a510ac519ce",
        "6e2f6e0cd82ac8ace8e96e0b5d439def9a80081552ccff279b88fc7558c3b2a8",
        "19a364719e368e63c6cdce7e326138c43676c76669c93996cb86c9b318c69e1c",
    ]
    stored = packed([f"{int(each, 16):0{BITS}b}" for each in then])
    now = packed([pdq(p) or "" for p in opened()[:3]])
    assert differing(stored, now).max() <= NEAR // 2


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
