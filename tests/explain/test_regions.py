"""Flip regions and the proof of a map, on a model whose answer is known pixel by pixel."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from filter_service.explain import faithfulness_trial
from filter_service.explain.regions import Suspect, flip_regions, margins, sufficient_regions
from filter_service.scoring import ClassVectors, FloatArray, LogitScale
from filter_service.verdicts.faithfulness import FAITHFUL, Drops

SIDE, GRID = 32, 4  # 16 places of 8 x 8 pixels
GUILTY = (5, 6)  # places that are red


@dataclass
class RedFinder:
    """Evidence is the share of red pixels: its margin rises with the first coordinate."""

    images: list[int] = field(default_factory=list)

    def __call__(self, pixels: Tensor) -> FloatArray:
        self.images.append(len(pixels))
        red = (pixels[:, 0] > 0.9).float().mean(dim=(1, 2))  # (n,)
        z = torch.stack([red, (1 - red**2).sqrt()], dim=1)  # (n, 2) unit
        return z.numpy()


def red_image(*places: int) -> Tensor:
    """Black, with red places: (3, SIDE, SIDE)."""
    grid = torch.zeros(GRID * GRID)
    grid[list(places)] = 1
    red = grid.reshape(GRID, GRID).repeat_interleave(8, 0).repeat_interleave(8, 1)
    return torch.stack([red, torch.zeros_like(red), torch.zeros_like(red)])


def suspect(image: Tensor, ranked: tuple[int, ...], red_share: float, grid: int = GRID) -> Suspect:
    """Flagged from a share of red on; `ranked` come first in its map, in this order."""
    order = np.zeros(grid * grid, dtype=np.float32)
    order[list(ranked)] = np.arange(len(ranked), 0, -1)
    vectors = ClassVectors(
        name="red",
        prompts=np.array([[1, 0]], dtype=np.float32),
        neutral=np.array([[0, 0]], dtype=np.float32),
        logit_scale=LogitScale(factor=100.0),
    )
    return Suspect(image, order.reshape(grid, grid), vectors, 100 * red_share)


def test_the_region_is_the_fewest_places_that_flip() -> None:
    both_needed = suspect(red_image(5, 6), (5, 6, 0, 1), red_share=1.5 / 16)
    one_flips = flip_regions(RedFinder(), [both_needed])[0]
    assert one_flips.flips and one_flips.places == (5,)
    either_enough = suspect(red_image(5, 6), (5, 6, 0, 1), red_share=0.5 / 16)
    assert flip_regions(RedFinder(), [either_enough])[0].places == (5, 6)


def test_a_map_in_the_wrong_order_needs_a_larger_region() -> None:
    (found,) = flip_regions(RedFinder(), [suspect(red_image(15), tuple(range(16)), 0.5 / 16)])
    assert found.flips and len(found.places) == 16


def test_what_does_not_flip_is_said_not_to() -> None:
    grey = torch.full((3, SIDE, SIDE), 0.95)  # its mean colour is as red as itself
    (found,) = flip_regions(RedFinder(), [suspect(grey, (0, 1), 0.5)])
    assert not found.flips
    assert len(found.places) == GRID * GRID
    assert found.margin == pytest.approx(100.0)


def test_the_margins_are_those_of_the_model() -> None:
    case = suspect(red_image(5, 6), (5, 6), 0.5 / 16)
    (found,) = flip_regions(RedFinder(), [case])
    places = np.array(found.places)
    again = margins(RedFinder(), [(case, case.without(places)), (case, case.blurred(places))])
    assert [found.margin, found.blurred_margin] == again


def blue_finder(pixels: Tensor) -> FloatArray:
    """Evidence is the share of blue pixels; a blur leaves most of a large blue area blue."""
    blue = (pixels[:, 2] > 0.5).float().mean(dim=(1, 2))  # (n,)
    return torch.stack([blue, (1 - blue**2).sqrt()], dim=1).numpy()


def blue_image() -> Tensor:
    """The upper half blue, so that a blur leaves its middle blue: (3, SIDE, SIDE)."""
    x = torch.zeros(3, SIDE, SIDE)
    x[2, : SIDE // 2] = 0.8
    return x


def test_the_region_is_the_smallest_that_flips_under_both_fills() -> None:
    case = suspect(blue_image(), tuple(range(16)), red_share=0.48)
    (found,) = flip_regions(blue_finder, [case])
    assert found.flips and found.blurred_flips
    assert found.margin < case.threshold and found.blurred_margin < case.threshold
    fewer = np.array(found.places[:-1])
    assert margins(blue_finder, [(case, case.blurred(fewer))])[0] >= case.threshold
    assert len(found.places) > 1  # under the mean colour alone the first would do


def test_where_one_fill_flips_and_the_other_does_not_both_are_told() -> None:
    (found,) = flip_regions(blue_finder, [suspect(blue_image(), tuple(range(16)), 3.5 / 16)])
    assert (found.flips, found.blurred_flips) == (True, False)
    assert len(found.places) == 5


def test_images_share_the_forward_passes() -> None:
    cases = [suspect(red_image(i), tuple(np.roll(np.arange(16), -i)), 0.5 / 16) for i in range(16)]
    model = RedFinder()
    found = flip_regions(model, cases)
    assert [r.places for r in found] == [(i,) for i in range(16)]
    assert len(model.images) <= 7  # all gone, log2(16) halvings and one to spare, the blur


def test_bisection_finds_the_fewest_wherever_they_end() -> None:
    cases = [suspect(red_image(i), tuple(range(16)), 0.5 / 16) for i in range(16)]
    assert [len(r.places) for r in flip_regions(RedFinder(), cases)] == list(range(1, 17))
    kept = sufficient_regions(RedFinder(), cases)
    assert [len(r.places) for r in kept] == list(range(1, 17))


def test_only_the_places_change() -> None:
    case = suspect(torch.rand(3, SIDE, SIDE), (5,), 0.5)
    gone = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    gone[8:16, 8:16] = True  # place 5 of a 4 x 4 grid
    for changed in (case.without(np.array([5])), case.blurred(np.array([5]))):
        assert torch.equal(changed[:, ~gone], case.pixels[:, ~gone])
        assert not torch.equal(changed[:, gone], case.pixels[:, gone])
    mean = case.pixels.mean(dim=(1, 2))[:, None]
    assert torch.allclose(case.without(np.array([5]))[:, gone], mean)


def test_blurring_leaves_no_detail() -> None:
    checks = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2
    case = suspect(checks.float().expand(3, SIDE, SIDE).contiguous(), (0,), 0.5)
    assert float(case.blurred(np.arange(16)).std()) < 0.01


def test_margins_that_are_known_save_passes_and_change_nothing() -> None:
    cases = [
        suspect(red_image(i), tuple(np.roll(np.arange(16), 3 - i)), 0.5 / 16) for i in range(16)
    ]
    served = margins(RedFinder(), [(case, case.pixels) for case in cases])
    known = [{2: margin, 4: 0.0} for margin in served]
    model = RedFinder()
    assert flip_regions(model, cases, known) == flip_regions(RedFinder(), cases)
    assert len(model.images) == 2  # between 2 and 4, the blur


def test_what_is_enough_by_itself_is_kept() -> None:
    case = suspect(red_image(5, 6, 9), (5, 6, 9, 0), red_share=1.5 / 16)
    (found,) = sufficient_regions(RedFinder(), [case])
    assert found.flips and found.places == (5, 6)
    assert found.margin == pytest.approx(100 * 2 / 16)
    gone = np.array([p for p in range(16) if p not in found.places])
    again = margins(RedFinder(), [(case, case.without(gone)), (case, case.blurred(gone))])
    assert [found.margin, found.blurred_margin] == again


def trial(case: Suspect) -> faithfulness_trial.Trial:
    return faithfulness_trial.Trial(case, RedFinder()(case.pixels[None])[0], case.vectors)


def test_a_right_map_beats_random_places() -> None:
    case = suspect(red_image(*GUILTY), GUILTY, 0.5 / 16)
    (found,) = faithfulness_trial.put_to_test(RedFinder(), [trial(case)])
    assert found.drops.marked == pytest.approx((100 * 2 / 16,) * 2)  # both guilty ones are gone
    assert found.drops.whole == pytest.approx(100 * 2 / 16)
    assert len(found.drops.random) == faithfulness_trial.RANDOM
    assert found.drops.marked[0] > max(tenth for tenth, _ in found.drops.random)
    assert found.drops.least == pytest.approx((0.0, 0.0), abs=1e-5)
    assert found.drops.deviation > FAITHFUL
    assert found.known == pytest.approx({2: 0.0, 3: 0.0, 16: 0.0}, abs=1e-5)


def test_a_wrong_map_does_not() -> None:
    case = suspect(red_image(*GUILTY), (0, 1, 2), 0.5 / 16)
    (found,) = faithfulness_trial.put_to_test(RedFinder(), [trial(case)])
    assert found.drops.marked == pytest.approx((0.0, 0.0), abs=1e-5)
    assert found.drops.deviation < FAITHFUL


def test_a_map_upside_down_loses_the_most_with_its_weakest_places() -> None:
    order = (*(p for p in range(16) if p not in GUILTY), *GUILTY)
    (found,) = faithfulness_trial.put_to_test(
        RedFinder(), [trial(suspect(red_image(*GUILTY), order, 0.5 / 16))]
    )
    assert found.drops.least == pytest.approx((100 * 2 / 16,) * 2)
    assert found.drops.deviation < 0


@pytest.mark.parametrize(
    ("drops", "deviation"),
    [
        ({}, (9 * 2 / 3 + 3 / 3 - (1 + 0) / 2) / 5),  # random ones alike: a twentieth of 100
        ({"least": (6.0, 0.0)}, (9 * 2 / 3 + 3 / 3 - (1 + 4) / 2) / 5),
        ({"random": ((-2.0, -2.0), (4.0, 4.0))}, (7 - 1 / 2) / np.hypot(5, 18**0.5)),
    ],
)
def test_the_deviation_is_in_spreads_of_random_drops(
    drops: dict[str, Any], deviation: float
) -> None:
    alike = ((1.0, 1.0), (1.0, 1.0))
    given = {"marked": (9.0, 3.0), "least": (0.0, 0.0), "random": alike, "whole": 90, "served": 100}
    assert Drops(**(given | drops)).deviation == pytest.approx(deviation)


def test_the_random_places_are_the_same_again() -> None:
    case = suspect(red_image(*GUILTY), GUILTY, 0.5 / 16)
    first, second = (faithfulness_trial.put_to_test(RedFinder(), [trial(case)]) for _ in range(2))
    assert first == second


def test_another_classs_drops_come_from_the_same_images() -> None:
    case = suspect(red_image(*GUILTY), GUILTY, 0.5 / 16)
    model = RedFinder()
    (found,) = faithfulness_trial.put_to_test(model, [trial(case)])
    assert found.next_drops == found.drops  # the next class is the same one
    assert sum(model.images) == 2 * (2 + faithfulness_trial.RANDOM) + 1
