"""The pictogram world: the same seed, the same scene; what removing an object may change."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from filter_service.demo.kinds import CLASS_OF, FORBIDDEN, KINDS, TRAINED_STYLES, UNSEEN_STYLE
from filter_service.demo.samples import SAMPLE_SEEDS, moderation_scene
from filter_service.demo.scenes import (
    DEV_SEEDS,
    TEST_SEEDS,
    PlacedObject,
    Scene,
    captions,
    mask,
    render,
    sample_scene,
    without,
)

SIDE = 96


def pixels(scene: Scene, side: int = SIDE) -> npt.NDArray[np.int16]:
    return np.asarray(render(scene, side)).astype(np.int16)  # (side, side, 3)


def changed(scene: Scene, index: int) -> npt.NDArray[np.bool_]:
    """Pixels that differ once an object is gone."""
    gone = np.abs(pixels(scene) - pixels(without(scene, index))).max(axis=2)
    return np.asarray(gone > 0)


def widened(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask and the pixels next to it, where an object's soft edge lies."""
    padded = np.pad(mask, 1)
    return np.asarray(sliding_window_view(padded, (3, 3)).any(axis=(2, 3)))


def placed(kind: str, x: float, y: float, size: float = 0.4) -> PlacedObject:
    return PlacedObject(kind=kind, style="noto", x=x, y=y, size=size)


def scene_of(*objects: PlacedObject) -> Scene:
    return Scene(objects, colour="blue", texture="striped", seed=3)


def test_the_world_has_at_least_150_kinds() -> None:
    assert len(set(KINDS)) == len(KINDS) >= 150


def test_every_forbidden_kind_is_a_kind() -> None:
    assert set(CLASS_OF) <= set(KINDS)
    assert set(CLASS_OF.values()) == set(FORBIDDEN)


@pytest.mark.parametrize("style", [*TRAINED_STYLES, UNSEEN_STYLE])
def test_every_kind_is_drawn_differently(style: str) -> None:
    alone = [pixels(scene_of(replace(placed(k, 0.5, 0.5, 0.8), style=style)), 32) for k in KINDS]
    empty = pixels(scene_of(), 32)
    assert all((picture != empty).mean() > 0.05 for picture in alone)
    assert len({picture.tobytes() for picture in alone}) == len(KINDS)


def test_the_same_seed_gives_the_same_picture() -> None:
    one, two = sample_scene(5, 3), sample_scene(5, 3)
    assert one == two
    assert (pixels(one) == pixels(two)).all()


def test_another_seed_gives_another_picture() -> None:
    assert (pixels(sample_scene(5, 3)) != pixels(sample_scene(6, 3))).any()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_scene_has_as_many_kinds_as_asked(count: int) -> None:
    for seed in range(20):
        assert len({o.kind for o in sample_scene(seed, count).objects}) == count


@pytest.mark.parametrize("seed", range(12))
def test_a_scene_without_an_object_differs_only_around_its_mask(seed: int) -> None:
    scene = sample_scene(seed, 1 + seed % 3)
    last = len(scene.objects) - 1  # nothing hides it
    shown, o = mask(scene, last, SIDE), scene.objects[last]
    where = changed(scene, last)
    y, x = np.nonzero(where)
    reach = 0.72 * o.size * SIDE + 2  # half the diagonal of its square, and a pixel of rounding
    assert np.hypot(x - o.x * SIDE, y - o.y * SIDE).max() <= reach * 1.05
    assert (where & shown).sum() > 0.8 * shown.sum()
    assert (where & ~widened(shown)).sum() < 0.1 * where.sum()  # faint shades


def test_removing_an_object_keeps_background_and_others() -> None:
    scene = scene_of(placed("dog", 0.25, 0.25), placed("gun", 0.75, 0.75))
    rest = pixels(without(scene, 1))
    assert (rest == pixels(scene_of(scene.objects[0]))).all()


def test_an_object_in_front_hides_the_one_behind() -> None:
    scene = scene_of(placed("basketball", 0.5, 0.5), placed("soccer ball", 0.5, 0.5, 0.6))
    assert not mask(scene, 0, SIDE).any()
    assert mask(without(scene, 1), 0, SIDE).any()


def test_masks_of_different_objects_never_overlap() -> None:
    for seed in range(10):
        masks = [mask(sample_scene(seed, 3), i, SIDE) for i in range(3)]
        assert np.sum(masks, axis=0).max() == 1


def test_a_scene_keeps_its_geometry_at_every_size() -> None:
    scene = sample_scene(8, 2)
    small = mask(scene, 0, 64)
    large = mask(scene, 0, 384).reshape(64, 6, 64, 6).mean(axis=(1, 3)) > 0.5
    assert (small != large).mean() < 0.02


def test_captions_say_what_is_where() -> None:
    said = captions(scene_of(placed("dog", 0.2, 0.2, 0.28), placed("gun", 0.7, 0.7, 0.55)))
    assert {"a dog", "a gun", "a dog left of a gun", "a dog above a gun"} <= set(said)
    assert {"a small dog", "a big gun", "a gun on a striped background"} <= set(said)
    assert "a gun left of a dog" not in said


def test_a_moderation_scene_shows_the_class_it_is_labelled_with() -> None:
    for seed in range(40):
        sample = moderation_scene(seed, forbidden=seed % 3 == 0)
        shown = {CLASS_OF[o.kind] for o in sample.scene.objects if o.kind in CLASS_OF}
        assert shown == set(sample.classes)


def test_the_seed_ranges_do_not_touch() -> None:
    trained_until = 2 * 50_000_000  # seed 1, and more scenes than any run draws
    assert trained_until < DEV_SEEDS < SAMPLE_SEEDS < TEST_SEEDS
