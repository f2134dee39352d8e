"""Pictures of maps: the right place, the right colour, and no picture of what was not found."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageDraw

from filter_service.images.views import Box
from filter_service.rendering.overlay import PAPER, overlay, seen
from filter_service.rendering.summary_card import GAP, PANEL, card
from filter_service.verdicts.explanation import (
    FlipRegion,
)
from filter_service.verdicts.faithfulness import Proof
from tests.support.explanation_records import MARGIN, SQUASH, map_of, record
from tests.support.proofs import FAILED

CROP = {"size": 64, "resize_mode": "shortest"}
PAD = {"size": [64, 64], "resize_mode": "longest"}


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def warmth(picture: Image.Image) -> npt.NDArray[np.float32]:
    """Red minus blue of every pixel: (h, w)."""
    rgb = np.asarray(picture, dtype=np.float32)
    return np.asarray(rgb[..., 0] - rgb[..., 2])


def centre_of(mass: npt.NDArray[np.float32]) -> tuple[float, float]:
    """(x, y) of the middle of what is positive."""
    mass = mass.clip(0)
    ys, xs = np.mgrid[: mass.shape[0], : mass.shape[1]] + 0.5
    return float((xs * mass).sum() / mass.sum()), float((ys * mass).sum() / mass.sum())


@pytest.mark.parametrize(
    ("preprocessing", "size", "expected"),
    [
        (SQUASH, (320, 160), (Box(0, 0, 320, 160))),
        (CROP, (320, 160), Box(80, 0, 240, 160)),
        (CROP, (160, 320), Box(0, 80, 160, 240)),
        (PAD, (320, 160), Box(0, -80, 320, 240)),
        ({"size": (64, 128)}, (320, 320), Box(0, 80, 320, 240)),
    ],
)
def test_the_model_sees_this_part(
    preprocessing: dict[str, Any], size: tuple[int, int], expected: Box
) -> None:
    assert seen(*size, preprocessing) == expected


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP, PAD])
@pytest.mark.parametrize("size", [(320, 160), (160, 320), (200, 200), (500, 375)])
def test_the_map_lies_where_open_clip_puts_the_pixels(
    preprocessing: dict[str, Any], size: tuple[int, int]
) -> None:
    spot = size[0] * 0.55, size[1] * 0.42
    picture = Image.new("RGB", size)
    ImageDraw.Draw(picture).circle(spot, 7, (255, 255, 255))
    transform = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
    light = transform(picture).sum(0).numpy()  # (64, 64)
    place = int(light.reshape(8, 8, 8, 8).sum((1, 3)).argmax())
    found = centre_of(
        warmth(overlay(picture.point(lambda _: 128), map_of(place), MARGIN, preprocessing))
    )
    box = seen(*size, preprocessing)
    half_a_place = (box.right - box.left) / 16, (box.bottom - box.top) / 16
    assert abs(found[0] - spot[0]) <= half_a_place[0] + 1
    assert abs(found[1] - spot[1]) <= half_a_place[1] + 1


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP, PAD])
@pytest.mark.parametrize("size", [(320, 160), (160, 320), (200, 200), (31, 47)])
def test_a_hot_place_colours_its_own_pixels(
    preprocessing: dict[str, Any], size: tuple[int, int]
) -> None:
    place = 3 * 8 + 4  # row 3, column 4
    box = seen(*size, preprocessing)
    x = box.left + (box.right - box.left) * 4.5 / 8
    y = box.top + (box.bottom - box.top) * 3.5 / 8
    drawn = overlay(grey(*size), map_of(place), MARGIN, preprocessing)
    found = centre_of(warmth(drawn))
    assert found == pytest.approx((x, y), abs=max(1.0, 0.02 * max(size)))


def test_evidence_is_warm_and_its_contrary_is_blue_and_neither_has_a_halo_of_the_other() -> None:
    evidence = warmth(overlay(grey(64, 64), map_of(27), MARGIN, SQUASH))
    assert evidence.max() > 50 and evidence.min() > -3
    against = warmth(overlay(grey(64, 64), map_of(27, value=-4.0), MARGIN, SQUASH))
    assert against.min() < -50 and against.max() < 3


def test_a_map_without_evidence_colours_nothing() -> None:
    faint = map_of(27, value=0.001)
    assert np.abs(warmth(overlay(grey(64, 64), faint, 0.0, SQUASH))).max() < 3


def test_under_an_empty_map_the_picture_is_still_to_be_seen() -> None:
    noise = np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    drawn = overlay(picture, map_of(), MARGIN, SQUASH).convert("L")
    before, after = np.asarray(picture.convert("L")).ravel(), np.asarray(drawn).ravel()
    assert np.corrcoef(before, after)[0, 1] > 0.999


def test_under_the_strongest_colour_the_picture_is_still_to_be_seen() -> None:
    picture = Image.new("L", (64, 64))
    picture.paste(255, (0, 0, 32, 64))
    drawn = np.asarray(overlay(picture, map_of(*range(64)), MARGIN, SQUASH).convert("L"), dtype=int)
    assert drawn[32, 16] > drawn[32, 48] + 40


def test_what_the_model_did_not_see_is_dark_and_without_colour() -> None:
    drawn = np.asarray(overlay(grey(320, 160), map_of(*range(64)), MARGIN, CROP), dtype=float)
    plain = np.asarray(overlay(grey(320, 160), map_of(), MARGIN, SQUASH), dtype=float)
    outside = np.concatenate([drawn[:, :80], drawn[:, 240:]], axis=1)
    assert np.ptp(outside) < 1 and outside.max() < 0.5 * plain.min()
    inside = drawn[:, 80:240]
    assert (inside[..., 0] - inside[..., 2]).min() > 50


def test_the_region_is_outlined_where_it_lies() -> None:
    region = FlipRegion(places=(0, 1), flips=True, margin=0.0, blurred_margin=0.0)
    without = np.asarray(overlay(grey(160, 160), map_of(), MARGIN, SQUASH), dtype=float)
    with_it = np.asarray(overlay(grey(160, 160), map_of(), MARGIN, SQUASH, region), dtype=float)
    changed = np.abs(with_it - without).sum(axis=2) > 0
    ys, xs = np.nonzero(changed)
    assert xs.max() <= 42 and ys.max() <= 22  # two places wide, one high, and the line
    assert changed[:, 36:43].any() and changed[17:23].any()
    assert not changed[6:14, 6:34].any()  # no line between the region's own places


def test_a_region_that_does_not_flip_is_not_outlined() -> None:
    region = FlipRegion(places=(0, 1), flips=False, margin=9.0, blurred_margin=9.0)
    plain = overlay(grey(160, 160), map_of(3), MARGIN, SQUASH)
    assert plain.tobytes() == overlay(grey(160, 160), map_of(3), MARGIN, SQUASH, region).tobytes()


def test_a_region_that_is_the_whole_image_is_not_outlined() -> None:
    region = FlipRegion(places=tuple(range(64)), flips=True, margin=0.0, blurred_margin=0.0)
    plain = overlay(grey(160, 160), map_of(3), MARGIN, SQUASH)
    assert plain.tobytes() == overlay(grey(160, 160), map_of(3), MARGIN, SQUASH, region).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1500)])
def test_pictures_of_every_size_get_a_card(size: tuple[int, int]) -> None:
    drawn = card(grey(*size), record(), CROP, grey(*size))
    assert drawn.size == card(grey(50, 50), record(), CROP).size


@pytest.mark.parametrize(
    "changes",
    [
        {"map": None, "no_map": "No map is known for this tower.", "region": None},
        {"words": ()},
        {"images": (), "no_images": "No stored image within reach gets the other answer."},
        {"boundary_degrees": None},
        {"proof": Proof.none()},
    ],
    ids=", ".join,
)
def test_a_record_that_lacks_something_gets_a_card(changes: dict[str, Any]) -> None:
    whole = card(grey(80, 80), record(), CROP, grey(80, 80))
    assert card(grey(80, 80), record(**changes), CROP).tobytes() != whole.tobytes()


def test_long_sentences_stay_on_their_part_of_the_card() -> None:
    sentence = "This tower pools in a way that no map is known for, " * 3 + "x" * 200
    changes = {"map": None, "no_map": sentence, "images": (), "no_images": sentence}
    drawn = np.asarray(card(grey(80, 80), record(**changes), CROP))
    for gap in (2 * GAP + 2 * PANEL, 3 * GAP + 3 * PANEL):  # right of the second panel, the third
        assert (drawn[80 : 120 + PANEL, gap : gap + GAP] == PAPER).all()


def test_prompts_in_any_script_get_a_card() -> None:
    prompt = record().words[0]
    foreign = prompt.model_copy(update={"prompt": "“un café” — 刀 🔪"})
    assert card(grey(80, 80), record(words=(foreign,)), CROP).width == 3 * PANEL + 4 * GAP


def test_a_map_that_failed_its_test_is_not_drawn() -> None:
    shown = warmth(card(grey(80, 80), record(), SQUASH))[110:440, 420:760]
    hidden = warmth(card(grey(80, 80), record(proof=FAILED), SQUASH))[110:440, 420:760]
    assert shown.max() > 50 and hidden.max() < 10


def test_the_same_record_gives_the_same_picture() -> None:
    first, second = (card(grey(80, 60), record(), CROP, grey(10, 10)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
