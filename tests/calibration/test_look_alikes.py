"""Look-alikes: what one's own highest pictures fit better, and no synonym of what is forbidden."""

import numpy as np
import numpy.typing as npt
import pytest

from filter_service.calibration.look_alike_choice import harmless, look_alikes, shortlist
from filter_service.scoring import FloatArray


def unit(*rows: npt.ArrayLike) -> FloatArray:
    x = np.array(rows, dtype=np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


GUN = unit([1, 0, 0, 0])
DRILL, PEN, DOG = [0.8, 0.6, 0, 0], [0.8, 0, 0.6, 0], [0, 0, 0, 1]
PHRASES = unit(DRILL, PEN, DOG)


def test_the_phrase_that_most_pictures_fit_comes_first_and_then_that_of_the_rest() -> None:
    top = unit(*[PEN] * 3, *[DRILL] * 4, *GUN)
    another_drill = unit([0.79, 0.61, 0, 0])
    found = look_alikes(top, GUN, np.concatenate([PHRASES, another_drill]), most=5)
    assert [(a.phrase, a.won) for a in found] == [(0, 4), (1, 3)]
    assert [a.phrase for a in look_alikes(top, GUN, PHRASES, most=1)] == [0]


def test_pictures_that_fit_a_prompt_best_make_no_look_alike() -> None:
    nearly = unit([0.97, 0.2, 0, 0])
    assert look_alikes(np.repeat(nearly, 9, axis=0), GUN, PHRASES, most=5) == []


def test_one_picture_alone_makes_no_look_alike() -> None:
    assert look_alikes(unit(DRILL, GUN[0], GUN[0]), GUN, PHRASES, most=5) == []


def test_a_phrase_nearer_to_what_is_forbidden_than_any_neutral_prompt_is_no_look_alike() -> None:
    neutral = unit([0.6, 0.8, 0, 0], DOG)
    phrases = unit([0.7, 0.7, 0, 0], [0.5, 0.5, 0.5, 0.5], DOG)
    assert harmless(phrases, GUN, neutral).tolist() == [False, True, True]


def test_a_synonym_of_another_class_is_no_look_alike_either() -> None:
    neutral, beer = unit([0.6, 0.8, 0, 0], DOG), unit([0, 0, 1, 0])
    phrases = unit([0.5, 0, 0.8, 0])
    assert harmless(phrases, GUN, neutral).tolist() == [True]
    assert harmless(phrases, np.concatenate([GUN, beer]), neutral).tolist() == [False]


def test_the_shortlist_holds_the_best_phrases_of_each_picture() -> None:
    rng = np.random.default_rng(0)
    phrases, top = unit(*rng.standard_normal((60, 4))), unit(*rng.standard_normal((3, 4)))
    rows = shortlist(top, phrases)
    best = (top @ phrases.T).argmax(axis=1)
    assert set(best) <= set(rows.tolist()) and 5 <= len(rows) <= 15


@pytest.mark.parametrize("phrases", [PHRASES[:0], PHRASES])
def test_nothing_is_chosen_where_there_is_nothing(phrases: FloatArray) -> None:
    top = PHRASES[:0] if len(phrases) else PHRASES
    assert look_alikes(top, GUN, phrases, most=5) == []
    assert len(shortlist(top, phrases)) == 0
