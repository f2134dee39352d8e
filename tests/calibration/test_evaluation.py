"""Evaluation: counts that are right, and sentences where nothing can be known."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from typer.testing import CliRunner

from filter_service.calibration.evaluation import CountedShare, compare, evaluate
from filter_service.calibration.labelled_margins import Bools, Floats
from filter_service.cli import app
from filter_service.demo import POLICY, SAMPLES
from filter_service.policy import Calibration, ForbiddenClass, Policy
from tests.support.accessibility import beyond, violations
from tests.support.margin_worlds import stream

pytest_plugins = ["tests.support.console_fixtures"]

LINES = [json.loads(line) for line in (SAMPLES / "labels.jsonl").read_text().splitlines()]


def policy(*names: str, threshold: float = 0.8, b: float = 0.0) -> Policy:
    classes = [
        ForbiddenClass(
            name=n, prompts=(n,), threshold=threshold, calibration=Calibration(a=1.0, b=b)
        )
        for n in names
    ]
    return Policy(name="tested", neutral=("a street",), classes=tuple(classes))


def test_counts_are_those_of_the_threshold() -> None:
    margins = np.array([[3.0], [1.0], [2.0], [-1.0], [-2.0]])
    truths = np.array([[True], [True], [False], [False], [False]])
    (found,) = evaluate(policy("weapons"), margins, truths)
    c = found.confusion
    assert (c.flagged_rightly, c.missed, c.flagged_wrongly, c.cleared_rightly) == (1, 1, 1, 2)
    assert found.threshold_margin == pytest.approx(math.log(4))
    assert c.precision_at(0.5) == pytest.approx(0.5 / (0.5 + 1 / 3))
    assert [list(side) for side in found.nearest(2)] == [[2, 0], [1, 3]]


def test_a_calibrated_policy_is_judged_by_its_own_probabilities() -> None:
    margins, truths = stream(np.random.default_rng(0), 20_000)
    (raw,) = evaluate(policy("weapons"), margins[:, None], truths[:, None])
    (calibrated,) = evaluate(policy("weapons", b=-4.0), margins[:, None], truths[:, None])
    assert raw.agreement.flagged_error is not None
    assert calibrated.agreement.flagged_error is not None
    assert raw.agreement.flagged_error.low > 0.3
    assert calibrated.agreement.flagged_error.high < 0.2
    assert raw.calibrator is not None
    assert raw.calibrator.b == pytest.approx(-4.6, abs=0.6)


def test_suggested_thresholds_reach_their_aims_on_pictures_of_the_same_kind() -> None:
    margins, truths = stream(np.random.default_rng(1), 20_000)
    (found,) = evaluate(policy("weapons"), margins[:, None], truths[:, None])
    fresh, shown = stream(np.random.default_rng(2), 200_000)
    misses, precision = found.suggestions
    assert misses.threshold is not None
    assert precision.threshold is not None
    probabilities = 1 / (1 + np.exp(-fresh))
    assert (probabilities[shown] < misses.threshold).mean() <= 0.1
    assert shown[probabilities >= precision.threshold].mean() >= 0.87


def test_a_class_that_no_picture_shows_has_sentences_and_no_figures() -> None:
    (found,) = evaluate(policy("weapons"), np.linspace(-3, 3, 60)[:, None], np.zeros((60, 1), bool))
    assert found.average_precision is None
    assert found.confusion.recall.interval == (0.0, 1.0)
    assert "0 show it" in (found.uncalibrated or "")
    assert all(s.threshold is None and s.refusal for s in found.suggestions)


def test_two_policies_are_compared_picture_by_picture() -> None:
    margins, truths = stream(np.random.default_rng(3), 3_000, present=0.3)
    worse = np.random.default_rng(4).normal(margins, 3.0)
    first = evaluate(policy("weapons", "alcohol"), *_both(margins, truths))
    second = evaluate(policy("weapons"), worse[:, None], truths[:, None])
    (paired,) = compare(first, second)
    assert paired.name == "weapons"
    assert paired.gain is not None
    assert paired.gain.high < 0
    assert paired.proven
    assert paired.newly_flagged == ((worse >= math.log(4)) & (margins < math.log(4))).sum()
    same = compare(first, first)[0]
    assert not same.proven


def test_a_share_of_nothing_is_nothing() -> None:
    assert math.isnan(CountedShare(0, 0).value)


def test_a_labelled_folder_becomes_figures_and_a_page(tmp_path: Path, browser: Browser) -> None:
    for line in LINES[:24]:
        folder = tmp_path / "set" / (line["classes"][0] if line["classes"] else "clear")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / line["file"], folder)
    (tmp_path / "set/clear/torn.jpg").write_bytes(b"\xff\xd8\xff\xe0torn")
    out = tmp_path / "page.html"
    asked = ["evaluate", str(tmp_path / "set"), "--policy", str(POLICY)]
    result = CliRunner().invoke(app, [*asked, "--out", str(out), "--json"])
    assert result.exit_code == 1, result.output
    assert "torn.jpg: " in result.stderr
    found = json.loads(result.stdout)
    shown = sum("weapons" in line["classes"] for line in LINES[:24])
    weapons = found[0]["confusion"]
    assert weapons["flagged_rightly"] + weapons["missed"] == shown
    assert sum(weapons.values()) == 24
    page = browser.new_page(viewport={"width": 390, "height": 844})
    try:
        page.goto(out.as_uri())
        assert violations(page) == []
        assert beyond(page) == 0
        assert page.locator("section").count() == 5  # four classes, and what cannot be read
        assert "torn.jpg" in page.locator("section").last.inner_text()
    finally:
        page.close()


def _both(margins: Floats, truths: Bools) -> tuple[Floats, Bools]:
    """The same twice, the second class being the absence of the first."""
    return np.stack([margins, margins], axis=1), np.stack([truths, ~truths], axis=1)
