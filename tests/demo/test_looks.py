"""What the second stage of training sees, and what is said to be in it."""

import numpy as np
import pytest

from filter_service.demo import looks
from filter_service.demo.looks import look
from filter_service.demo.scenes import EMPTY, captions, sample_scene

SIDE = 64
FIRST = 40_000_000  # seeds of no split


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing hidden, so that what a test changes is all that happens."""
    monkeypatch.setattr(looks, "HIDDEN", 0.0)
    return monkeypatch


def test_a_seed_decides_a_look() -> None:
    (one, there), (two, again) = look(FIRST, SIDE), look(FIRST, SIDE)
    assert (np.asarray(one) == np.asarray(two)).all() and there == again
    assert one.size == (SIDE, SIDE)


def test_a_ground_is_said_to_be_empty(only: pytest.MonkeyPatch) -> None:
    only.setattr(looks, "SHARES", {"ground": 1.0})
    for seed in range(10):
        _, scene = look(FIRST + seed, SIDE)
        assert captions(scene)[0] == EMPTY
        assert f"an empty {scene.texture} {scene.colour} background" in captions(scene)


def test_what_a_window_shows_little_of_is_not_in_it(only: pytest.MonkeyPatch) -> None:
    only.setattr(looks, "SHARES", {"page": 1.0})
    found = [look(FIRST + seed, SIDE)[1] for seed in range(60)]
    edges = [min(o.x, o.y, 1 - o.x, 1 - o.y) for scene in found for o in scene.objects]
    assert 0 < sum(not scene.objects for scene in found) < 40
    assert min(edges) > -0.1  # a thing of which two fifths are seen has its centre near the edge


def test_what_is_hidden_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SHARES", {"square": 1.0})
    monkeypatch.setattr(looks, "HIDDEN", 0.0)
    plain = [look(FIRST + seed, SIDE) for seed in range(20)]
    monkeypatch.setattr(looks, "HIDDEN", 1.0)
    monkeypatch.setattr(looks, "MOST_HIDDEN", 0.8)
    hidden = [look(FIRST + seed, SIDE) for seed in range(20)]
    pairs = list(zip(plain, hidden, strict=True))
    assert all(set(b.objects) <= set(a.objects) for (_, a), (_, b) in pairs)
    assert any(len(b.objects) < len(a.objects) for (_, a), (_, b) in pairs)
    changed = [(np.asarray(a) != np.asarray(b)).any(-1).mean() for (a, _), (b, _) in pairs]
    assert 0 < max(changed) <= 0.8


def test_a_page_has_its_things_within_it() -> None:
    for seed in range(20):
        for o in sample_scene(seed, 3, shape=(2.5, 1.0)).objects:
            assert o.size / 2 <= o.x <= 2.5 - o.size / 2 and o.size / 2 <= o.y <= 1 - o.size / 2
