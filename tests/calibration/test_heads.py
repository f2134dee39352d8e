"""Heads: the prompts until there are labels, proposed where they gain, moved as each label says."""

import math

import numpy as np
import pytest

from filter_service.calibration.heads import (
    LabelledVectors,
    fit_head,
    label_influence,
    propose_head,
)
from filter_service.errors import InvalidRequest


def vectors(seed: int, count: int, tilt: float) -> LabelledVectors:
    """Image vectors whose class lies off the prompts' direction by the arc sine of `tilt`."""
    rng = np.random.default_rng(seed)
    prompt, other = np.linalg.qr(rng.normal(size=(64, 2)))[0].T  # (64,) each
    towards = math.sqrt(1 - tilt**2) * prompt + tilt * other
    truths = np.arange(count) % 5 < 2
    z = rng.normal(size=(count, 64)) / 8 + 0.5 * truths[:, None] * towards
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return LabelledVectors(z, 10 * (z @ prompt) - 2, truths)


def test_without_strength_a_head_is_its_prompts() -> None:
    labels = vectors(0, 60, 0.9)
    assert np.abs(fit_head(labels, 0.0).added(labels.vectors)).max() == 0
    assert np.abs(fit_head(labels, 1e-5).added(labels.vectors)).max() < 1e-6


def test_a_class_that_its_prompts_name_well_learns_nothing() -> None:
    assert sum(propose_head(vectors(i, 50, 0.0), "weapons").proven for i in range(4)) == 0


def test_a_class_that_its_prompts_name_badly_gains_by_fifty_labels() -> None:
    found = [propose_head(vectors(i, 50, 0.94), "weapons") for i in range(3)]
    assert sum(p.proven for p in found) >= 2
    assert np.mean([p.gain.value for p in found]) > 0.1


def test_what_a_head_gains_holds_for_images_that_nobody_labelled() -> None:
    everything = vectors(1, 1_050, 0.94)
    first, rest = np.arange(1_050) < 50, np.arange(1_050) >= 50
    labels = LabelledVectors(
        everything.vectors[first], everything.margins[first], everything.truths[first]
    )
    proposal = propose_head(labels, "weapons")
    added = proposal.direction.added(everything.vectors)
    before, after = (
        np.mean(m[rest & everything.truths]) - np.mean(m[rest & ~everything.truths])
        for m in (everything.margins, everything.margins + added)
    )
    assert after > before


@pytest.mark.parametrize("count", [50, 600])
def test_the_influence_of_a_label_is_what_fitting_without_it_changes(count: int) -> None:
    labels = vectors(2, count, 0.9)
    z = labels.vectors[3] + labels.vectors[8]
    z /= np.linalg.norm(z)
    told = label_influence(labels, 3.0, z)
    whole = fit_head(labels, 3.0).added(z[None])[0]
    tried = np.argsort(-np.abs(told))[:: max(1, count // 100)]
    again = [
        whole - fit_head(labels.among(np.arange(count) != i), 3.0).added(z[None])[0] for i in tried
    ]
    assert np.abs(again).max() > 1e-3
    assert np.abs(told[tried] - again).max() < 1e-3


def test_a_head_that_stands_is_what_a_new_one_has_to_gain_over() -> None:
    labels = vectors(1, 200, 0.94)
    proposal = propose_head(labels, "weapons")
    standing = labels.margins + proposal.direction.added(labels.vectors)
    assert proposal.proven
    assert not propose_head(labels, "weapons", standing=standing).proven


def test_images_that_are_all_alike_teach_nothing() -> None:
    labels = vectors(0, 60, 0.9)
    same = LabelledVectors(np.tile(labels.vectors[0], (60, 1)), np.zeros(60), labels.truths)
    with pytest.raises(InvalidRequest, match="all the same to the model"):
        propose_head(same, "weapons")


@pytest.mark.parametrize(("count", "shown"), [(49, 20), (60, 9), (60, 55), (0, 0)])
def test_too_few_labels_are_refused_with_a_sentence(count: int, shown: int) -> None:
    rng = np.random.default_rng(0)
    labels = LabelledVectors(rng.normal(size=(count, 4)), np.zeros(count), np.arange(count) < shown)
    with pytest.raises(InvalidRequest, match=f"from {count} labels, of which {shown}"):
        propose_head(labels, "weapons")
